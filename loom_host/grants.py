"""Grants: what a plugin asks for *and* the operator allows; and the audit of every refusal.

A permission is written `kind:value`, such as `publish:notes` or `network:https://api.example`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from loom_sdk.errors import PermissionDenied
from loom_sdk.topics import covers, matches

from . import folders, sockets
from .allow_lines import allow_lines
from .manifest import Manifest

KINDS = (
    "subscribe", "publish", "provide", "invoke", "network", "filesystem", "env", "secrets",
    "devices", "storage", "labels",
)  # fmt: skip
log = logging.getLogger("loom.audit")

Allow = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Grants:
    """The permissions that one plugin really has."""

    plugin: str
    allowed: Allow = field(default_factory=dict)
    asked: Allow = field(default_factory=dict)
    """What the manifest asks for."""
    written: Allow = field(default_factory=dict)
    """What the operator wrote, as it was merged."""

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
        "labels": wants.labels,
    }
    return {kind: values for kind, values in asked.items() if values}


def grant(name: str, manifest: Manifest, allow: Allow) -> Grants:
    """What is asked for and allowed. A wider ask is narrowed to what the operator wrote."""
    granted: dict[str, tuple[str, ...]] = {}
    asked = asked_for(manifest)
    for kind, wanted in asked.items():
        if both := _both(kind, wanted, allow.get(kind, ())):
            granted[kind] = both
    return Grants(name, granted, asked, allow)


def _both(kind: str, wanted: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, ...]:
    both = [ask for ask in wanted if any(_fits(kind, p, ask) for p in patterns)]
    both += [p for p in patterns if p not in both and any(narrows(kind, p, a) for a in wanted)]
    return tuple(both)


def missing(manifest: Manifest, grants: Grants) -> list[tuple[str, str]]:
    """What was asked for but not granted, as (kind, value). Of a pattern a part is enough."""
    return [
        (kind, value)
        for kind, values in asked_for(manifest).items()
        for value in values
        if not any(
            _fits(kind, granted, value) or narrows(kind, granted, value)
            for granted in grants.allowed.get(kind, ())
        )
    ]


def _network_covers(wide: str, narrow: str, inward: bool = False) -> bool:
    from .network import covers  # many hosts grant no network

    return covers(wide, narrow, inward=inward)


def line_to_allow(grants: Grants, kind: str, value: str) -> str:
    """The lines of `loom.toml` that would allow it: the plugin's table with the whole of `allow`.

    All of it, because lists replace those of the profile and a table is defined only once. A
    comment follows where the manifest does not ask for it.
    """
    old = grants.written.get(kind, ())
    lists = {**grants.written, kind: old if value in old else (*old, value)}
    line = allow_lines(grants.plugin, lists)
    would = _both(kind, grants.asked.get(kind, ()), lists[kind])
    if any(_fits(kind, pattern, value) for pattern in would):
        return line
    ask = _ASK.get(kind, f"[permissions] {kind}")
    return f"{line}\n# and {grants.plugin}'s plugin.toml must ask for it, under {ask}"


_ASK = {
    "subscribe": "[[events.subscribes]] topic",
    "publish": "[events] publishes",
    "provide": "[[capability]] name",
}


def _fits(kind: str, pattern: str, value: str) -> bool:
    if kind in ("subscribe", "publish"):
        return covers(pattern, value) if "*" in value or ">" in value else matches(pattern, value)
    if kind == "network" and sockets.is_socket(value):
        return sockets.covers(pattern, value)
    if kind == "network":
        return _network_covers(pattern, value)
    if kind == "filesystem":
        return folders.covers(pattern, value)
    return value == pattern or fnmatchcase(value, pattern)


def narrows(kind: str, allowed: str, ask: str) -> bool:
    """Whether what the operator wrote is a part of what was asked for."""
    if kind == "network" and not sockets.is_socket(allowed):
        return _network_covers(ask, allowed, inward=True)
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
    """What `loom.toml` should say, see `line_to_allow`."""


class Audit:
    """Counts what was allowed, keeps the last refusals."""

    def __init__(self, keep: int = 200) -> None:
        self.refusals: deque[Refusal] = deque(maxlen=keep)
        self.denied: dict[str, int] = {}
        self.used: dict[tuple[str, str, str], int] = {}
        self._logged: set[tuple[str, str, str]] = set()
        self.redact: Callable[[str], str] = str
        """Takes known secrets out of what is kept and told."""

    def check(self, grants: Grants, kind: str, value: str) -> None:
        """Raises PermissionDenied, naming the line to add, unless it is granted."""
        if grants.permits(kind, value):
            self.count(grants.plugin, kind, value)
            return
        self.refuse(grants, kind, value)

    def count(self, plugin: str, kind: str, value: str) -> None:
        """One use more of what is allowed."""
        key = (plugin, kind, value)
        known = self.used.get(key)
        if known is not None or len(self.used) < 10_000:
            self.used[key] = (known or 0) + 1

    def refuse(
        self, grants: Grants, kind: str, value: str, rule: str = "", level: int = logging.WARNING
    ) -> None:
        """Keep it, log it at `level` the first time, raise PermissionDenied.

        Args:
            rule: what would allow it, where that is not `value`.
        """
        plugin, value = grants.plugin, self.redact(value)
        line = line_to_allow(grants, kind, self.redact(rule) or value)
        self.note(plugin, kind, value, line, level)
        raise PermissionDenied(
            f"{plugin} may not {_VERBS[kind]} {value!r}; to allow it add to loom.toml, in place of "
            f"the allow that is there:\n{line}",
            plugin_id=plugin,
            permission=f"{kind}:{value}",
        )

    def note(
        self, plugin: str, kind: str, value: str, line: str, level: int = logging.WARNING
    ) -> None:
        """Keep a refusal, log it at `level` the first time."""
        self._log(level, plugin, kind, value)
        self.refusals.append(Refusal(time.time(), plugin, kind, value, line))
        self.denied[plugin] = self.denied.get(plugin, 0) + 1

    def note_missing(self, manifest: Manifest, grants: Grants) -> None:
        """What was asked for and is silently not had, so that `why-denied` can tell."""
        for kind, value in missing(manifest, grants):
            if kind in ("subscribe", "provide", "devices", "filesystem", "env"):
                with contextlib.suppress(PermissionDenied):
                    self.refuse(grants, kind, value, level=logging.INFO)

    def _log(self, level: int, plugin: str, kind: str, value: str) -> None:
        key = (plugin, kind, value)
        if key not in self._logged and len(self._logged) < 1_000:
            self._logged.add(key)
            log.log(level, "%s may not %s %r; see loom why-denied", plugin, _VERBS[kind], value)


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
    "labels": "read what is labelled",
    "privacy": "be given what is",
}


def reach(
    manifest: Manifest, grants: Grants, tier: str = "", through: Iterable[Grants] = ()
) -> list[str]:
    """What the plugin can do, in words: `can hear: microphone`.

    Args:
        tier: where it really runs.
        through: the grants of all plugins that it can invoke, also by way of others.
    """
    words = [text for text, topics in _HEARD if any(grants.permits("subscribe", t) for t in topics)]
    for kind, text in _REACH:
        values = grants.allowed.get(kind, ())
        if values:
            words.append(f"{text}: {_listed(kind, values)}")
    for other in through:
        if servers := other.allowed.get("network", ()):
            words.append(f"can send to: {_listed('network', servers)}, through {other.plugin}")
    if isolation := _OPEN_TIERS.get(tier or manifest.tier):
        words.append(isolation)
    return words or ["nothing"]


def _listed(kind: str, values: tuple[str, ...]) -> str:
    text = ", ".join(values)
    return text.replace("https://", "") if kind == "network" else text


_HEARD = (
    ("can hear: microphone", ("audio.mic", "audio.gated", "utterance")),
    ("can read: what was said", ("transcript", "query")),
    ("can read: events that were not delivered", ("loom.dead_letter",)),
)
_OPEN_TIERS = {
    "native": "runs in the host: nothing is isolated",
    "remote": "runs at its address: nothing that it does there is isolated by this host",
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
    ("labels", "can read what is labelled"),
)
