"""The frozen settings: one class for each table of `loom.toml`, with its keys and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SANDBOXES = ("strict", "standard", "none")
MARSHALS = ("direct", "stock")
PRIVACY = ("public", "sensitive", "private", "local-only")


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


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """[agents.NAME]"""

    plugin: str = ""
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """[secrets.NAME]: exactly one of the three."""

    env: str = ""
    file: str = ""
    """A file that only its owner may read (0600)."""
    command: tuple[str, ...] = ()


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
    agents: Mapping[str, AgentSettings] = field(default_factory=dict)
    secrets: Mapping[str, SecretSettings] = field(default_factory=dict)
    path: Path | None = None
    """The file that was read."""
