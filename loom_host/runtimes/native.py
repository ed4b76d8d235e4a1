"""The native tier: trusted code in the host's own process, loaded through pluggy.

`async def` methods run on the host's loop. `def` methods run in the plugin's own daemon threads;
one that does not come back in time is abandoned, counted, and the plugin is reported degraded.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from loom_host.quotas import HELD_BY_HOST
from loom_sdk import Call, Event, Plugin, Result
from loom_sdk.bridge import Bridge
from loom_sdk.call_context import Identity
from loom_sdk.driver import Driver
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    LoomError,
    PluginLoadError,
    QuotaExceeded,
)

from .base import Declaration, HostServices, PluginSpec, Usage
from .json_copy import json_copy
from .threads import Worker, at_work

T = TypeVar("T")

UNENFORCED = "unenforced: native code shares the host's process"


class ThreadPort(Bridge):
    """The port of the threads: it does nothing more for a call that the host has given up."""

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        job = at_work.get()
        if job is not None and job.given_up:
            work.close()
            raise DeadlineExceeded("the host gave this call up: it does nothing more for it")
        return super()._wait(work)

    def cancelled(self, call_id: str) -> bool:
        """Asked in the thread that works for the call."""
        job = at_work.get()
        return job is not None and job.given_up


class NativeInstance:
    """One plugin object in the host."""

    asleep = False

    def __init__(self, spec: PluginSpec, plugin: Plugin, services: HostServices) -> None:
        identity = Identity(spec.id, spec.data_dir, spec.cache_dir, spec.grants)
        bridge = ThreadPort(services, asyncio.get_running_loop())
        self._spec = spec
        self._driver = Driver(plugin, identity, bridge, services)
        self._idle: list[Worker] = []
        self._closed = False
        self._abandoned: list[Worker] = []
        self._abandoned_total = 0
        self.declaration = self._declared()
        lost = ("memory", "cpu", "processes", "open_files", "network", "filesystem", "devices")
        self.enforcement: Mapping[str, str] = (
            dict.fromkeys(HELD_BY_HOST, "enforced")
            | dict.fromkeys(lost, UNENFORCED)
            | {"deadline_ms": "partial: a blocked thread is abandoned, not ended"}
        )

    def _declared(self) -> Declaration:
        driver = self._driver
        return Declaration(
            tuple(driver.capabilities), tuple(driver.subscriptions), inferred=self._spec.dynamic
        )

    async def _run(self, work: Callable[[], Any]) -> Any:
        worker = self._idle.pop() if self._idle else Worker(f"loom-{self._spec.name}")
        try:
            answer = await worker.submit(work).future
        except asyncio.CancelledError:
            worker.stop()
            self._abandoned_total += 1
            self._abandoned.append(worker)
            raise
        except BaseException:
            self._give_back(worker)
            raise
        self._give_back(worker)
        return answer

    def _give_back(self, worker: Worker) -> None:
        if self._closed:
            worker.stop()
        else:
            self._idle.append(worker)

    def end_threads(self) -> None:
        """Those at work end after it."""
        self._closed = True
        for worker in self._idle:
            worker.stop()
        self._idle.clear()

    async def start(self) -> None:
        method, context, is_async = self._driver.lifecycle("start")
        if is_async:
            await method(context)
        else:
            await self._run(lambda: method(context))
        self._driver.learn()
        self.declaration = self._declared()

    async def wake(self) -> None:
        """What is loaded stays ready."""

    async def invoke(self, call: Call) -> Result:
        bound = self._driver.capability(call.capability)
        try:
            if bound.is_async:
                result = await self._driver.ainvoke(bound, call)
            else:
                result = await self._run(lambda: self._driver.invoke(bound, call))
        except LoomError:
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            raise _failed(self._spec.name, error) from error
        self._check_output(result)
        return result

    def _check_output(self, result: Result) -> None:
        if result.output is None and not result.payload:
            return
        limit = self._spec.quotas.output_bytes
        try:
            # As in the other tiers, the caller gets its own copy and not the plugin's state.
            result.output, size = json_copy(result.output, limit - len(result.payload))
        except (TypeError, ValueError) as error:
            raise ActionFailed(f"{self._spec.name} returned what is not JSON: {error}") from error
        size += len(result.payload)
        if size > limit:
            raise QuotaExceeded(
                plugin_id=self._spec.id, quota="output_bytes", limit=limit, used=size
            )

    async def handle_event(self, event: Event) -> int:
        began = time.perf_counter_ns()
        bound = self._driver.handler(event)
        if bound is None:
            return 0
        try:
            if bound.is_async:
                await self._driver.ahandle_event(bound, event)
            else:
                await self._run(lambda: self._driver.handle_event(bound, event))
        except LoomError:
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            raise _failed(self._spec.name, error) from error
        return (time.perf_counter_ns() - began) // 1000

    async def health(self) -> str:
        self._abandoned = [worker for worker in self._abandoned if worker.alive()]
        if self._abandoned:
            return f"{len(self._abandoned)} blocked thread(s) abandoned"
        return str(self._driver.plugin.health())

    async def wait_exit(self) -> str:
        """Native code ends only with the host."""
        await asyncio.Event().wait()
        return ""

    async def aclose(self, grace_s: float) -> None:
        method, context, is_async = self._driver.lifecycle("stop")
        stopping = method(context) if is_async else self._run(lambda: method(context))
        try:
            async with asyncio.timeout(grace_s):
                await stopping
        except SystemExit as error:
            raise _failed(self._spec.name, error) from error
        finally:
            self.end_threads()

    def usage(self) -> Usage:
        return Usage(extra={"abandoned_threads": self._abandoned_total})


def _failed(name: str, error: BaseException) -> ActionFailed:
    """What the caller is told; its own cancellation goes on as one.

    Any other is of something that the plugin awaited, and must not end what called the plugin.
    """
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    return ActionFailed(f"{name} raised {type(error).__name__}: {error}")


class NativeRuntime:
    """Loads `module:Class`, or a module with the hook `loom_create_plugin`."""

    tier = "native"

    def __init__(self) -> None:
        self._loaded: dict[Path, int] = {}
        """When the code in a plugin's folder had changed last as it was loaded, in ns."""

    async def start(self, spec: PluginSpec, services: HostServices) -> NativeInstance:
        importer = Worker(f"loom-import-{spec.name}")  # its own: an import may hang
        try:
            plugin = await importer.submit(lambda: self._create(spec)).future
            plugin.config = dict(spec.config)
            instance = NativeInstance(spec, plugin, services)
            try:
                await instance.start()
            except BaseException:
                instance.end_threads()
                raise
        except LoomError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginLoadError(
                f"{spec.name} did not start: {type(error).__name__}: {error}", plugin_id=spec.id
            ) from error
        finally:
            importer.stop()
        return instance

    def _create(self, spec: PluginSpec) -> Plugin:
        changed = max((file.stat().st_mtime_ns for file in spec.folder.glob("*.py")), default=0)
        if self._loaded.setdefault(spec.folder, changed) != changed:
            raise PluginLoadError(
                f"{spec.name}: its code changed, and native code is loaded once in a host's life: "
                "start the host again, or run it in the grpc tier",
                plugin_id=spec.id,
            )
        return _create(spec)

    async def aclose(self) -> None:
        """Nothing is shared."""


def _create(spec: PluginSpec) -> Plugin:
    import pluggy

    from loom_sdk import hookspecs

    if not isinstance(spec.entry, str):
        raise PluginLoadError(
            f"{spec.name}: a command line runs in the grpc tier, not native", plugin_id=spec.id
        )
    module_name, _, attribute = spec.entry.partition(":")
    if (spec.folder / f"{module_name}.py").is_file() and str(spec.folder) not in sys.path:
        sys.path.append(str(spec.folder))
    module = importlib.import_module(module_name)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    kind = getattr(module, attribute, None) if attribute else None
    if inspect.isclass(kind) and issubclass(kind, Plugin):
        return kind()
    created = manager.hook.loom_create_plugin(plugin_id=spec.id, config=dict(spec.config))
    if isinstance(created, Plugin):
        return created
    raise PluginLoadError(
        f"{spec.name}: entry {spec.entry!r} names no loom_sdk.Plugin class, and the module has no "
        "hook loom_create_plugin that returns one",
        plugin_id=spec.id,
    )
