"""`clock.now`, and timers that outlive the plugin: kept in its storage, due by the wall clock."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from typing import Any, TypedDict

from clock_places import zone, zone_of
from clock_words import duration, moment

from loom_sdk import AsyncContext, Plugin, tool
from loom_sdk.errors import ActionFailed

TOPIC = "clock"
DONE = "timer.done"
PREFIX = "timer/"
LAST = "last"


class Timer(TypedDict):
    """As it is kept: everything that is needed to ring after a restart."""

    id: int
    name: str
    seconds: float
    due: float
    """Unix time in seconds."""


class Clock(Plugin):
    """Needs `storage = true`; publishes `timer.done` on the topic `clock`."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: dict[int, Timer] = {}
        self._waiting: dict[int, asyncio.Task[None]] = {}

    async def start(self, ctx: AsyncContext) -> None:
        """Timers go on from where they were; one that ended meanwhile rings at once.

        Raises:
            ActionFailed: BAD_TIMEZONE, the configured zone is not known.
        """
        if (name := self.config["timezone"]) and zone(name) is None:
            raise ActionFailed(
                f"there is no time zone {name!r}: set `timezone` of the clock to an IANA name "
                "such as Europe/Berlin",
                code="BAD_TIMEZONE",
            )
        for key in await ctx.kv_keys(PREFIX):
            if value := await ctx.kv_get(key):
                self._run(ctx, json.loads(value))

    async def stop(self, ctx: AsyncContext) -> None:
        for task in self._waiting.values():
            task.cancel()
        await asyncio.gather(*self._waiting.values(), return_exceptions=True)

    @tool("clock.now", effects="none")
    async def now(self, ctx: AsyncContext, place: str = "") -> dict[str, Any]:
        """The time and the date, here or in a place.

        Args:
            place: city, country or time zone; home where absent

        Raises:
            ActionFailed: UNKNOWN_PLACE.
        """
        place = place.strip()
        key = zone_of(place) if place else self.config["timezone"]
        if place and not key:
            raise ActionFailed(
                f"the time zone of {place!r} is not known: name a larger city nearby, the "
                "country, or a zone such as Europe/Berlin",
                code="UNKNOWN_PLACE",
            )
        when = datetime.now(zone(key)) if key else datetime.now().astimezone()
        said = place if any(c.isupper() for c in place) else place.title()
        return {
            "iso": when.isoformat(timespec="seconds"),
            "timezone": key or str(when.tzinfo),
            "speech": moment(when, self.config["hours"], said),
        }

    @tool("clock.timer", effects="once")
    async def timer(self, ctx: AsyncContext, seconds: float, name: str = "") -> dict[str, Any]:
        """Start a timer that rings after some time: `timer.done` on the topic `clock`.

        Args:
            seconds: how long, from 1 second to a week
            name: what it is for

        Raises:
            ActionFailed: TOO_MANY_TIMERS.
        """
        if len(self._timers) >= self.config["max_timers"]:
            raise ActionFailed(
                f"{len(self._timers)} timers are running already: cancel one first",
                code="TOO_MANY_TIMERS",
            )
        number = int(await ctx.kv_get(LAST) or b"0") + 1
        timer = Timer(id=number, name=name.strip(), seconds=seconds, due=time.time() + seconds)
        await ctx.kv_put(LAST, str(number).encode())
        await ctx.kv_put(_key(number), json.dumps(timer).encode())
        self._run(ctx, timer)
        called = f"{timer['name']} timer" if timer["name"] else "Timer"
        return {
            "id": number,
            "seconds": seconds,
            "due": datetime.fromtimestamp(timer["due"]).astimezone().isoformat(timespec="seconds"),
            "speech": f"{called} set for {duration(seconds)}.",
        }

    @tool("clock.timers", effects="none")
    async def timers(self, ctx: AsyncContext) -> dict[str, Any]:
        """The timers that are running, the next one to ring first."""
        running = sorted(self._timers.values(), key=lambda timer: timer["due"])
        rows = [timer | {"left": round(_left(timer), 1)} for timer in running]
        said = "; ".join(f"{_called(t)}, {duration(_left(t))} left" for t in running[:3])
        count = f"{len(rows)} timer{'' if len(rows) == 1 else 's'}"
        return {"timers": rows, "speech": f"{count}: {said}." if rows else "No timer is running."}

    @tool("clock.cancel", effects="idempotent")
    async def cancel(self, ctx: AsyncContext, id: int = 0) -> dict[str, Any]:
        """Stop a timer before it rings.

        Args:
            id: its number, as clock.timers shows it; all where absent
        """
        gone = [number for number in self._timers if id in (0, number)]
        for number in gone:
            self._waiting.pop(number).cancel()
            self._timers.pop(number)
            await ctx.kv_delete(_key(number))
        said = "The timer is cancelled." if len(gone) == 1 else f"{len(gone)} timers are cancelled."
        return {"cancelled": len(gone), "speech": said if gone else "There is no such timer."}

    def _run(self, ctx: AsyncContext, timer: Timer) -> None:
        self._timers[timer["id"]] = timer
        self._waiting[timer["id"]] = asyncio.create_task(self._ring(ctx, timer))

    async def _ring(self, ctx: AsyncContext, timer: Timer) -> None:
        await asyncio.sleep(max(0.0, _left(timer)))
        metadata = {
            "id": str(timer["id"]),
            "name": timer["name"],
            "seconds": f"{timer['seconds']:g}",
            "late_s": f"{max(0.0, -_left(timer)):.3f}",
            "text": f"Time is up: {_called(timer)}.",
        }
        # Rung before it is forgotten: a host that dies in between rings twice rather than never.
        await ctx.publish(TOPIC, DONE, metadata=metadata, priority=60)
        self._timers.pop(timer["id"], None)
        self._waiting.pop(timer["id"], None)
        await ctx.kv_delete(_key(timer["id"]))


def _left(timer: Timer) -> float:
    return timer["due"] - time.time()


def _called(timer: Timer) -> str:
    return timer["name"] or duration(timer["seconds"])


def _key(number: int) -> str:
    return f"{PREFIX}{number:010d}"
