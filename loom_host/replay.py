"""A recorded session put through plugins again, and what they then publish compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from loom_sdk import Event
from loom_sdk.errors import ConfigError
from loom_sdk.topics import matches

from .bus.tap import Tap
from .host import Host
from .lineup import only
from .settings import EventLogSettings, Settings
from .storage import MemoryStore
from .storage.record import Record

OWN_TOPICS = "loom."
"""The host's own notices: every host makes its own."""
LOOK_S = 0.005
COMPARED = ("type", "metadata", "payload", "confidence", "tags", "priority")
"""Fields of an event that a replay must give again; ids and times are new each time."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One event that did not come as it was recorded."""

    kind: str
    """`missing` (it did not come again), `extra` (it was not recorded) or `changed`."""
    topic: str
    number: int
    """Of the event among those of its topic, from 1; of an extra one, where it came."""
    recorded: Event | None = None
    replayed: Event | None = None
    fields: tuple[str, ...] = ()
    """Of a changed one."""


@dataclass(slots=True)
class Outcome:
    """What came of a replay."""

    through: tuple[str, ...]
    given: int = 0
    """Events that were put in."""
    compared: int = 0
    """Recorded events of the plugins."""
    differences: list[Difference] = field(default_factory=list)


def replay_settings(settings: Settings, through: Collection[str], folder: Path) -> Settings:
    """Those of a host with only these plugins, which keeps nothing beside `folder`.

    Raises:
        ConfigError: no plugin is called so.
    """
    settings = only(settings, through) if through else settings
    return replace(
        settings,
        host=replace(settings.host, data_dir=folder, control=False),
        event_log=EventLogSettings(),
    )


async def replay(
    settings: Settings,
    record: Record,
    through: Collection[str] = (),
    *,
    helpers: Collection[str] = (),
    fast: bool = False,
    settle_s: float = 0.5,
    ignore: Collection[str] = (),
) -> Outcome:
    """Put the events of a record that are not the plugins' own through them, and compare.

    Args:
        settings: from `replay_settings`.
        through: plugins whose events are compared; none: all of the settings.
        helpers: plugins that run beside them, for what they invoke.
        fast: give the next event as soon as the plugins are idle, not after the recorded time.
        settle_s: so long nothing must happen before it is over.
        ignore: keys of metadata that are not compared.

    Raises:
        ConfigError: a plugin is unknown or did not start.
    """
    came: list[Event] = []
    async with Host(settings, store=MemoryStore()) as host:
        await host.settled()
        names = tuple(through) or tuple(n for n in host.plugins if n not in helpers)
        _check_running(host, names)
        tap = Tap(
            host.bus, [">"], "replay", lambda e: came.append(e) if e.source in names else None
        )
        given = await _give(host, record, names, fast)
        await _quiet(host, came, settle_s)
        tap.close()
    wanted = [r.event for r in record.events if r.event.source in names]
    came = [event for event in came if any(matches(p, event.topic) for p in record.topics)]
    found = differences(wanted, came, ignore)
    return Outcome(names, given, len(wanted), found)


def _check_running(host: Host, names: Iterable[str]) -> None:
    for name in names:
        handle = host.plugins.get(name)
        if handle is None or handle.state in ("failed", "stopped"):
            why = "it has no table in the settings" if handle is None else handle.explain()
            raise ConfigError(f"cannot replay through {name}: {why}")


async def _give(host: Host, record: Record, names: Collection[str], fast: bool) -> int:
    """Publish the record's events with their own ids and times; the number of them."""
    began, given = time.monotonic(), 0
    for entry in record.events:
        event = entry.event
        if event.source in names or event.topic.startswith(OWN_TOPICS):
            continue
        if fast:
            await _idle(host)
        else:
            await asyncio.sleep(began + entry.after_ms / 1000 - time.monotonic())
        await host.bus.publish(event.topic, replace(event, traceparent="", delivery_attempt=1))
        given += 1
    return given


async def _idle(host: Host) -> None:
    await asyncio.sleep(0)
    while host.busy():  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(LOOK_S)


async def _quiet(host: Host, came: list[Event], settle_s: float) -> None:
    """Return when nothing was at work and nothing came for so long."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < settle_s:
        if host.busy() or len(came) != seen:
            seen, since = len(came), time.monotonic()
        await asyncio.sleep(LOOK_S)


def differences(
    wanted: Sequence[Event], came: Sequence[Event], ignore: Collection[str] = ()
) -> list[Difference]:
    """What differs, topic by topic in the order of the record: between topics none is promised."""
    topics = dict.fromkeys(event.topic for event in (*wanted, *came))
    found: list[Difference] = []
    for topic in topics:
        old = [event for event in wanted if event.topic == topic]
        new = [event for event in came if event.topic == topic]
        found += _in_topic(topic, old, new, ignore)
    return found


def _in_topic(
    topic: str, old: list[Event], new: list[Event], ignore: Collection[str]
) -> list[Difference]:
    a, b = ([repr(_compared(event, ignore)) for event in events] for events in (old, new))
    found: list[Difference] = []
    for what, i, i_end, j, j_end in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        both = min(i_end - i, j_end - j)
        found += [
            Difference("changed", topic, i + n + 1, old[i + n], new[j + n],
                       _changed(old[i + n], new[j + n], ignore))
            for n in range(both)
        ]  # fmt: skip
        found += [Difference("missing", topic, n + 1, old[n]) for n in range(i + both, i_end)]
        found += [
            Difference("extra", topic, n + 1, replayed=new[n]) for n in range(j + both, j_end)
        ]
    return found


def _compared(event: Event, ignore: Collection[str]) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in COMPARED}
    metadata = sorted((k, v) for k, v in event.metadata.items() if k not in ignore)
    return values | {"metadata": metadata}


def _changed(old: Event, new: Event, ignore: Collection[str]) -> tuple[str, ...]:
    a, b = _compared(old, ignore), _compared(new, ignore)
    return tuple(name for name in COMPARED if a[name] != b[name])
