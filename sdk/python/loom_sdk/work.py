"""The plugin object at work: started, called and stopped alike under both transports."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from . import wire
from ._proto import plugin_pb2 as pb
from .blocking import BlockingPort
from .call_context import Identity
from .calls import Result
from .child import exit_now, resident_bytes
from .driver import Driver, negotiate
from .errors import CapabilityNotFound, DeadlineExceeded, LoomError, QuotaExceeded
from .plugin import Bound, Plugin
from .port import AsyncPort
from .running import Running, current
from .status import error_to_proto

LONGEST_PROBLEM = 4096
"""Characters of what `health()` says: its frame must not be cut."""
Done = Callable[[Any], None]
"""Takes the last message of an answer, on the loop, once."""


class Threads:
    """The plugin's own threads, at most `limit`, started as they are needed.

    A blocked one does not hold the process.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._started, self._busy = limit, 0, 0
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def submit(self, job: Callable[[], None]) -> None:
        """On the loop; `freed` must follow there once the job is done."""
        self._jobs.put(job)
        self._busy += 1
        if self._started < min(self._busy, self._limit):
            self._start()

    def freed(self) -> None:
        self._busy -= 1

    def _start(self) -> None:
        name = f"plugin_{self._started + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # no memory for another stack: those there must do
            if not self._started:
                raise
            return
        self._started += 1

    def _work(self) -> None:
        while True:
            self._jobs.get()()


