"""The control socket: JSON lines over a Unix socket that only its owner can open.

A request is `{"op": ..., ...}`; the answer is one `{"ok": true, "data": ...}` or
`{"ok": false, "code": ..., "message": ...}`, for streams one line per item.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loom_sdk import Event, Result
from loom_sdk.errors import InvalidArguments, LoomError, PluginUnhealthy, encode

from . import agent_ops, status, storage_ops
from .clients import Clients
from .explain import explain_route
from .host import Host
from .log_lines import log_rows

LINE_LIMIT = 32 * 1024**2
_ROWS = {
    "ps": status.plugin_rows,
    "capabilities": status.capability_rows,
    "why-denied": status.refusals,
}


class Refused(LoomError):
    """What a running host answered instead of data; `code` is that of the error in the host."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def socket_path(runtime_dir: Path) -> Path:
    return runtime_dir / "control.sock"


class ControlServer:
    """Serves one host's control socket."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._clients = Clients(host)
        self._path = socket_path(host.settings.host.runtime_dir)
        self._server: asyncio.Server | None = None
        self._working: set[asyncio.Task[None]] = set()
        self.stop_requested = asyncio.Event()

    async def start(self) -> None:
        """Raises PluginUnhealthy where another host already serves this socket."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        await require_free(self._path.parent)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, str(self._path), limit=LINE_LIMIT
            )
        finally:
            os.umask(old)

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
            for work in self._working:  # whoever still listens is let go before the loop ends
                work.cancel()
            await asyncio.gather(*self._working, return_exceptions=True)
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            await self._while_connected(reader, self._answer(line, writer))
        except (ConnectionError, ValueError):
            pass  # the client went away or sent too long a line
        finally:
            writer.close()

    async def _while_connected(
        self, reader: asyncio.StreamReader, work: Coroutine[Any, Any, None]
    ) -> None:
        """A client that closes its end has left: its call or its events are given up."""
        working = asyncio.create_task(work)
        self._working.add(working)
        working.add_done_callback(self._working.discard)
        leaving = asyncio.create_task(reader.read())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(line)
            async with contextlib.aclosing(self._dispatch(request)) as answers:
                async for data in answers:
                    await _write(writer, {"ok": True, "data": data})
        except ConnectionError:
            raise
        except Exception as error:
            info = encode(error)
            await _write(writer, {"ok": False, "code": info.code, "message": info.message})

    async def _dispatch(self, request: dict[str, Any]) -> AsyncGenerator[Any, None]:
        host, op = self._host, request.get("op")
        if op in _ROWS:
            yield _ROWS[op](host)
        elif op == "stats":
            yield host.bus.stats()
        elif op == "trace":
            yield host.telemetry.last_trace("utterance") or host.telemetry.last_trace()
        elif op == "route":
            yield self._route(request)
        elif op == "approvals":
            yield host.approvals.serve(request)
        elif op == "call":
            yield await self._call(request)
        elif op == "publish":
            yield await self._publish(request)
        elif op == "events":
            async for row in self._events(request):
                yield row
        elif op == "logs":
            async with contextlib.aclosing(log_rows(host, request)) as rows:
                async for row in rows:
                    yield row
        elif str(op).startswith("agent."):
            yield await agent_ops.answer(host.agents, request)
        elif str(op).startswith("storage."):
            async with contextlib.aclosing(storage_ops.answers(host, request)) as answers:
                async for row in answers:
                    yield row
        elif op in ("client-tools", "client-call"):
            yield await self._clients.answer(request)
        elif op in ("swap", "disable", "enable"):
            yield await self._change(request)
        elif op == "stop":
            self.stop_requested.set()
            yield {"stopping": True}
        else:
            raise InvalidArguments(f"the host knows no operation {op!r}")

    async def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        result = await self._host.invoke(
            request["capability"],
            request.get("arguments", {}),
            payload=base64.b64decode(request.get("payload", "")),
            content_type=request.get("content_type", ""),
            timeout_ms=int(request.get("timeout_ms", 30_000)),
        )
        return answer_of(result)

    def _route(self, request: dict[str, Any]) -> dict[str, Any]:
        broker, settings = self._host.broker, self._host.settings
        agent, changes = str(request.get("agent", "")), request.get("policy", {})
        return explain_route(broker, settings, str(request["capability"]), agent, changes)

    async def _change(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns when it is done; a client that leaves does not break it off."""
        host, op, name = self._host, request["op"], str(request["plugin"])
        if op == "swap":
            with_, tier = str(request.get("with", "")), str(request.get("tier", ""))
            return asdict(await host.swap(name, with_, tier=tier, config=request.get("config", {})))
        if op == "disable":
            await host.disable(name, str(request["reason"]))
        else:
            await host.enable(name)
        handle = host.plugins[name]
        return {"plugin": name, "state": handle.state, "reason": handle.reason}

    async def _publish(self, request: dict[str, Any]) -> dict[str, Any]:
        span = self._host.telemetry.tracer.start(f"cli {request['topic']}")
        span.end()
        event = Event(
            request.get("type", "message"),
            request.get("payload", "").encode(),
            dict(request.get("metadata", {})),
            source="cli",
            traceparent=span.traceparent,
        )
        return {"delivered": await self._host.bus.publish(request["topic"], event)}

    async def _events(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        pattern = request.get("pattern", ">")
        async with self._host.bus.subscribe(pattern, name="cli") as subscription:
            async for event in subscription:
                yield event_row(event)


def event_row(event: Event) -> dict[str, Any]:
    """An event as plain data; a payload that is no short text is told by its size."""
    text = ""
    if len(event.payload) <= 2000:
        with contextlib.suppress(UnicodeDecodeError):
            text = event.payload.decode()
    return {
        "time_ms": event.timestamp_ms,
        "topic": event.topic,
        "type": event.type,
        "source": event.source,
        "metadata": dict(event.metadata),
        "payload_bytes": len(event.payload),
        "text": text,
    }


async def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return False
    writer.close()
    return True


def answer_of(result: Result) -> dict[str, Any]:
    """The answer of a call as plain data. Where the binary came item by item, such as speech, it is
    joined, of the first item's type.
    """
    items = [item for item in result.items if item.payload]
    payload = result.payload or b"".join(item.payload for item in items)
    kind = result.content_type or (items[0].content_type if items else "")
    return {
        "output": result.output,
        "provider": result.provider,
        "content_type": kind,
        "payload": base64.b64encode(payload).decode(),
        "items": [item.output for item in result.items],
    }


async def require_free(runtime_dir: Path) -> None:
    """Raises PluginUnhealthy where a host serves the control socket of this folder."""
    path = socket_path(runtime_dir)
    if await _answers(path):
        raise PluginUnhealthy(f"a host already runs at {path}: stop it, or set host.runtime_dir")


async def ask(runtime_dir: Path, request: dict[str, Any]) -> AsyncIterator[Any]:
    """The answers of the running host. Raises PluginUnhealthy where there is none."""
    path = socket_path(runtime_dir)
    try:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_LIMIT)
    except OSError as error:
        raise PluginUnhealthy(f"no host runs at {path}: start one with `loom run`") from error
    try:
        await _write(writer, request)
        while line := await reader.readline():
            answer = json.loads(line)
            if not answer["ok"]:
                raise Refused(answer["message"], answer["code"])
            yield answer["data"]
    finally:
        writer.close()
