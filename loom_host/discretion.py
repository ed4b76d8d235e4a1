"""At which level of privacy one plugin asks something of the host, and what it may ask then."""

from __future__ import annotations

from collections.abc import Mapping

from loom_sdk.errors import PermissionDenied

from .broker import Broker
from .handle import InFlight, PluginHandle
from .privacy import (
    ASKED,
    DEFAULT,
    KEY,
    NAMES,
    PUBLIC,
    is_marked,
    labelled,
    may_send,
    parse,
)
from .runtimes.base import serving
from .storage import PluginStore


class Discretion:
    """Of one plugin. What it says of the level of its calls and events can only raise it."""

    def __init__(self, handle: PluginHandle, broker: Broker) -> None:
        self._handle, self._broker = handle, broker

    def _flight(self, call_id: str) -> InFlight | None:
        """The call that it asks for, where it names it or runs in it."""
        return self._handle.inflight.get(call_id or serving.get())

    def level(self, call_id: str = "") -> int:
        """The level of what it asks of the host now."""
        flight = self._flight(call_id)
        return self._handle.labels.asks_at(None if flight is None else flight.level)

    def metadata_of(
        self, metadata: Mapping[str, str], topic: str, call_id: str
    ) -> Mapping[str, str]:
        """With the label of an event of it. Raises InvalidArguments for one that nobody knows."""
        level = self.level(call_id)
        if is_marked(metadata):
            where = f"{self._handle.name}, an event on {topic}"
            said = (metadata[key] for key in (KEY, ASKED) if key in metadata)
            level = max(level, *(parse(text, where) for text in said))
        elif level == DEFAULT:
            return metadata
        return labelled(metadata, level)

    # -- storage

    def read(self, keys: PluginStore, key: str) -> bytes | None:
        """A value; what it was given with it is of the value's level. Raises PermissionDenied."""
        label, flight = keys.label(key), self._flight("")
        if flight is None or flight.level < label:
            self._come_upon(label)
        return keys.get(key)

    def listed(self, keys: PluginStore, prefix: str) -> list[str]:
        """Its keys, without those whose label it may not read."""
        found = keys.keys(prefix)
        if not keys.labels_any:
            return found
        asked, seen = self.level(), PUBLIC
        readable = []
        for key in found:
            label = keys.label(key)
            if label <= asked or self._handle.labels.may_read(label, self._handle.instance):
                readable.append(key)
                seen = max(seen, label)
        self._come_upon(seen)
        return readable

    def _come_upon(self, label: int) -> None:
        if label > max(DEFAULT, self.level()):
            self._handle.labels.check_read(label, self._handle.instance)
        self.rise(label)

    def rise(self, level: int, call_id: str = "") -> None:
        """What it serves now is at least of this level; where it does not tell what, all is."""
        handle, flight = self._handle, self._flight(call_id)
        for served in (flight,) if flight is not None else tuple(handle.inflight.values()):
            served.rise(level)
        handle.labels.enter(level)

    # -- ways out

    def check_send(self, url: str) -> None:
        """Raises PermissionDenied where nothing may leave the machine now. Either way: audited."""
        handle, flight, level = self._handle, self._flight(""), self.level()
        labels, name, agent = handle.labels, NAMES[level], flight.agent if flight else ""
        if may_send(level, labels.listed(self._broker.policy_of(agent).private_tools)):
            labels.count(level, "http-request", handle.instance)
            return
        line = labels.remedy(level, agent)
        if labels.audit is not None:
            labels.audit.note(handle.name, "privacy", name, line)
        raise PermissionDenied(
            f"{handle.name} may not reach {url}: what it does now is {name}; {line}",
            plugin_id=handle.spec.id,
            permission=f"privacy:{name}",
        )
