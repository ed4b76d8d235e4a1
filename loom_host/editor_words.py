"""What editors show beside each key of `plugin.toml` and `loom.toml`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping

PLUGIN: Mapping[str, str] = {
    "plugin": "What it is.",
    "plugin.id": "publisher/name, in lower case.",
    "plugin.version": "Of this release, such as 1.2.0.",
    "plugin.api": 'Of the contract: "1".',
    "plugin.type": "What kind of plugin it is.",
    "plugin.tier": "Where it runs unless loom.toml says otherwise.",
    "plugin.tiers": "All tiers that its code runs in.",
    "plugin.entry": "module:Class, a .wasm, .c, .zig or .js file, or a command line as a list.",
    "plugin.description": "One sentence for people.",
    "plugin.instances": "single keeps state between calls; pool may run many and keeps none.",
    "plugin.sandbox": "strict: of a first-party grpc plugin that wants no less than a stranger's.",
    "plugin.placement": "cloud: data leaves the machine in a way that its grants do not tell.",
    "plugin.license": "An SPDX name, such as MIT; a package needs one.",
    "config": "Its settings: the JSON Schema of each, with its default.",
    "capability": "Something that can be invoked.",
    "capability.name": "Such as weather.get.",
    "capability.version": "Of the capability, where it is another than the plugin's.",
    "capability.description": "For people and models; read from the docstring where absent.",
    "capability.tool": "Whether a language model may choose it.",
    "capability.effects": "none and idempotent may be repeated by the host, once never is.",
    "capability.input": "JSON Schema of the arguments; read from the type hints where absent.",
    "capability.output": "JSON Schema of the answer; read from the type hints where absent.",
    "capability.examples": "What it is asked and answers, for models and tests.",
    "capability.examples.question": "What somebody would say; alone, what is not meant for it.",
    "capability.examples.arguments": "What it is called with, which fits the input.",
    "capability.examples.output": "What the answer must hold; objects may leave keys out.",
    "capability.examples.error": "Code of the error that it is refused with, such as NO_WORDS.",
    "capability.examples.slow": "Whether the call takes two seconds or more.",
    "capability.resumable": "Whether another provider may go on with a stream that broke off.",
    "events": "What it hears and publishes.",
    "events.publishes": "Topics that it publishes, with * for one token and > for the rest.",
    "events.subscribes": "What it hears.",
    "events.subscribes.topic": "Pattern, with * for one token and > for the rest.",
    "events.subscribes.qos": "realtime drops the oldest; batched and background wait.",
    "events.subscribes.types": "Only events of these types; all where absent.",
    "events.subscribes.concurrency": "Events at once; 1 keeps their order.",
    "permissions": "What it asks for; loom.toml allows it.",
    "permissions.network": "Such as https://*.example.com or GET https://api.example.com.",
    "permissions.filesystem": "Names of folders; :rw to write.",
    "permissions.env": "Variables of the environment.",
    "permissions.secrets": "Names of secrets that the host keeps.",
    "permissions.invoke": "Capabilities of other plugins, with *.",
    "permissions.devices": "Such as microphone.",
    "permissions.storage": "Whether it keeps keys and values in the host's storage.",
    "permissions.labels": "Labels, private or local-only, of what it wants to read.",
    "permissions.provide": "Asked for by [[capability]]; listed here it says the same.",
    "permissions.subscribe": "Asked for by [[events.subscribes]]; listed here it says the same.",
    "permissions.publish": "Topics beside those of [events] publishes.",
    "quotas": "Its limits; loom.toml overrules them key by key.",
    "storage": "Of what it keeps in the host's storage.",
    "storage.version": "Of the form of that data; raise it when the form changes.",
}
LOOM: Mapping[str, str] = {
    "extends": "A profile of the host to start from; tables are merged key by key.",
    "host": "The host itself.",
    "telemetry": "Traces, metrics and logs.",
    "telemetry.log_level": "The least that is logged.",
    "plugins": "Which plugins run, and with what.",
    "plugins.enabled": "Switches it off without removing the table.",
    "plugins.allow": "What of the permissions that it asks for is granted.",
    "plugins.config": "Its settings, as its plugin.toml describes them.",
    "plugins.quotas": "Limits that overrule those of its plugin.toml.",
    "routing": "When providers are avoided and tried again; see docs/ROUTING.md.",
    "routing.open_max_s": "The longest that it is avoided between two probes.",
    "agents": "Agents, and the policy of what they invoke.",
    "agents.plugin": "Name of the plugin that it is an instance of.",
    "agents.parameters": "Settings of the plugin that differ for it, beside routing and tools.",
    "agents.parameters.routing": "Where what it invokes may run, and for what.",
    "agents.parameters.routing.privacy": "public, sensitive, private or local-only.",
    "agents.parameters.routing.latency_budget_ms": "What an answer may take, in milliseconds.",
    "agents.parameters.routing.cost_cap": "What a call may cost, in the unit of cost.",
    "agents.parameters.routing.quality_threshold": "From this confidence on the quick way will do.",
    "agents.parameters.tools": "Which tools act at once, ask, or are denied.",
    "clients": "Programs outside of the host that call its tools, such as MCP clients.",
    "clients.allow": "What it may do.",
    "clients.allow.invoke": "Patterns of the tools that it is shown and may call.",
    "clients.quotas": "Limits of its calls.",
    "secrets": "What plugins get by ctx.secret: exactly one of env, file and command.",
    "secrets.env": "Variable of the host's environment that holds it.",
    "secrets.command": "Command that prints it.",
    "storage": "How the host stores.",
    "event_log": "Which events are kept, and for how long.",
}
ALLOW = {
    "subscribe": "Topics, or true for all that it asks for.",
    "publish": "Topics, or true for all that it asks for.",
    "provide": "Capabilities, or true for all that it offers.",
    "invoke": "Capabilities, with *.",
    "network": "Hosts, such as https://*.example.com.",
    "filesystem": "Folders by name; where they are is said under folders.",
    "env": "Variables of the environment.",
    "secrets": "Names of secrets.",
    "devices": "Such as microphone.",
    "storage": "Whether it may keep keys and values.",
    "labels": "private or local-only: what it may read although it is so labelled.",
}
QUOTAS = {
    "storage_bytes": "Bytes of its keys and values.",
    "open_files": "Open files, sockets and the like.",
}


def field_docs(kind: type) -> dict[str, str]:
    """The texts under the fields of a dataclass, each on one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found
