"""The frozen settings: one class for each table of `loom.toml`, with its keys and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import privacy

SANDBOXES = ("strict", "standard", "none")
MARSHALS = ("direct", "stock")
APPROVALS = ("allow", "ask", "deny")
"""The stricter the later."""
PRIVACY = privacy.NAMES


@dataclass(frozen=True, slots=True)
class HostSettings:
    """[host]"""

    data_dir: Path = Path()
    """Kept across starts: storage, plugins' own folders. Default $XDG_DATA_HOME/loom."""
    cache_dir: Path = Path()
    """Compiled components. Default $XDG_CACHE_HOME/loom."""
    runtime_dir: Path = Path()
    """Sockets. Default $XDG_RUNTIME_DIR/loom, else a private folder below the temporary one."""
    plugin_paths: tuple[str, ...] = ()
    """Folders with plugins beside the first-party ones; relative to the file."""
    control: bool = True
    """Whether the command line can talk to the running host."""
    publish_wait_ms: int = 250
    """Longest wait of a publisher for a full Batched or Background queue."""
    stop_grace_ms: int = 3000
    """Time a plugin gets to stop before it is killed."""
    require_enforced: bool = False
    """Refuse to start where a quota cannot be enforced."""
    marshal: str = "direct"
    """How values enter and leave wasm plugins: `direct`, or wasmtime's own `stock` conversions."""


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """[telemetry]"""

    sample_ratio: float = 1.0
    """Share of traces that are recorded, 0 to 1."""
    log_level: str = "warning"
    log_format: str = "text"
    """`text` or `json`."""
    http_port: int = 0
    """Loopback port of /metrics and /healthz; 0: none."""


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """[plugins.NAME]"""

    enabled: bool = True
    reason: str = ""
    """Why it is not enabled: told to who calls what it provides."""
    path: str = ""
    """A `.wasm` component without a manifest, relative to the file: its types tell what it is."""
    tier: str = ""
    """Overrides the manifest's default, among the tiers it claims."""
    trusted: bool = False
    """Needed for code in the host that is not first-party, together with `code`."""
    code: str = ""
    """`sha256:...` of the plugin's folder; `loom check` prints it."""
    start: str = "eager"
    """`eager`: the host waits for it; `background`: calls wait for it instead."""
    isolation: str = ""
    """Where a wasm plugin runs: `thread` of the host or a locked-down `process`. Default: `thread`
    where it is first-party, else `process`."""
    marshal: str = ""
    """Of a wasm plugin: `direct` or `stock`. Default: as in [host]."""
    idle_s: float = 60.0
    """Seconds without a call after which a wasm plugin's process ends; 0: never."""
    sandbox: str = ""
    """Of a grpc plugin: `strict`, `standard` or `none`. Default: `standard` where it is
    first-party, else `strict`."""
    mcp: tuple[str, ...] = ()
    """An MCP server that is this plugin: its command, or its address for streamable HTTP."""
    address: str = ""
    """Of a grpc plugin that runs already, maybe on another machine: `dns:///NAME:PORT`,
    `NAME:PORT`, `ipv4:ADDRESS:PORT,...` or `ipv6:[ADDRESS]:PORT,...`."""
    tls: Mapping[str, str] = field(default_factory=dict)
    """Beside `address`: the files `ca`, `cert` and `key`, relative to the file, and the `name` that
    the plugin's certificate bears where it is another than that of the address."""
    insecure: bool = False
    """Beside an `address` on this machine: plaintext, without `tls`."""
    keepalive_s: float = 10.0
    """Beside `address`: seconds without an answer after which a replica is lost."""
    restarts: int = 5
    """How often within a minute it is started again; the next end leaves it `failed`."""
    privacy: str = ""
    """The least level of all that it does and makes, such as `local-only` for a microphone."""
    role: str = ""
    """With a role, it only runs where `[roles]` names it."""
    quality: float = 0.7
    """The operator's confidence in its answers, 0 to 1, for the router."""
    cost: float = 0.0
    """Estimated cost of a call, in the unit of `routing.cost_cap`."""
    allow: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    """Where each folder that `allow.filesystem` names is, relative to the file."""
    config: Mapping[str, Any] = field(default_factory=dict)
    quotas: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """[agents.NAME.parameters] routing.*"""

    privacy: str = "sensitive"
    latency_budget_ms: float = 200.0
    cost_cap: float = 0.01
    quality_threshold: float = 0.85
    private_tools: tuple[str, ...] = ()
    """Plugins that private turns may use although they have a way out of the machine."""


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """[routing]: see docs/ROUTING.md"""

    failures: int = 3
    """Errors in a row, on calls that another provider then answered, after which a provider is
    avoided; one that crashed or stalled is at once."""
    open_s: float = 5.0
    """So long a failed provider is avoided until a call probes it; twice as long after each probe
    that failed."""
    open_max_s: float = 60.0
    first_item_ms: float = 10_000.0
    """Longest wait for a stream's first item while another provider could be tried; 0: none."""
    half_life_s: float = 60.0
    """After this a measured latency or error counts half."""


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """[agents.NAME.parameters] tools.*"""

    approval: Mapping[str, str] = field(default_factory=dict)
    """Tool, or pattern of tools, to `allow`, `ask` or `deny`; where none fits, tools with effects
    `once` ask and all others are allowed."""
    approval_timeout_s: float = 30.0
    """So long a call waits to be allowed."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """[agents.NAME]"""

    plugin: str = ""
    policy: Policy = field(default_factory=Policy)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What differs for it from the settings of the plugin."""
    durable: bool = False
    """Its events are in its log before publish returns, until they are handled."""
    mailbox: int = 0
    """Events that may wait for it; 0: as many as for a subscription of the same quality."""
    subscribe: tuple[str, ...] = ()
    """Of the topics that the plugin may hear those that it hears; empty: all."""
    tools: ToolPolicy = field(default_factory=ToolPolicy)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """[clients.NAME]: a program outside of the host, such as an MCP client"""

    invoke: tuple[str, ...] = ()
    """`allow.invoke`: patterns of the tools that it is shown and may call."""
    agent: str = ""
    """Whose `[agents.NAME.parameters]` hold for its calls: routing and approvals. Default: its own
    name."""
    elicit: bool = False
    """Whether it may ask its own user, by MCP's elicitation, for what needs an approval."""
    quotas: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """[secrets.NAME]: exactly one of the three."""

    env: str = ""
    file: str = ""
    """A file that only its owner may read (0600)."""
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """[storage]"""

    fsync: bool = False
    """Acknowledge what is stored only when the disk has it: it then survives a loss of power, not
    only the end of the process."""


@dataclass(frozen=True, slots=True)
class EventLogSettings:
    """[event_log]"""

    topics: tuple[str, ...] = ()
    """Patterns of the topics that are logged."""
    max_age_days: float = 7.0
    """Older events are deleted; 0: never."""
    max_bytes: int = 1024**3
    """Above it the oldest events are deleted; 0: no limit."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole of `loom.toml`."""

    host: HostSettings = field(default_factory=HostSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    plugins: Mapping[str, PluginSettings] = field(default_factory=dict)
    providers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Capability to plugin names, in order of preference."""
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Role (`vad`, `wake`) to the plugins that fill it; others with that role stay off."""
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    agents: Mapping[str, AgentSettings] = field(default_factory=dict)
    clients: Mapping[str, ClientSettings] = field(default_factory=dict)
    secrets: Mapping[str, SecretSettings] = field(default_factory=dict)
    storage: StorageSettings = field(default_factory=StorageSettings)
    event_log: EventLogSettings = field(default_factory=EventLogSettings)
    path: Path | None = None
    """The file that was read."""

    @property
    def lock_file(self) -> Path:
        """Where installed packages are listed; there may be none."""
        return (self.path.parent if self.path else self.host.data_dir) / "loom.lock"
