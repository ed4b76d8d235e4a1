"""The child side of the grpc tier: `python -m loom_sdk.serve module:Class`, or `serve(Class)`.

Serves `service Plugin` around one plugin object on the socket that the host names in the
environment, and ends with the host: stdin is a pipe from it, whose end means that it is gone.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from . import wire
from ._proto import plugin_pb2 as pb
from ._proto import plugin_pb2_grpc as pb_grpc
from .child import end_with_host, exit_now, resident_bytes
from .context import Identity
from .driver import Driver, load_entry, negotiate
from .errors import CapabilityNotFound, LoomError, PluginLoadError, QuotaExceeded
from .plugin import Plugin
from .ports import OPTIONS, BlockingPort, HostPort, Running, current
from .status import TOKEN_KEY, error_to_proto


class PluginServer(pb_grpc.PluginServicer):  # type: ignore[misc]  # generated, untyped
    """`service Plugin` around one plugin object."""

    def __init__(self, load: Callable[[], type[Plugin]], token: str, host_socket: str) -> None:
        self._load, self._token, self._host_socket = load, token.encode(), host_socket
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, Running] = {}
        self._quotas: dict[str, int] = {}
        self._plugin_id = ""
        self._driver: Driver | None = None
        self._port: HostPort | None = None
        self._threads: ThreadPoolExecutor | None = None
        self.stopping = asyncio.Event()

    async def Init(self, request: Any, context: Any) -> Any:
        await self._admit(context)
        try:
            return await self._start(request)
        except SystemExit as error:
            exit_now(error)
        except Exception as error:
            _report(error)
            return pb.InitResponse(error=error_to_proto(error))

    async def _start(self, request: Any) -> Any:
        version = negotiate(request.api_versions, request.plugin_id)
        self._plugin_id, self._quotas = request.plugin_id, dict(request.quotas)
        plugin = self._load()()
        plugin.config = json.loads(request.config or "{}")
        folders = [Path(path) if path else None for path in (request.data_dir, request.cache_dir)]
        port = HostPort(self._host_socket, self._token.decode(), self._running)
        blocking = BlockingPort(port, self._loop)
        driver = Driver(plugin, Identity(request.plugin_id, *folders), blocking, port)
        self._threads = ThreadPoolExecutor(max(1, self._quotas.get("concurrency", 1)), "plugin")
        self._driver, self._port = driver, port
        await self._lifecycle("start")
        await port.flush()
        meta = pb.PluginMeta(
            id=request.plugin_id,
            capabilities=map(wire.capability_to_proto, driver.capabilities),
            subscriptions=map(wire.subscription_to_proto, driver.subscriptions),
        )
        return pb.InitResponse(api_version=version, meta=meta)

    async def Invoke(self, request: Any, context: Any) -> None:
        driver = await self._ready(context)
        limit = self._quotas.get("output_bytes", 0)
        running = Running(request.id, limit, context.write)
        began = time.perf_counter_ns()
        try:
            call = wire.call_from_proto(request)
            bound = driver.capability(call.capability)
            if bound.is_async:
                result = await self._on_loop(running, driver.ainvoke(bound, call))
            else:
                result = await self._in_thread(running, driver.invoke, bound, call)
            await self._flush()
            await running.send(wire.result_to_proto(call.id, result))
        except Exception as error:
            await self._flush()
            elapsed = (time.perf_counter_ns() - began) // 1000
            await context.write(wire.failure_to_proto(request.id, self._typed(error), elapsed))

    async def HandleEvent(self, request: Any, context: Any) -> Any:
        driver = await self._ready(context)
        running = Running(request.id)
        failure: Exception | None = None
        began = time.perf_counter_ns()
        try:
            event = wire.event_from_proto(request)
            bound = driver.handler(event)
            if bound is None:
                raise CapabilityNotFound(
                    f"{self._plugin_id} has no handler for {event.topic}/{event.type}"
                )
            if bound.is_async:
                await self._on_loop(running, driver.ahandle_event(bound, event))
            else:
                await self._in_thread(running, driver.handle_event, bound, event)
        except Exception as error:
            failure = self._typed(error)
        await self._flush()
        return wire.response_to_proto(failure, (time.perf_counter_ns() - began) // 1000)

    async def Health(self, request: Any, context: Any) -> Any:
        driver = await self._ready(context)
        try:
            problem = driver.plugin.health()
        except Exception as error:
            problem = f"health() raised {type(error).__name__}: {error}"
        message = problem or wire.running_text(tuple(self._running))
        return pb.HealthStatus(healthy=not problem, message=message, memory_bytes=resident_bytes())

    async def Shutdown(self, request: Any, context: Any) -> Any:
        await self._admit(context)
        began = time.perf_counter_ns()
        failure = await self.stop(request.grace_ms / 1000)
        return wire.response_to_proto(failure, (time.perf_counter_ns() - began) // 1000)

    async def Session(self, requests: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "served by the unary calls")

    async def stop(self, grace_s: float) -> Exception | None:
        """Run `Plugin.stop` for at most `grace_s` seconds, then let the process end."""
        try:
            if self._driver is not None:
                async with asyncio.timeout(grace_s):
                    await self._lifecycle("stop")
        except Exception as error:
            _report(error)
            return error
        finally:
            self.stopping.set()
        return None

    async def aclose(self) -> None:
        if self._port is not None:
            await self._port.aclose()
        if self._running:  # a thread that never ends would hold the interpreter
            sys.stdout.flush()
            os._exit(0)
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def _admit(self, context: Any) -> None:
        """Refuses whoever does not present the token that the host gave to this process."""
        given = next((v for k, v in context.invocation_metadata() or () if k == TOKEN_KEY), "")
        if not hmac.compare_digest(str(given).encode(), self._token):
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, f"the metadata {TOKEN_KEY} is missing or wrong"
            )

    async def _ready(self, context: Any) -> Driver:
        await self._admit(context)
        if self._driver is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "call Init first")
        assert self._driver is not None
        return self._driver

    async def _lifecycle(self, name: str) -> None:
        assert self._driver is not None
        method, ctx, is_async = self._driver.lifecycle(name)
        if is_async:
            await method(ctx)
        else:
            await self._loop.run_in_executor(self._threads, method, ctx)

    async def _on_loop(self, running: Running, work: Awaitable[Any]) -> Any:
        self._running[running.id] = running
        try:
            return await work
        except SystemExit as error:
            exit_now(error)
        finally:
            self._running.pop(running.id, None)

    async def _in_thread(self, running: Running, function: Callable[..., Any], *args: Any) -> Any:
        """The call counts as running until the thread is through, cancelled or not."""

        def work() -> Any:
            current.running = running
            try:
                return function(*args)
            except StopIteration as error:  # a future cannot carry it
                raise RuntimeError("StopIteration left the method") from error
            except SystemExit as error:
                exit_now(error)
            finally:
                current.running = None

        assert self._threads is not None
        self._running[running.id] = running
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: self._running.pop(running.id, None))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            running.cancel()
            raise

    async def _flush(self) -> None:
        if self._port is not None:
            await self._port.flush()

    def _typed(self, error: Exception) -> Exception:
        if isinstance(error, MemoryError):
            return QuotaExceeded(
                f"{self._plugin_id}: out of memory (quota memory {self._quotas.get('memory', 0)})",
                plugin_id=self._plugin_id,
                quota="memory",
                limit=self._quotas.get("memory", 0),
                used=resident_bytes(),
            )
        _report(error)
        return error


def _report(error: Exception) -> None:
    """The traceback of a bug goes to stderr, which the host logs under the plugin's name."""
    if not isinstance(error, LoomError):
        import traceback

        traceback.print_exception(error)


