"""Runs plugins as child processes that serve `service Plugin` on a private Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import site
import socket
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

import loom_sdk
from loom_host.runtimes.base import HostServices, PluginSpec
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc
from loom_sdk.errors import LoomError, PluginLoadError, ProtocolMismatch
from loom_sdk.models import models_dir
from loom_sdk.plugin import API_VERSION
from loom_sdk.status import TOKEN_KEY, error_from_proto

from .host_server import HostServer
from .instance import GrpcInstance
from .process import ChildProcess, Limits, resolve_command
from .translate import from_grpc

API_VERSIONS = (API_VERSION,)
CONNECT_POLL_S = 0.002
MAX_SOCKET_PATH = 100
"""Linux takes 107 bytes."""
MESSAGE_SLACK = 1024**2
"""What a message may hold beside the output that the quota counts, in bytes."""


@dataclass(frozen=True, slots=True)
class _Seat:
    """Where one child lives: its private folder and the token it shares with the host."""

    folder: Path
    token: str

    @property
    def socket(self) -> Path:
        return self.folder / "plugin.sock"


class GrpcRuntime:
    """The grpc tier.

    Args:
        folder: where sockets and temporary folders of children go; made if missing, 0700.
    """

    tier = "grpc"

    def __init__(self, folder: Path) -> None:
        self._wanted = folder
        self._opening: asyncio.Task[HostServer] | None = None

    async def start(self, spec: PluginSpec, services: HostServices) -> GrpcInstance:
        """Start the child and Init it within `spec.start_timeout_s`.

        Raises:
            PluginLoadError: it cannot run, ended, did not listen or refused; the message quotes
                its last lines of output.
            ProtocolMismatch: it speaks none of the host's api versions.
        """
        host = await self._open()
        command = _command(spec)
        seat = _Seat(_private_folder(host.socket.parent), host.admit(spec.id, services))

        def release() -> None:
            host.revoke(seat.token)
            shutil.rmtree(seat.folder, ignore_errors=True)

        try:
            child = await _spawn(spec, command, seat, host.socket, services)
        except BaseException:
            release()
            raise
        instance = GrpcInstance(spec, services, child, _channel(spec, seat), seat.token, release)
        try:
            await _initialise(instance, spec, seat, host.socket)
        except BaseException:
            await asyncio.shield(instance.aclose(0))
            raise
        return instance

    async def aclose(self) -> None:
        """Close the host's socket and remove the folder; all instances are closed already."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        host = await opening
        await host.aclose()
        with suppress(OSError):
            host.socket.unlink(missing_ok=True)
            host.socket.parent.rmdir()

    async def _open(self) -> HostServer:
        """The one server of all children; a start that is cancelled does not undo it."""
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(_open_host(self._wanted))
        return await asyncio.shield(self._opening)


async def _open_host(wanted: Path) -> HostServer:
    host = HostServer(_runtime_folder(wanted) / "host.sock")
    await host.start()
    return host


def _private_folder(parent: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="p-", dir=parent))
    (folder / "tmp").mkdir()
    return folder


def _runtime_folder(wanted: Path) -> Path:
    """A fresh folder below `wanted`, or in the system's temporary folder when that is too deep."""
    wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
    deep = len(os.fsencode(wanted.resolve())) + len("/g-12345678/p-12345678/plugin.sock")
    parent = wanted.resolve() if deep <= MAX_SOCKET_PATH else None
    return Path(tempfile.mkdtemp(prefix="g-", dir=parent))


def _command(spec: PluginSpec) -> list[str]:
    if isinstance(spec.entry, str) and ":" in spec.entry:
        return [sys.executable, "-s", "-u", "-m", "loom_sdk.serve", spec.entry]
    words = shlex.split(spec.entry) if isinstance(spec.entry, str) else list(spec.entry)
    if not words:
        raise PluginLoadError(f"{spec.id}: `entry` is empty", plugin_id=spec.id)
    try:
        return resolve_command(spec.folder, words)
    except PluginLoadError as error:
        raise PluginLoadError(f"{spec.id}: {error.message}", plugin_id=spec.id) from error


