"""Runs plugins as child processes that serve `service Plugin` on a private Unix socket."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import site
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

import loom_sdk
from loom_host.runtimes.base import NO_CALL, HostServices, PluginSpec
from loom_sdk.errors import PluginLoadError
from loom_sdk.models import models_dir

from .flights import Flights
from .handshake import Handshake
from .host_calls import Client
from .host_server import HostServer
from .init import API_VERSIONS
from .instance import GrpcInstance
from .launch import Launcher, resolve_command
from .leftovers import HostFolder, sweep
from .machine import bubblewrap
from .process import ChildProcess
from .sandbox import profile_of

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


@dataclass(frozen=True, slots=True)
class Spawned:
    """A child that was told nothing yet."""

    child: ChildProcess
    client: Client
    socket: Path
    token: str
    host_socket: Path
    release: Callable[[], None]
    """Once it has ended."""


@dataclass(frozen=True, slots=True)
class _Open:
    """The server of all children, and the locked folder that it lives in."""

    server: HostServer
    folder: HostFolder


class GrpcRuntime:
    """The grpc tier.

    Args:
        folder: where sockets and temporary folders of children go; made if missing, 0700.
        sessions: whether children are asked for a Session before the unary calls are used.
    """

    tier = "grpc"

    def __init__(self, folder: Path, *, sessions: bool = True) -> None:
        self._wanted, self._sessions = folder, sessions
        self._opening: asyncio.Task[_Open] | None = None
        self._launcher = Launcher()

    async def start(self, spec: PluginSpec, services: HostServices) -> GrpcInstance:
        """Start the child and Init it within `spec.start_timeout_s`.

        Raises:
            PluginLoadError: it cannot run, ended, did not listen or refused; the message quotes
                its last lines of output.
            PluginCrashed: a signal ended it, which may have been chance.
            ProtocolMismatch: it speaks none of the host's api versions.
        """
        spawned = await self.spawn(spec, services)
        channel = _channel(spec, spawned.socket)
        child, client = spawned.child, spawned.client
        instance = GrpcInstance(spec, child, channel, client.flights, spawned.release)
        handshake = Handshake(instance, spec, client, spawned.token, self._sessions)
        try:
            await handshake.run(spawned.socket, spawned.host_socket)
        except BaseException:
            await asyncio.shield(instance.aclose(0))
            raise
        return instance

    async def spawn(self, spec: PluginSpec, services: HostServices) -> Spawned:
        """Start the child, and say nothing to it. Raises as `start`; the caller ends the child."""
        opened = await self._open()
        host = opened.server
        command = _command(spec)
        client = Client(spec.id, services, Flights(spec.id))
        seat = _Seat(_private_folder(host.socket.parent), host.admit(client))

        def release() -> None:
            host.revoke(seat.token)
            shutil.rmtree(seat.folder, ignore_errors=True)

        try:
            child = await self._spawn(spec, command, seat, host.socket, services)
        except BaseException:
            release()
            raise
        return Spawned(child, client, seat.socket, seat.token, host.socket, release)

    async def aclose(self) -> None:
        """Close the host's socket and remove the folder; all instances are closed already."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        opened = await opening
        await opened.server.aclose()
        with suppress(OSError):
            opened.server.socket.unlink(missing_ok=True)
        opened.folder.remove()
        self._launcher.close()
        self._launcher = Launcher()

    async def _spawn(
        self,
        spec: PluginSpec,
        command: list[str],
        seat: _Seat,
        host_socket: Path,
        services: HostServices,
    ) -> ChildProcess:
        def log(stream: str, line: str) -> None:
            level = "info" if stream == "stdout" else "warning"
            services.log(level, line, {"stream": stream}, NO_CALL)

        env = _environment(spec, seat, host_socket)
        granted = tuple(folder.path for folder in spec.folders if folder.writable)
        own = (spec.data_dir, spec.cache_dir) if profile_of(spec) == "strict" else ()
        try:
            launched = await self._launcher.launch(spec, command, env, seat.folder, host_socket)
            return await ChildProcess.follow(launched, spec.quotas, log, own + granted)
        except PluginLoadError as error:
            raise PluginLoadError(f"{spec.id}: {error.message}", plugin_id=spec.id) from error

    async def _open(self) -> _Open:
        """The one server of all children; a start that is cancelled does not undo it."""
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(_open_host(self._wanted))
        return await asyncio.shield(self._opening)


async def _open_host(wanted: Path) -> _Open:
    folder = await asyncio.to_thread(_runtime_folder, wanted)
    host = HostServer(folder.path / "host.sock")
    await host.start()
    host.socket.chmod(0o666)  # users of their own must reach it; the token tells who may ask
    return _Open(host, folder)


def _private_folder(parent: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="p-", dir=parent))
    (folder / "tmp").mkdir()
    return folder


def _runtime_folder(wanted: Path) -> HostFolder:
    """A fresh folder below `wanted`, or in the system's temporary folder when that is too deep.

    Without namespaces users of their own must get through it to their sockets.
    """
    mode = 0o711 if os.geteuid() == 0 and bubblewrap().problem else 0o700
    wanted.mkdir(mode=mode, parents=True, exist_ok=True)
    parent = wanted.resolve()
    if len(os.fsencode(parent)) + len("/g-12345678/p-12345678/plugin.sock") > MAX_SOCKET_PATH:
        parent = Path(tempfile.gettempdir()) / f"loom-{os.geteuid()}-deep"
        parent.mkdir(mode=mode, exist_ok=True)
        if parent.is_symlink() or parent.stat().st_uid != os.geteuid():
            raise PluginLoadError(f"{parent} is not this user's: remove it or set TMPDIR")
    sweep(parent)
    return HostFolder(parent, mode)


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


def _channel(spec: PluginSpec, path: Path) -> grpc.aio.Channel:
    options = (
        ("grpc.max_receive_message_length", spec.quotas.output_bytes + MESSAGE_SLACK),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        # Else it is the socket's path, which some HTTP/2 servers, such as Rust's, refuse.
        ("grpc.default_authority", "localhost"),
    )
    return grpc.aio.insecure_channel(f"unix:{path}", options=options)