def serve(plugin: type[Plugin] | str) -> None:
    """Serve a plugin class, or the one named `module:Class`, until the host ends it.

    Reads LOOM_SOCKET, LOOM_TOKEN and LOOM_HOST_SOCKET, which the host sets for its children.
    """
    environ = os.environ
    if not environ.get("LOOM_SOCKET"):
        raise SystemExit(
            "LOOM_SOCKET is not set: the Loom host starts this program; name the plugin in "
            "loom.toml and run `loom run`"
        )
    token = environ.pop("LOOM_TOKEN", "")  # not for processes that the plugin starts

    def load() -> type[Plugin]:
        if not isinstance(plugin, str):
            return plugin
        try:
            return load_entry(plugin)
        except ImportError as error:
            raise PluginLoadError(f"entry {plugin!r} cannot be imported: {error}") from error

    asyncio.run(_serve(load, token, environ["LOOM_SOCKET"], environ.get("LOOM_HOST_SOCKET", "")))


async def _serve(load: Callable[[], type[Plugin]], token: str, socket: str, host: str) -> None:
    plugin = PluginServer(load, token, host)
    server = grpc.aio.server(options=OPTIONS)
    pb_grpc.add_PluginServicer_to_server(plugin, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    end_with_host(lambda: plugin.stop(1.0))
    await plugin.stopping.wait()
    await server.stop(0.1)
    await plugin.aclose()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m loom_sdk.serve module:Class")
    serve(sys.argv[1])