def _environment(spec: PluginSpec, seat: _Seat, host_socket: Path) -> dict[str, str]:
    """All that the child gets: nothing of the host's own environment beside PATH and LANG."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOME": str(spec.data_dir),
        "TMPDIR": str(seat.folder / "tmp"),
        "PYTHONPATH": os.pathsep.join(_python_path(spec.folder)),
        **spec.env,
        "LOOM_SOCKET": str(seat.socket),
        "LOOM_TOKEN": seat.token,
        "LOOM_API_VERSIONS": ",".join(API_VERSIONS),
        "LOOM_PLUGIN_ID": spec.id,
        "LOOM_HOST_SOCKET": str(host_socket),
        "LOOM_MODELS": str(models_dir()),
    }


def _python_path(folder: Path) -> list[str]:
    """The plugin's folder, and the SDK's where the interpreter would not find it by itself."""
    sdk = str(Path(loom_sdk.__file__).resolve().parent.parent)
    installed = {str(Path(path).resolve()) for path in site.getsitepackages()}
    return [str(folder.resolve())] + ([sdk] if sdk not in installed else [])


async def _spawn(
    spec: PluginSpec, command: list[str], seat: _Seat, host_socket: Path, services: HostServices
) -> ChildProcess:
    for folder in (spec.data_dir, spec.cache_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def log(stream: str, line: str) -> None:
        services.log("info" if stream == "stdout" else "warning", line, {"stream": stream}, "")

    limits = Limits(spec.quotas.memory, spec.quotas.open_files)
    env = _environment(spec, seat, host_socket)
    try:
        return await ChildProcess.spawn(command, env, spec.folder, limits, log)
    except PluginLoadError as error:
        raise PluginLoadError(f"{spec.id}: {error.message}", plugin_id=spec.id) from error


def _channel(spec: PluginSpec, seat: _Seat) -> grpc.aio.Channel:
    options = (
        ("grpc.max_receive_message_length", spec.quotas.output_bytes + MESSAGE_SLACK),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )
    return grpc.aio.insecure_channel(f"unix:{seat.socket}", options=options)


async def _initialise(
    instance: GrpcInstance, spec: PluginSpec, seat: _Seat, host_socket: Path
) -> None:
    """Wait until the child listens, Init it and take what it declares."""
    work = asyncio.ensure_future(_init(instance, _request(spec, host_socket), seat))
    try:
        ends: set[asyncio.Future[Any]] = {work, instance.child.exited}
        limit = spec.start_timeout_s
        await asyncio.wait(ends, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        response = work.result() if work.done() else None
    except grpc.aio.AioRpcError as error:
        await _settle(instance.child)
        raise _not_started(instance.child, spec, _refusal(error, spec.id)) from error
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    if response is None:
        raise _not_started(instance.child, spec, _late(spec))
    _accept(instance, spec, response)


async def _init(instance: GrpcInstance, request: Any, seat: _Seat) -> Any:
    await _until_listening(seat.socket)
    stub: Any = pb_grpc.PluginStub(instance.channel)
    return await stub.Init(request, metadata=((TOKEN_KEY, seat.token),))


def _accept(instance: GrpcInstance, spec: PluginSpec, response: Any) -> None:
    if response.HasField("error"):
        error = error_from_proto(response.error)
        if isinstance(error, ProtocolMismatch):
            raise error
        text = f"{spec.id} did not start: {error.message}"
        raise PluginLoadError(text, plugin_id=spec.id) from error
    if response.api_version not in API_VERSIONS:
        raise ProtocolMismatch(
            f"{spec.id} chose api {response.api_version!r}, the host speaks "
            f"{', '.join(API_VERSIONS)}: upgrade the older of plugin and host",
            plugin_id=spec.id,
        )
    try:
        instance.declare(response.meta)
    except LoomError as error:
        raise PluginLoadError(f"{spec.id}: at Init: {error}", plugin_id=spec.id) from error


async def _settle(child: ChildProcess) -> None:
    """A lost connection mostly means that the process is about to end: wait for that news."""
    await asyncio.wait({child.exited}, timeout=0.2)


def _not_started(child: ChildProcess, spec: PluginSpec, problem: str) -> PluginLoadError:
    if child.exited.done():
        problem = f"ended before it was ready ({child.exited.result()})"
    return PluginLoadError(f"{spec.id} {problem}{child.tail()}", plugin_id=spec.id)


def _refusal(error: grpc.aio.AioRpcError, plugin_id: str) -> str:
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return "does not know the token it was given: it must use LOOM_TOKEN of its environment"
    return f"failed at Init: {from_grpc(error, plugin_id).message}"


def _late(spec: PluginSpec) -> str:
    return (
        f"was not ready within {spec.start_timeout_s:g} s: it must listen on LOOM_SOCKET and "
        "answer Init; raise the start-up limit if it needs longer"
    )


async def _until_listening(path: Path) -> None:
    """Tries the socket itself: a file that nobody listens on yet would cost a gRPC backoff."""
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if probe.connect_ex(str(path)) == 0:
                return
        await asyncio.sleep(CONNECT_POLL_S)


def _request(spec: PluginSpec, host_socket: Path) -> Any:
    quotas = {name: int(value) for name, value in asdict(spec.quotas).items()}
    return pb.InitRequest(
        api_versions=API_VERSIONS,
        plugin_id=spec.id,
        config=json.dumps(dict(spec.config)),
        grants=spec.grants,
        host_socket=str(host_socket),
        data_dir=str(spec.data_dir),
        cache_dir=str(spec.cache_dir),
        quotas=quotas,
    )