class Work:
    """One plugin object with the calls and events that it serves.

    Args:
        load: gives the plugin's class.
    """

    def __init__(self, load: Callable[[], type[Plugin]]) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self.running: dict[str, Running] = {}
        self.quotas: dict[str, int] = {}
        self.plugin_id = ""
        self.driver: Driver | None = None
        self._threads = Threads(1)

    async def start(self, request: Any, port: AsyncPort) -> Any:
        """Answer an `InitRequest`."""
        try:
            return await self._start(request, port)
        except SystemExit as error:
            exit_now(error)
        except Exception as error:
            _report(error)
            return pb.InitResponse(error=error_to_proto(error))

    async def _start(self, request: Any, port: AsyncPort) -> Any:
        version = negotiate(request.api_versions, request.plugin_id)
        self.plugin_id, self.quotas = request.plugin_id, dict(request.quotas)
        plugin = self._load()()
        plugin.config = json.loads(request.config or "{}")
        folders = request.data_dir, request.cache_dir
        data, cache = (Path(path) if path else None for path in folders)
        identity = Identity(request.plugin_id, data, cache, tuple(request.grants))
        driver = Driver(plugin, identity, BlockingPort(port, self._loop), port)
        self._threads = Threads(max(1, self.quotas.get("concurrency", 1)))
        await self._lifecycle(driver, "start")
        driver.learn()
        self.driver = driver
        meta = pb.PluginMeta(
            id=request.plugin_id,
            capabilities=map(wire.capability_to_proto, driver.capabilities),
            subscriptions=map(wire.subscription_to_proto, driver.subscriptions),
        )
        return pb.InitResponse(api_version=version, meta=meta)

    def call(self, request: Any, running: Running, done: Done) -> None:
        """Serve an `ActionCall`; `done` gets its last `ActionResult`."""
        began = time.perf_counter_ns()

        def failed(error: BaseException) -> Any:
            elapsed = (time.perf_counter_ns() - began) // 1000
            return wire.failure_to_proto(request.id, self._typed(error), elapsed)

        def answered(result: Result) -> Any:
            running.make_room(len(result.payload))  # before it is copied
            message = wire.result_to_proto(request.id, result)
            running.count(message)
            return message

        try:
            assert self.driver is not None
            call = wire.call_from_proto(request)
            bound = self.driver.capability(call.capability)
        except LoomError as error:
            done(failed(error))
            return
        serve = self.driver.ainvoke if bound.is_async else self.driver.invoke
        self._serve(bound, running, partial(serve, bound, call), answered, failed, done)

    def event(self, request: Any, running: Running, done: Done) -> None:
        """Serve an `Event`; `done` gets the `PluginResponse`."""
        began = time.perf_counter_ns()

        def answered(error: BaseException | None) -> Any:
            failure = None if error is None else self._typed(error)
            return wire.response_to_proto(failure, (time.perf_counter_ns() - began) // 1000)

        assert self.driver is not None
        event = wire.event_from_proto(request)
        bound = self.driver.handler(event)
        if bound is None:
            text = f"{self.plugin_id} has no handler for {event.topic}/{event.type}"
            done(answered(CapabilityNotFound(text)))
            return
        serve = self.driver.ahandle_event if bound.is_async else self.driver.handle_event
        self._serve(bound, running, partial(serve, bound, event), answered, answered, done)

    def _serve(
        self,
        bound: Bound,
        running: Running,
        work: Callable[[], Any],
        answered: Callable[[Any], Any],
        failed: Callable[[BaseException], Any],
        done: Done,
    ) -> None:
        """It counts as running until the thread or task is through, cancelled or not."""
        self.running[running.id] = running

        def end(message: Any) -> None:
            self.running.pop(running.id, None)
            done(message)

        if bound.is_async:
            running.task = self._loop.create_task(_in_task(work, answered, failed, end))
            return

        def freed(message: Any) -> None:
            self._threads.freed()
            end(message)

        def job() -> None:
            message = _in_thread(running, work, answered, failed)
            self._loop.call_soon_threadsafe(freed, message)

        self._threads.submit(job)

    def health(self) -> Any:
        """The plugin's `HealthStatus`, with the ids of what it serves."""
        assert self.driver is not None
        try:
            problem = self.driver.plugin.health()
        except Exception as error:
            problem = f"health() raised {type(error).__name__}: {error}"
        problem = problem[:LONGEST_PROBLEM]
        message = problem or wire.running_text(tuple(self.running))
        return pb.HealthStatus(healthy=not problem, message=message, memory_bytes=resident_bytes())

    async def stop(self, grace_s: float) -> Exception | None:
        """Run `Plugin.stop` for at most `grace_s` seconds."""
        try:
            if self.driver is not None:
                async with asyncio.timeout(grace_s):
                    await self._lifecycle(self.driver, "stop")
        except Exception as error:
            _report(error)
            return error
        return None

    async def _lifecycle(self, driver: Driver, name: str) -> None:
        method, ctx, is_async = driver.lifecycle(name)
        if is_async:
            await method(ctx)
            return
        future: asyncio.Future[None] = self._loop.create_future()

        def settle(error: BaseException | None) -> None:
            self._threads.freed()
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(None)

        def job() -> None:
            failure = _in_thread(Running(""), partial(method, ctx), lambda _: None, lambda e: e)
            self._loop.call_soon_threadsafe(settle, failure)

        self._threads.submit(job)
        await future

    def _typed(self, error: BaseException) -> BaseException:
        if isinstance(error, MemoryError):
            return QuotaExceeded(
                f"{self.plugin_id}: out of memory (quota memory {self.quotas.get('memory', 0)})",
                plugin_id=self.plugin_id,
                quota="memory",
                limit=self.quotas.get("memory", 0),
                used=resident_bytes(),
            )
        if isinstance(error, asyncio.CancelledError):
            return _cancelled()
        _report(error)
        return error


def _cancelled() -> DeadlineExceeded:
    return DeadlineExceeded("the host cancelled this call")


async def _in_task(
    work: Callable[[], Awaitable[Any]],
    answered: Callable[[Any], Any],
    failed: Callable[[BaseException], Any],
    end: Done,
) -> None:
    try:
        message = answered(await work())
    except SystemExit as error:
        exit_now(error)
    except (Exception, asyncio.CancelledError) as error:
        message = failed(error)
    end(message)


def _in_thread(
    running: Running,
    work: Callable[[], Any],
    answered: Callable[[Any], Any],
    failed: Callable[[BaseException], Any],
) -> Any:
    current.running = running
    try:
        if running.cancelled:
            raise _cancelled()
        return answered(work())
    except StopIteration as error:  # a future cannot carry it
        return failed(RuntimeError(f"StopIteration left the method: {error}"))
    except SystemExit as error:
        exit_now(error)
    except BaseException as error:
        return failed(error)
    finally:
        current.running = None


def _report(error: BaseException) -> None:
    """The traceback of a bug goes to stderr, which the host logs under the plugin's name."""
    if not isinstance(error, LoomError):
        import traceback

        traceback.print_exception(error)
