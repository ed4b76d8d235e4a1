"""A worker process at work: takes requests from the host, runs the guest, asks on its behalf.

Two sockets. The main thread runs the guest and is alone on `data`; a second thread waits on
`control` for the word to stop, which must reach a guest that runs. The end of either ends the
process.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import Any

from wasmtime import WasmtimeError
from wasmtime.component import Component

from loom_sdk.errors import LoomError, PluginLoadError

from . import messages
from .contract import Loaded, compile_component
from .engine import Engine
from .frames import (
    ANSWER,
    ASK,
    CHUNK,
    CODE,
    DONE,
    FAILED,
    OUT_OF_MEMORY,
    REFUSAL,
    REQUEST,
    STOP,
    TELL,
    Frame,
    FrameError,
    Splitter,
    pack,
)
from .keeper import Keeper
from .preopens import Preopen
from .remote_port import RemotePort
from .ticket import Stopped, Ticket
from .traps import Limits

_RECEIVE = 1 << 16
STACK = 1024**2
"""Of the threads beside the main one, in bytes."""


class Session:
    """One worker's life. `layers` is reported with the answer to `load`; `folders` are open."""

    def __init__(
        self,
        data: socket.socket,
        control: socket.socket,
        limit: int,
        layers: dict[str, str],
        folders: list[int],
    ) -> None:
        self._data, self._control, self._layers = data, control, layers
        self._folders = folders
        self.limit = limit
        self._frames = Splitter(1 << 31)
        self._engine: Engine | None = None
        self._keeper: Keeper | None = None
        self._current: tuple[int, Ticket] = (0, Ticket(""))
        self._stopped = (0, "")
        self._asked = 0

    def serve(self, engine: Engine, code: int) -> None:
        """Answer requests until the host closes the sockets.

        Args:
            code: open file of the authenticated compiled component.
        """
        self._engine = engine
        self._listen()
        while True:
            frame = self._receive(None)
            if frame.kind == REQUEST:
                self._answer(frame, code)
            # an ANSWER that comes too late, for a call that is over, is nobody's

    def _answer(self, frame: Frame, code: int) -> None:
        head = messages.REQUEST.unpack(frame.fields[: messages.REQUEST_FIELDS])
        name, remaining_us, elapsed_us, cpu_s, traceparent, fuel = head
        argument = frame.fields[messages.REQUEST_FIELDS :]
        takes, gives = messages.EXPORTS[name]
        ticket = Ticket("", remaining_us / 1e6, cpu_s, traceparent, fuel)
        ticket.began -= elapsed_us / 1e6
        self._current = frame.number, ticket
        number, reason = self._stopped
        if number == frame.number:
            ticket.stop(reason)
        cpu = time.thread_time()
        try:
            if name == "load":
                fields = gives.pack(self._load(takes.unpack(argument)[0], code))
            else:
                fields = self._run(name, argument, ticket)
            kind = DONE
        except (LoomError, WasmtimeError, FrameError, ValueError, TypeError) as error:
            kind, fields = FAILED, messages.pack_error(error)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        used = self._usage(time.thread_time() - cpu, ticket.fuel_used)
        self._send(pack(kind, frame.number, [*used, *fields]))

    def _load(self, settings: dict[str, Any], code: int) -> dict[str, str]:
        assert self._engine is not None
        try:
            component = Component.deserialize_file(self._engine.wasmtime, f"/proc/self/fd/{code}")
        except WasmtimeError as error:
            raise PluginLoadError(f"compiled code does not load: {error}") from error
        os.close(code)
        limits = Limits(**settings["limits"])
        loaded = Loaded(component, self._engine.wasmtime, settings["name"], limits.direct)
        preopens = tuple(
            Preopen(f"/proc/self/fd/{folder}", inside, writable)
            for folder, (inside, writable) in zip(self._folders, settings["folders"], strict=True)
        )
        self._keeper = Keeper(self._engine, loaded, limits, lambda: RemotePort(self), preopens)
        return self._layers

    def _run(self, name: str, fields: list[bytes], ticket: Ticket) -> list[bytes]:
        if self._keeper is None:
            raise FrameError(f"{name} before load")
        takes, gives = messages.EXPORTS[name]
        argument: Any = None
        if name in ("invoke", "handle-event"):
            argument = takes.unpack_record(fields)
        elif takes.names:
            (argument,) = takes.unpack(fields)
        answer = self._keeper.run(name, argument, ticket)
        if not gives.names:
            return []
        return gives.pack_record(answer) if name == "invoke" else gives.pack(answer)

    def _usage(self, cpu_s: float, fuel: int) -> list[bytes]:
        if (keeper := self._keeper) is None:
            return messages.USAGE.pack(0, 0, 0, cpu_s, fuel, 0)
        return messages.USAGE.pack(
            keeper.seen, keeper.peak, keeper.starts, cpu_s, fuel, int(keeper.fit)
        )

    # -- the guest's side

    def ask(self, name: str, fields: list[bytes], ticket: Ticket) -> list[bytes]:
        """Wait for the host to serve an import, no longer than the call lasts.

        Raises Stopped when the call has ended, or what the host answered with.
        """
        self._asked += 1
        number = self._asked
        self._send(pack(ASK, number, [name.encode(), *fields]))
        while True:
            frame = self._receive(max(0.001, ticket.deadline - time.monotonic()))
            if ticket.check():
                raise Stopped(ticket.reason)
            if frame.number != number:
                continue
            if frame.kind == ANSWER:
                return frame.fields
            if frame.kind == REFUSAL:
                if not frame.fields:
                    ticket.stop("cancelled")
                    raise Stopped(ticket.reason)
                raise messages.unpack_error(frame.fields)

    def tell(self, name: str, fields: list[bytes]) -> None:
        self._send(pack(TELL, 0, [name.encode(), *fields]))

    # -- sockets

    def _send(self, frame: bytes) -> None:
        try:
            self._data.sendall(frame)
        except OSError:
            os._exit(0)

    def _receive(self, timeout_s: float | None) -> Frame:
        """The next frame; an empty one of kind 0 when the time is up."""
        while (frame := self._frames.next()) is None:
            try:
                part = self._part(timeout_s)
            except TimeoutError:
                return Frame(0, 0, [])
            except OSError:
                part = b""
            if not part:
                os._exit(0)
            self._frames.feed(part)
        return frame

    def _part(self, timeout_s: float | None) -> bytes:
        if timeout_s is None:  # as the socket is: no system call but one
            return self._data.recv(_RECEIVE)
        self._data.settimeout(timeout_s)
        try:
            return self._data.recv(_RECEIVE)
        finally:
            self._data.settimeout(None)

    def _listen(self) -> None:
        threading.stack_size(STACK)
        threading.Thread(target=self._hear, name="control", daemon=True).start()

    def _hear(self) -> None:
        """Stop what the host says to stop; end with the host."""
        frames = Splitter(1 << 16)
        while True:
            try:
                part = self._control.recv(4096)
            except OSError:
                part = b""
            if not part:
                os._exit(0)
            frames.feed(part)
            for frame in frames:
                if frame.kind == STOP:
                    self._stop(frame.number, frame.fields[0].decode("utf-8", "replace"))

    def _stop(self, number: int, reason: str) -> None:
        self._stopped = number, reason  # first, for a request that is about to begin
        running, ticket = self._current
        if running == number and self._engine is not None:
            self._engine.stop(ticket, reason)


def compile_and_send(data: socket.socket, source: int, metered: bool) -> None:
    """Compile the component in an open file and send the code in pieces, or why there is none."""
    size = os.fstat(source).st_size
    wasm = b""
    while len(wasm) < size and (part := os.pread(source, size - len(wasm), len(wasm))):
        wasm += part
    threading.stack_size(STACK)
    try:
        code = bytes(compile_component(Engine(metered=metered).wasmtime, wasm).serialize())
    except PluginLoadError as error:
        refuse(data, error.message)
        return
    for at in range(0, len(code), CHUNK):
        data.sendall(pack(CODE, 0, [code[at : at + CHUNK]]))
    data.sendall(pack(DONE, 0))


def refuse(data: socket.socket, why: str) -> None:
    """Tell the host why this worker takes no requests."""
    data.sendall(pack(FAILED, 0, messages.pack_error(PluginLoadError(why))))


def quiet_signals() -> None:
    """What a shell or a terminal would send is the host's to handle."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
