"""A plugin that hosts on other machines reach:

    python -m loom_sdk.serve module:Class --listen 0.0.0.0:50051 \\
        --cert C --key K --client-ca CA [--health 0.0.0.0:50052]

Who a host is its certificate tells, signed by `--client-ca`; there is no token. Each Session has
a plugin object of its own, so more than one at once needs `instances = "pool"`, as plugin.toml
or `--instances` says. SIGTERM drains: health turns NOT_SERVING, hosts are told by GOAWAY and end
their Sessions when they have their answers, at the latest after `--grace`.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import ipaddress
import os
import signal
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from .certificates import TlsFiles
from .driver import load_entry
from .errors import LoomError
from .methods import Methods
from .plugin import Plugin
from .ports import OPTIONS
from .remote_sessions import RemoteSessions
from .serve import SERVICE
from .server_tls import server_credentials

NOTICE_S = 1.0
"""Between NOT_SERVING and the refusal of new streams: so long a probe or watcher may see it."""
LONGEST_MESSAGE = 1024**2
"""Frames of a host have at most 64 KiB."""
LISTEN_OPTIONS = (
    *(option for option in OPTIONS if option[0] != "grpc.max_receive_message_length"),
    ("grpc.max_receive_message_length", LONGEST_MESSAGE),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how to listen."""

    address: str
    """`host:port`; port 0 takes a free one, which is printed."""
    tls: TlsFiles | None = None
    """Own certificate and key, and the CA of the hosts' certificates; None on loopback only."""
    health: str = ""
    """`host:port` that answers `grpc.health.v1` alone, in plaintext: for Kubernetes' probes."""
    instances: str = "single"
    grace_s: float = 30.0
    keepalive_s: float = 10.0
    """A host that answers no ping for so long is gone, and its Session ends."""


def main(arguments: Sequence[str]) -> None:
    """The command line. Raises SystemExit."""
    options = _parser().parse_args(arguments)
    sys.path[:0] = [""] if "" not in sys.path else []
    try:
        kind = load_entry(options.entry)
    except (LoomError, ImportError) as error:
        raise SystemExit(f"{options.entry} cannot be loaded: {error}") from error
    wanted = Listening(
        options.listen,
        _tls(options),
        options.health,
        options.instances or instances_of(kind),
        options.grace,
        options.keepalive,
    )
    listen(kind, wanted)


def listen(plugin: type[Plugin], wanted: Listening) -> None:
    """Serve hosts until SIGTERM or SIGINT. Raises SystemExit where it cannot listen."""
    if wanted.tls is None and not _is_loopback(wanted.address):
        raise SystemExit(
            f"{wanted.address} without TLS: --insecure is for 127.0.0.1, ::1 or localhost alone; "
            "give --cert, --key and --client-ca"
        )
    try:
        asyncio.run(_listen(plugin, wanted))
    except LoomError as error:
        raise SystemExit(error.message) from error


def instances_of(plugin: type[Plugin]) -> str:
    """`single` or `pool`, from the plugin.toml in this folder or beside the plugin's module."""
    for folder in (Path(), Path(inspect.getfile(plugin)).parent):
        path = folder / "plugin.toml"
        try:
            return str(tomllib.loads(path.read_text())["plugin"].get("instances", "single"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError) as error:
            raise SystemExit(f"{path} cannot be read: {error}; or say --instances") from error
    return "single"


async def _listen(plugin: type[Plugin], wanted: Listening) -> None:
    sessions = RemoteSessions(lambda: plugin, pool=wanted.instances == "pool")
    half_ms = int(wanted.keepalive_s * 500)
    names = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
    pings = tuple((name, half_ms) for name in names)
    server = grpc.aio.server(options=(*LISTEN_OPTIONS, *pings))
    server.add_generic_rpc_handlers((methods(sessions),))
    port = _open_port(server, wanted)
    probes = _health_server(sessions, wanted.health)
    await server.start()
    if probes is not None:
        await probes.start()
    told = _when_told_to_stop()
    print(f"listening on {wanted.address.rpartition(':')[0]}:{port}", flush=True)
    await told.wait()
    await _drain(server, sessions, wanted.grace_s)
    if probes is not None:
        await probes.stop(0)
    if sessions.stuck:  # a thread that never ends would hold the interpreter
        sys.stdout.flush()
        os._exit(0)


def methods(sessions: RemoteSessions) -> Methods:
    """Session, health and reflection. The calls of `service Plugin` are for local children."""

    def standard(table: Methods) -> None:
        from . import standard

        standard.add(table, lambda: sessions.well, (SERVICE,))

    table = Methods({"/grpc.health.": standard, "/grpc.reflection.": standard})
    session: Any = grpc.stream_stream_rpc_method_handler(sessions.serve)
    table.add_registered_method_handlers(SERVICE, {"Session": session})
    return table


def _health_server(sessions: RemoteSessions, address: str) -> Any:
    if not address:
        return None
    from . import standard

    table = Methods({})
    standard.add_health(table, lambda: sessions.well, (SERVICE,))
    server = grpc.aio.server(options=LISTEN_OPTIONS)
    server.add_generic_rpc_handlers((table,))
    _bound(address, partial(server.add_insecure_port, address))
    return server


def _open_port(server: Any, wanted: Listening) -> int:
    if wanted.tls is None:
        return _bound(wanted.address, partial(server.add_insecure_port, wanted.address))
    credentials = server_credentials(wanted.tls)
    return _bound(wanted.address, partial(server.add_secure_port, wanted.address, credentials))


def _bound(address: str, bind: Callable[[], int]) -> int:
    try:
        if port := bind():
            return port
    except RuntimeError:
        pass
    raise SystemExit(f"cannot listen on {address}: it is in use, or not of this machine")


def _when_told_to_stop() -> asyncio.Event:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told


async def _drain(server: Any, sessions: RemoteSessions, grace_s: float) -> None:
    sessions.draining = True
    await asyncio.sleep(min(NOTICE_S, grace_s))
    ending = asyncio.ensure_future(server.stop(grace_s))  # GOAWAY: hosts end their Sessions
    await sessions.over(grace_s)
    await server.stop(0.1)
    await ending


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(options: argparse.Namespace) -> TlsFiles | None:
    given = (options.client_ca, options.cert, options.key)
    if options.insecure and any(given):
        raise SystemExit("either --insecure, or --cert, --key and --client-ca")
    if options.insecure:
        return None
    if not all(given):
        raise SystemExit(
            "--cert, --key and --client-ca are needed: hosts and plugin prove to each other who "
            "they are; for a test on this machine alone: --listen 127.0.0.1:PORT --insecure"
        )
    return TlsFiles(*given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loom_sdk.serve",
        description="Serve a plugin; without --listen the Loom host starts it as its child.",
    )
    parser.add_argument("entry", metavar="module:Class")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--cert", type=Path, help="certificate of this plugin, PEM")
    parser.add_argument("--key", type=Path, help="its private key, PEM")
    parser.add_argument("--client-ca", type=Path, help="CA that signs hosts' certificates, PEM")
    parser.add_argument("--insecure", action="store_true", help="no TLS; on loopback only")
    parser.add_argument("--health", default="", metavar="HOST:PORT", help="plaintext, for probes")
    parser.add_argument("--instances", choices=("single", "pool"), help="default: as plugin.toml")
    parser.add_argument("--grace", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--keepalive", type=float, default=10.0, metavar="SECONDS")
    return parser
