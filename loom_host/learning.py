"""Grants from use: a host that runs with all that its plugins ask for, and what they made of it.

What passes the host's own doors is seen: events, calls, storage, secrets, HTTP. What a plugin does
with folders, variables, devices and labels, which it holds from its start, is not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loom_sdk import Event
from loom_sdk.errors import ConfigError
from loom_sdk.topics import matches

from .allow_lines import allow_lines
from .assembly import chosen, hint_at, manifests_of
from .bus.tap import Tap
from .grants import KINDS, asked_for, grant, narrows
from .handle import PluginHandle
from .manifest import Manifest
from .settings import PluginSettings, Settings
from .sockets import is_socket
from .tables import read_toml

if TYPE_CHECKING:
    from .host import Host

SEEN = ("subscribe", "publish", "provide", "invoke", "network", "secrets", "storage")
"""Kinds whose every use passes the host."""
MOST = 10_000
"""Pairs of topic and type that are kept."""
Values = tuple[str, ...]


def opened(settings: Settings, only: Collection[str] = ()) -> Settings:
    """The same with all allowed that the manifests ask for, and nothing that they do not.

    Args:
        only: names of the plugins that this is for; empty: all that run.

    Raises:
        ConfigError: a name has no table.
    """
    for name in only:
        if name not in settings.plugins:
            raise ConfigError(
                f"--plugin {name}: it has no table; {hint_at(name, settings.plugins)}"
            )
    manifests = manifests_of(settings)
    names = [n for n in chosen(settings, manifests) if not only or n in only]
    wide = {name: _opened(settings.plugins[name], manifests[name]) for name in names}
    return replace(settings, plugins={**settings.plugins, **wide})


def _opened(own: PluginSettings, manifest: Manifest) -> PluginSettings:
    """With what the operator wrote, too: it may name what a `*` that is asked for does not."""
    allow = dict(own.allow)
    for kind, values in asked_for(manifest).items():
        if kind == "filesystem":  # a folder that nobody has named cannot be given
            values = tuple(v for v in values if v.partition(":")[0] in own.folders)
        if both := tuple(dict.fromkeys((*allow.get(kind, ()), *values))):
            allow[kind] = both
    return replace(own, allow=allow)


@dataclass(frozen=True)
class Learned:
    """What one plugin used of what it asks for."""

    plugin: str
    used: Mapping[str, Values]
    """By kind, as narrow as it was seen."""
    kept: Mapping[str, Values]
    """Of the kinds that are not seen: what the operator had allowed."""
    unseen: Mapping[str, Values]
    """Of those kinds: what it asks for, and had in this run."""
    idle: Mapping[str, Values]
    """Asked for and not used, by kind."""
    wide: Mapping[tuple[str, str], Values]
    """(kind, pattern that is asked for) to what it was used for."""
    fresh: tuple[tuple[str, str], ...]
    """Used, and not allowed by the settings as they are."""
    refused: tuple[tuple[str, str], ...]
    """Tried, and not asked for by the manifest: this is still denied."""
    inherited: Values = ()
    """Kinds that a profile allows and that were not used: they have to be written as empty."""

    @property
    def allow(self) -> dict[str, Values]:
        """The least that serves what was seen."""
        both = {**self.used, **self.kept, **dict.fromkeys(self.inherited, ())}
        return {kind: both[kind] for kind in KINDS if kind in both}

    @property
    def lines(self) -> str:
        """The plugin's table of `loom.toml`."""
        return allow_lines(self.plugin, self.allow)


