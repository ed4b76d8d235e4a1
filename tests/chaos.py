"""A host with ten children under load, of which one is killed every second; what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import signal
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from loom_host import Event, Host, QoS
from loom_host.bus import DEAD_LETTER
from loom_host.confine import cgroups
from loom_host.runtimes.grpc.sandbox import group_name
from loom_sdk.errors import (
    DeadlineExceeded,
    LoomError,
    OutcomeUnknown,
    PluginCrashed,
    PluginUnhealthy,
    QuotaExceeded,
)

from .chaos_host import NAMES
from .lag import Lag

SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)
CALLERS = 2
"""For each plugin."""
TIMEOUTS_MS = (100, 200, 400, 800)
SLACK_S = 0.25
BACK_S = 20.0
"""For all to be ready and all events to be dealt with, once nobody is killed any more."""
CRASHED = r"killed by SIG(KILL|SEGV)|killed: (a cancelled call did not stop|it ended its Session)"
"""What callers are told of a child that was killed, or by the host once it was stopped."""
PUBLISH_WAIT_S = 0.25
"""`publish_wait_ms`."""
REALTIME_S = 0.05
"""Within which a Realtime publish has returned: a fifth of the time that a Batched one may wait."""


@dataclass
class Findings:
    late: list[str] = field(default_factory=list)
    """Callers that waited too long, and publishers."""
    wrong: list[str] = field(default_factory=list)
    """Answers and errors that should not have been."""
    answers: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)
    worst_s: float = 0.0
    """Longest wait after a deadline, without the loop's lag."""


