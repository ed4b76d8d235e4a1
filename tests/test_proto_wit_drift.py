"""`plugin.proto` and `plugin.wit` say the same, and the host's tables say what the WIT says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest

from loom_host.runtimes.wasm.contract import EXPORTS
from loom_host.runtimes.wasm.host_imports import SIGNATURES

from .support import ROOT

PROTO = (ROOT / "proto" / "plugin.proto").read_text()
WIT = (ROOT / "sdk" / "wit" / "plugin.wit").read_text()

Fields = dict[str, str]

SCALARS = {
    "string": "string",
    "bytes": "list<u8>",
    "bool": "bool",
    "float": "f32",
    "int64": "s64",
    "uint32": "u32",
    "QoSLevel": "qos-level",
    "HttpHeader": "http-header",
    "CapabilityDescriptor": "capability-descriptor",
    "SubscriptionDescriptor": "subscription-descriptor",
}
"""A proto type as the WIT writes it."""

RECORDS = {
    "event": "Event",
    "action-error": "ActionError",
    "action-call": "ActionCall",
    "action-result": "ActionResult",
    "init-request": "InitRequest",
    "init-response": "InitResponse",
    "capability-descriptor": "CapabilityDescriptor",
    "subscription-descriptor": "SubscriptionDescriptor",
    "health-status": "HealthStatus",
    "http-header": "HttpHeader",
    "http-call": "HttpCall",
    "http-reply": "HttpReply",
    "span-record": "SpanRecord",
}
ENUMS = {"action-status": ("ActionStatus", "ACTION_"), "qos-level": ("QoSLevel", "QOS_")}

ONLY_IN_PROTO = {
    ("action-call", "stream"): "a guest emits through an import; a nested call returns at its end",
    ("action-call", "idempotent-id"): "a guest that sends an id means it so",
    ("action-result", "call-id"): "the result is the function's return",
    ("action-result", "status"): "the function's `result` tells",
    ("action-result", "error"): "the function's `result` carries it",
    ("action-result", "item"): "items go through the import `emit`",
    ("action-result", "provider"): "told to hosts and children only",
    ("init-request", "host-socket"): "a guest has imports instead of a socket",
    ("init-request", "data-dir"): "a guest has no file system",
    ("init-request", "cache-dir"): "a guest has no file system",
    ("init-response", "error"): "the function's `result` carries it",
    ("init-response", "meta"): "flattened: the manifest has the rest of PluginMeta",
    ("http-call", "call-id"): "the host knows which call the guest serves",
    ("span-record", "call-id"): "the host knows which call the guest serves",
}
ONLY_IN_WIT = {
    ("init-response", "capabilities"): "flattened from PluginMeta",
    ("init-response", "subscriptions"): "flattened from PluginMeta",
}
PLUGIN_CALLS = {
    "Init": "init",
    "HandleEvent": "handle-event",
    "Invoke": "invoke",
    "Health": "health",
    "Shutdown": "shutdown",
}
NO_GUEST_CALL = {"Session": "a guest has no stream: it is called directly"}


@dataclass
class Wit:
    """What `plugin.wit` declares."""

    records: dict[str, Fields] = field(default_factory=dict)
    enums: dict[str, list[str]] = field(default_factory=dict)
    functions: dict[str, dict[str, str]] = field(default_factory=dict)


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*", "", text)


def kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower().replace("_", "-")


def split_outside_brackets(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter in "<({") - (letter in ">)}")
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [part.strip() for part in [*parts, current] if part.strip()]


def fields_of(body: str) -> Fields:
    pairs = (part.split(":", 1) for part in split_outside_brackets(body))
    return {name.strip().lstrip("%"): kind.strip() for name, kind in pairs}


def read_wit() -> Wit:
    wit, text = Wit(), without_comments(WIT)
    for name, body in re.findall(r"record ([\w-]+) \{(.*?)\}", text, re.DOTALL):
        wit.records[name] = fields_of(body)
    for name, body in re.findall(r"enum ([\w-]+) \{(.*?)\}", text, re.DOTALL):
        wit.enums[name] = split_outside_brackets(body)
    for name, body in re.findall(r"interface (\w+) \{(.*?)\n\}", text, re.DOTALL):
        wit.functions[name] = dict(re.findall(r"([\w-]+): (func\(.*?\).*?);", body))
    return wit


def read_proto() -> tuple[dict[str, Fields], dict[str, list[str]], dict[str, list[str]]]:
    text = without_comments(PROTO)
    messages: dict[str, Fields] = {}
    for name, body in re.findall(r"message (\w+) \{([^{}]*)\}", text):
        found = re.findall(r"((?:repeated )?(?:map<\w+, \w+>|\w+)) (\w+) = \d+;", body)
        messages[name] = {field_name: kind for kind, field_name in found}
    enums = {
        name: re.findall(r"(\w+) = \d+;", body)
        for name, body in re.findall(r"enum (\w+) \{(.*?)\}", text, re.DOTALL)
    }
    services = {
        name: re.findall(r"rpc (\w+)\(", body)
        for name, body in re.findall(r"service (\w+) \{(.*?)\n\}", text, re.DOTALL)
    }
    return messages, enums, services


WIT_SAYS = read_wit()
MESSAGES, PROTO_ENUMS, SERVICES = read_proto()


def as_wit_type(kind: str) -> str:
    if pair := re.fullmatch(r"map<(\w+), (\w+)>", kind):
        return f"list<tuple<{SCALARS[pair[1]]}, {SCALARS[pair[2]]}>>"
    if kind.startswith("repeated "):
        return f"list<{SCALARS[kind.removeprefix('repeated ')]}>"
    return SCALARS.get(kind, kind)


def test_every_record_has_its_message() -> None:
    assert WIT_SAYS.records.keys() == RECORDS.keys()
    assert set(RECORDS.values()) <= MESSAGES.keys()


@pytest.mark.parametrize("record", RECORDS)
def test_fields_agree(record: str) -> None:
    message = {kebab(name): as_wit_type(kind) for name, kind in MESSAGES[RECORDS[record]].items()}
    fields = WIT_SAYS.records[record]
    for name in message.keys() - fields.keys():
        assert (record, name) in ONLY_IN_PROTO, f"{record} of plugin.wit lacks {name}"
    for name in fields.keys() - message.keys():
        assert (record, name) in ONLY_IN_WIT, f"{RECORDS[record]} of plugin.proto lacks {name}"
    for name in fields.keys() & message.keys():
        assert fields[name] == message[name], f"{record}.{name} differs in type"


def test_meant_differences_still_differ() -> None:
    for record, name in ONLY_IN_PROTO:
        assert name in {kebab(found) for found in MESSAGES[RECORDS[record]]}, (record, name)
        assert name not in WIT_SAYS.records[record], (record, name)
    for record, name in ONLY_IN_WIT:
        assert name in WIT_SAYS.records[record], (record, name)


@pytest.mark.parametrize("name", ENUMS)
def test_enums_agree(name: str) -> None:
    proto, prefix = ENUMS[name]
    cases = [kebab(case.removeprefix(prefix)) for case in PROTO_ENUMS[proto]]
    assert WIT_SAYS.enums[name] == cases


def test_functions_agree() -> None:
    plugin = [PLUGIN_CALLS[rpc] for rpc in SERVICES["Plugin"] if rpc not in NO_GUEST_CALL]
    assert list(WIT_SAYS.functions["plugin"]) == plugin
    assert list(WIT_SAYS.functions["host"]) == [kebab(rpc) for rpc in SERVICES["Host"]]


def test_session_carries_every_host_call() -> None:
    body = re.search(r"message HostCall \{(.*?)\n\}", without_comments(PROTO), re.DOTALL)
    assert body is not None
    carried = re.findall(r"\w+ (\w+) = \d+;", body[1].split("oneof request {")[1])
    assert {kebab(name) for name in carried} == WIT_SAYS.functions["host"].keys()


def resolved(kind: str) -> str:
    """A WIT type with every name replaced by what it stands for."""
    if kind in WIT_SAYS.records:
        fields = WIT_SAYS.records[kind].items()
        return f"record {{ {', '.join(f'{name}: {resolved(inner)}' for name, inner in fields)} }}"
    if kind in WIT_SAYS.enums:
        return f"enum {{ {', '.join(WIT_SAYS.enums[kind])} }}"
    if outer := re.fullmatch(r"(\w+)<(.*)>", kind):
        inner = ", ".join(resolved(part) for part in split_outside_brackets(outer[2]))
        return f"{outer[1]}<{inner}>"
    return kind


def signature(text: str) -> str:
    found = re.fullmatch(r"func\((.*?)\)(?: -> (.*))?", text)
    assert found is not None
    inside = ", ".join(f"{name}: {resolved(kind)}" for name, kind in fields_of(found[1]).items())
    return f"func({inside})" + (f" -> {resolved(found[2])}" if found[2] else "")


@pytest.mark.parametrize(
    ("interface", "table"), [("host", SIGNATURES), ("plugin", EXPORTS)], ids=["host", "plugin"]
)
def test_types_that_the_host_checks_at_load(interface: str, table: dict[str, str]) -> None:
    declared = {name: signature(text) for name, text in WIT_SAYS.functions[interface].items()}
    assert table == declared