@dataclass
class Learner:
    """Watches one host, from before its start.

    Args:
        settings: as the operator wrote them; the host runs with those `opened`.
    """

    host: Host
    settings: Settings
    only: Collection[str] = ()
    _heard: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._tap = Tap(self.host.bus, [">"], "learn", self._hear)

    def _hear(self, event: Event) -> None:
        if len(self._heard) < MOST:
            self._heard.add((event.topic, event.type))

    def learned(self) -> list[Learned]:
        """By plugin, in the order of the settings. Those that are switched off are left out."""
        return [
            self._of(handle)
            for handle in self.host.plugins.values()
            if handle.settings.enabled and (not self.only or handle.name in self.only)
        ]

    def _of(self, handle: PluginHandle) -> Learned:
        name, manifest = handle.name, handle.manifest
        own, asked = self.settings.plugins[name], asked_for(manifest)
        before = grant(name, manifest, own.allow)
        used = {kind: _sorted(values) for kind, values in self._used(handle).items() if values}
        unseen = {kind: values for kind, values in asked.items() if not _shows(kind, values)}
        kept = {kind: own.allow[kind] for kind in unseen if own.allow.get(kind)}
        return Learned(
            plugin=name,
            used=used,
            kept=kept,
            unseen=unseen,
            idle=_idle(asked, used),
            wide=_wide(asked, used),
            fresh=tuple((k, v) for k, values in used.items() for v in values
                        if not before.permits(k, v)),
            refused=tuple(dict.fromkeys((r.kind, r.value) for r in self.host.audit.refusals
                          if r.plugin == name and r.kind in SEEN)),
            inherited=tuple(kind for kind in self._inherited(name, own)
                            if kind not in used and kind not in kept),
        )  # fmt: skip

    def _used(self, handle: PluginHandle) -> dict[str, set[str]]:
        used: dict[str, set[str]] = {kind: set() for kind in SEEN}
        for plugin, kind, value in self.host.audit.used:
            if plugin == handle.name and kind in used:
                used[kind].add(self.host.audit.redact(value))
        calls = self.host.telemetry.meter.counter("action_invocations_total").values
        for capability, provider in calls:
            if provider == handle.name:
                used["provide"].add(capability.partition("@")[0])
        for spec in handle.manifest.subscribes:
            used["subscribe"] |= {
                topic
                for topic, type in self._heard
                if matches(spec.topic, topic) and (not spec.types or type in spec.types)
            }
        return used

    def _inherited(self, name: str, own: PluginSettings) -> Iterable[str]:
        """Kinds that are allowed elsewhere than in the file itself."""
        written = _written(self.settings.path, name)
        return [kind for kind, values in own.allow.items() if values and kind not in written]


def _shows(kind: str, values: Values) -> bool:
    """Whether the host sees its use; sockets of a plugin's own are a part of the network."""
    return kind in SEEN and not (kind == "network" and all(is_socket(v) for v in values))


def _idle(asked: Mapping[str, Values], used: Mapping[str, Values]) -> dict[str, Values]:
    found = {
        kind: tuple(
            ask
            for ask in values
            if not (kind == "network" and is_socket(ask))
            and not any(narrows(kind, value, ask) for value in used.get(kind, ()))
        )
        for kind, values in asked.items()
        if kind in SEEN
    }
    return {kind: values for kind, values in found.items() if values}


def _wide(asked: Mapping[str, Values], used: Mapping[str, Values]) -> dict[tuple[str, str], Values]:
    """What patterns with a wildcard were used for."""
    found = {
        (kind, ask): tuple(value for value in values if narrows(kind, value, ask))
        for kind, values in used.items()
        for ask in asked.get(kind, ())
        if "*" in ask or ">" in ask
    }
    return {key: values for key, values in found.items() if values}


def _sorted(values: Iterable[str]) -> Values:
    """Of requests by method, those to one place in one rule: `GET,POST https://host`."""
    methods: dict[str, set[str]] = {}
    others = []
    for value in values:
        method, _, place = value.partition(" ")
        if place and re.fullmatch("[A-Z]+", method):
            methods.setdefault(place, set()).add(method)
        else:
            others.append(value)
    rules = [f"{','.join(sorted(verbs))} {place}" for place, verbs in methods.items()]
    return tuple(sorted(others) + sorted(rules, key=lambda rule: rule.partition(" ")[2]))


def _written(path: Path | None, name: str) -> Collection[str]:
    """Kinds that the file itself allows this plugin."""
    if path is None:
        return ()
    table = read_toml(path).get("plugins", {}).get(name, {})
    allow = table.get("allow", {})
    return allow.keys() if isinstance(allow, Mapping) else ()