class Chaos:
    """Runs phases of load. Everything by chance is drawn from `seed`."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host, self.found, self.lag = host, Findings(), Lag()
        self.open: dict[str, set[int]] = {name: set() for name in NAMES}
        """Numbers of Batched events of which nothing was heard yet, by plugin."""
        self._chance = random.Random(seed)
        self._numbers = itertools.count(1)
        self._victims: deque[str] = deque()
        self._stop = asyncio.Event()
        self.groups: set[str] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear of what is handled and of dead letters."""
        work = [self.lag.run(), self._hear_done(), self._hear_dead()]
        tasks = [asyncio.create_task(one) for one in work]
        await asyncio.sleep(0)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def phase(self, seconds: int) -> None:
        """Load, and a kill every second; then everything comes to rest and is back."""
        self._stop.clear()
        work: list[Coroutine[Any, Any, None]] = [
            self._caller(name, n) for name in NAMES for n in range(CALLERS)
        ]
        work += [self._publisher(name) for name in NAMES]
        work += [self._realtime(name) for name in NAMES[::2]]
        tasks = [asyncio.create_task(one) for one in work]
        for _ in range(seconds):
            await asyncio.sleep(1)
            self._kill()
        self._stop.set()
        await asyncio.gather(*tasks)
        await self._all_back()
        until = time.monotonic() + BACK_S
        while any(self.open.values()) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self._note_groups()

    async def _all_back(self) -> None:
        """Every plugin answers: also one that is stopped, which its state does not tell."""
        for name in NAMES:
            until = time.monotonic() + BACK_S
            while problem := await self._problem(name):
                if time.monotonic() > until:
                    self.found.wrong.append(f"{name} is not back: {problem}")
                    break
                await asyncio.sleep(0.05)

    async def _problem(self, name: str) -> str:
        try:
            await self.host.invoke(f"{name}.echo", {"number": 0}, timeout_ms=500)
        except LoomError as error:
            return f"{error.message}; {self.host.plugins[name].explain()}"
        return ""

    # -- the killing

    def _kill(self) -> None:
        """The next plugin that has a process: all of them in turn, in an order by chance."""
        if not self._victims:
            self._victims.extend(self._chance.sample(NAMES, len(NAMES)))
        for _ in range(len(self._victims)):
            name = self._victims.popleft()
            if (pid := self._pid(name)) and self._strike(name, pid):
                return
            self._victims.append(name)

    def _pid(self, name: str) -> int:
        """Of the plugin; now and then, or while it starts, of the child that the host started."""
        handle = self.host.plugins[name]
        if handle.instance is not None and self._chance.random() < 0.8:
            return handle.instance.usage().pid
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error, OSError):
                if child.cwd() == str(handle.spec.folder):
                    return int(child.pid)
        return 0

    def _strike(self, name: str, pid: int) -> bool:
        """By a signal by chance. Only a plugin that serves is stopped: a start would only end at
        its deadline, and bubblewrap has nothing to do.
        """
        number = self._chance.choice(SIGNALS)
        instance = self.host.plugins[name].instance
        if instance is None or pid != instance.usage().pid:
            number = self._chance.choice(SIGNALS[:2])
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if psutil.Process().pid not in {p.pid for p in psutil.Process(pid).parents()}:
                return False
            self._note_groups()
            signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False
        finally:
            os.close(descriptor)
        self.found.kills["starting"] += instance is None
        self.found.kills[number.name] += 1
        self.found.kills[name] += 1
        return True

    def _note_groups(self) -> None:
        run = self.host.settings.host.runtime_dir
        self.groups.update(group_name(private) for private in run.glob("g-*/p-*"))

    # -- the load

    async def _caller(self, name: str, number: int) -> None:
        chance = random.Random(f"{name} {number} {self._chance.random()}")
        while not self._stop.is_set():
            kind = chance.choice(("echo", "echo", "nap", "pour", "relay"))
            await self._call(name, kind, chance.choice(TIMEOUTS_MS), chance.randbytes(100))
            await asyncio.sleep(chance.uniform(0.02, 0.3))

    async def _call(self, name: str, kind: str, timeout_ms: int, payload: bytes) -> None:
        number, began = next(self._numbers), time.monotonic()
        try:
            result = await self.host.invoke(
                f"{name}.{kind}", {"number": number}, payload=payload, timeout_ms=timeout_ms
            )
        except LoomError as error:
            self._judge(name, kind, error)
        else:
            self.found.answers["ok"] += 1
            items = 20 if kind == "pour" else 0
            right = {"plugin": name, "number": number}
            if (result.output, result.payload, len(result.items)) != (right, payload, items):
                self.found.wrong.append(f"{name}.{kind} {number} got {result}")
        self._measure(f"{name}.{kind} of {timeout_ms} ms", began + timeout_ms / 1000, SLACK_S)

    def _judge(self, name: str, kind: str, error: LoomError) -> None:
        """Each error says what happened; nothing else may happen here."""
        text = error.message
        crashed = re.search(CRASHED, text)
        fits = (
            isinstance(error, DeadlineExceeded | PluginUnhealthy)
            or (isinstance(error, PluginCrashed) and crashed)
            or (isinstance(error, OutcomeUnknown) and crashed and kind == "nap")
            or (isinstance(error, QuotaExceeded) and error.quota == "concurrency")
        )
        if not fits:
            self.found.wrong.append(f"{name}.{kind}: {type(error).__name__}: {text}")
        short = re.sub(r"\d+(\.\d+)?", "N", text.partition("; its last lines")[0])
        self.found.answers[f"{type(error).__name__}: {short}"] += 1

    def _measure(self, what: str, due: float, slack_s: float) -> None:
        """Note who waited longer than until `due`.

        What the loop was late by in that time because others had the processor is the machine's,
        not the host's.
        """
        now = time.monotonic()
        over = now - due - self.lag.since(due) if now > due else 0.0
        self.found.worst_s = max(self.found.worst_s, over)
        if over > slack_s:
            self.found.late.append(f"{what} waited {over * 1000:.0f} ms longer")

    async def _publisher(self, name: str) -> None:
        while not self._stop.is_set():
            number, began = next(self._numbers), time.monotonic()
            self.open[name].add(number)
            self.found.published["batched"] += 1
            event = Event("job", bytes(200), {"number": str(number)})
            await self.host.bus.publish(f"work.{name}", event)
            self._measure(f"publish of work.{name}", began + PUBLISH_WAIT_S, SLACK_S)
            await asyncio.sleep(0.1)

    async def _realtime(self, name: str) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.found.published["realtime"] += 1
            await self.host.bus.publish(f"sound.{name}", Event("sound", bytes(640)))
            self._measure(f"publish of sound.{name}", began, REALTIME_S)
            await asyncio.sleep(0.05)

    # -- what came of the events

    async def _hear_done(self) -> None:
        async with self.host.bus.subscribe("done.*", qos=QoS.BACKGROUND) as done:
            async for event in done:
                name = event.topic.partition(".")[2]
                self.open[name].discard(int(event.metadata["number"]))

    async def _hear_dead(self) -> None:
        async with self.host.bus.subscribe(DEAD_LETTER, qos=QoS.BACKGROUND) as dead:
            async for event in dead:
                topic, _, name = event.metadata["original_topic"].partition(".")
                reason = event.metadata["reason"]
                short = re.sub(r"\d+(\.\d+)?", "N", reason.partition("\n")[0])
                self.found.letters[f"{topic}: {short}"] += 1
                if topic == "work":
                    self.open[name].discard(int(event.metadata["number"]))
                if not reason or topic not in ("work", "sound"):
                    self.found.wrong.append(f"dead letter {event.metadata}")

    def report(self) -> str:
        """What came of it, for whoever reads a failure."""
        found = self.found
        lines = [f"{n} {text}" for text, n in (found.answers + found.letters).most_common()]
        lines += [f"killed {dict(found.kills)}", f"published {dict(found.published)}"]
        lines += [f"{found.worst_s:.3f} s at most after a deadline, lag {self.lag.total:.1f} s"]
        return "\n".join(lines)

    def left_groups(self) -> list[Path]:
        """Control groups of children that are still there."""
        return [folder for name in self.groups for folder in cgroups.find(name).folders]
