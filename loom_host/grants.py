"""Grants: what a plugin asks for *and* the operator allows; and the audit of every refusal.

A permission is written `kind:value`, such as `publish:notes` or `network:https://api.example`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from loom_sdk.errors import PermissionDenied
from loom_sdk.topics import covers, matches

from . import folders, network, sockets
from .manifest import Manifest

KINDS = (
    "subscribe", "publish", "provide", "invoke", "network", "filesystem", "env", "secrets",
    "devices", "storage",
)  # fmt: skip
SENSITIVE_TOPICS = (">", "audio.>", "utterance", "transcript", "query", "loom.dead_letter")
"""Hearing these is hearing the room; `loom check` marks them."""

Allow = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Grants:
    """The permissions that one plugin really has."""

    plugin: str
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def permits(self, kind: str, value: str) -> bool:
        return any(_fits(kind, pattern, value) for pattern in self.allowed.get(kind, ()))

    def texts(self) -> tuple[str, ...]:
        return tuple(f"{kind}:{v}" for kind, values in self.allowed.items() for v in values)


def asked_for(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Every permission that the manifest asks for, by kind."""
    wants = manifest.permissions
    types = ("*",) if manifest.offers_by_types else ()
    asked = {
        "subscribe": tuple(item.topic for item in manifest.subscribes),
        "publish": manifest.publishes,
        "provide": tuple(item.name for item in manifest.capabilities) or types,
        "invoke": wants.invoke,
        "network": wants.network,
        "filesystem": wants.filesystem,
        "env": wants.env,
        "secrets": wants.secrets,
        "devices": wants.devices,
        "storage": ("own",) if wants.storage else (),
    }
    return {kind: values for kind, values in asked.items() if values}


def grant(name: str, manifest: Manifest, allow: Allow) -> Grants:
    """What is asked for and allowed. A wider ask is narrowed to what the operator wrote."""
    granted: dict[str, tuple[str, ...]] = {}
    for kind, wanted in asked_for(manifest).items():
        patterns = allow.get(kind, ())
        both = [ask for ask in wanted if any(_fits(kind, p, ask) for p in patterns)]
        both += [p for p in patterns if p not in both and any(_narrows(kind, p, a) for a in wanted)]
        if both:
            granted[kind] = tuple(both)
    return Grants(name, granted)


def missing(manifest: Manifest, grants: Grants) -> list[tuple[str, str]]:
    """What was asked for but not granted, as (kind, value). Of a pattern a part is enough."""
    return [
        (kind, value)
        for kind, values in asked_for(manifest).items()
        for value in values
        if not any(
            _fits(kind, granted, value) or _narrows(kind, granted, value)
            for granted in grants.allowed.get(kind, ())
        )
    ]


def line_to_allow(plugin: str, kind: str, value: str) -> str:
    """The line of `loom.toml` that would allow it."""
    return f'[plugins.{plugin}.allow] {kind} = ["{value}"]'


def _fits(kind: str, pattern: str, value: str) -> bool:
    if kind in ("subscribe", "publish"):
        return covers(pattern, value) if "*" in value or ">" in value else matches(pattern, value)
    if kind == "network" and sockets.is_socket(value):
        return sockets.covers(pattern, value)
    if kind == "network":
        return network.covers(pattern, value)
    if kind == "filesystem":
        return folders.covers(pattern, value)
    return value == pattern or fnmatchcase(value, pattern)


def _narrows(kind: str, allowed: str, ask: str) -> bool:
    """Whether what the operator wrote is a part of what was asked for."""
    if kind == "network" and not sockets.is_socket(allowed):
        return network.covers(ask, allowed, inward=True)
    return _fits(kind, ask, allowed)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One entry of the audit log."""

    time: float
    """Unix time in seconds."""
    plugin: str
    kind: str
    value: str
    line: str
    """What to add to `loom.toml`."""


class Audit:
    """Counts what was allowed, keeps the last refusals."""

    def __init__(self, keep: int = 200) -> None:
        self.refusals: deque[Refusal] = deque(maxlen=keep)
        self.denied: dict[str, int] = {}
        self.used: dict[tuple[str, str, str], int] = {}
        self.redact: Callable[[str], str] = str
        """Takes known secrets out of what is kept and told."""

    def check(self, grants: Grants, kind: str, value: str) -> None:
        """Raises PermissionDenied, naming the line to add, unless it is granted."""
        if grants.permits(kind, value):
            key = (grants.plugin, kind, value)
            if key in self.used or len(self.used) < 10_000:
                self.used[key] = self.used.get(key, 0) + 1
            return
        self.refuse(grants.plugin, kind, value)

    def refuse(self, plugin: str, kind: str, value: str) -> None:
        value = self.redact(value)
        line = line_to_allow(plugin, kind, value)
        self.refusals.append(Refusal(time.time(), plugin, kind, value, line))
        self.denied[plugin] = self.denied.get(plugin, 0) + 1
        raise PermissionDenied(
            f"{plugin} may not {_VERBS[kind]} {value!r}; to allow it add to loom.toml: {line}",
            plugin_id=plugin,
            permission=f"{kind}:{value}",
        )


_VERBS = {
    "subscribe": "subscribe to",
    "publish": "publish to",
    "provide": "provide",
    "invoke": "invoke",
    "network": "reach",
    "filesystem": "use the folder",
    "env": "read the environment variable",
    "secrets": "read the secret",
    "devices": "use the device",
    "storage": "use storage",
}


def reach(manifest: Manifest, grants: Grants, tier: str = "") -> list[str]:
    """What the plugin can do, in words: `can hear: microphone`. `tier`: where it really runs."""
    words = []
    if any(grants.permits("subscribe", t) for t in ("audio.mic", "audio.gated", "utterance")):
        words.append("can hear: microphone")
    if any(grants.permits("subscribe", t) for t in ("transcript", "query")):
        words.append("can read: what was said")
    for kind, text in _REACH:
        values = grants.allowed.get(kind, ())
        if values:
            words.append(f"{text}: {', '.join(values)}")
    if isolation := _OPEN_TIERS.get(tier or manifest.tier):
        words.append(isolation)
    return words or ["nothing"]


_OPEN_TIERS = {
    "native": "runs in the host: nothing is isolated",
    "open": "runs as the host's user: network and files are not isolated",
}
_REACH: Iterable[tuple[str, str]] = (
    ("network", "can send to"),
    ("devices", "can use"),
    ("filesystem", "can use the folders"),
    ("secrets", "can read the secrets"),
    ("env", "can read the environment"),
    ("invoke", "can invoke"),
    ("publish", "can publish"),
    ("storage", "can keep data in storage"),
)
