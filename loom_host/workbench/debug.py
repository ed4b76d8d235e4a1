"""A plugin under debugpy: what is changed so that somebody may stop it for as long as they like."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from loom_host.manifest import Manifest
from loom_host.runtimes.base import HostServices, PluginInstance, PluginSpec, Runtime
from loom_sdk.errors import ConfigError

from .order import DEBUG_DEADLINE_MS

LOOPBACK = "127.0.0.1"
QUIET = "-Xfrozen_modules=off"
"""Else debugpy warns that it may miss breakpoints in the standard library."""


def check(manifest: Manifest, tier: str) -> None:
    """Raises ConfigError, with what to do, where no debugger can attach."""
    if tier == "wasm":
        other = "grpc" if "native" not in manifest.tiers and "grpc" in manifest.tiers else "native"
        raise ConfigError(
            "no debugger attaches to a wasm guest: run it with --tier "
            f"{other}, where the same source runs (list it in tiers of plugin.toml)"
        )
    if importlib.util.find_spec("debugpy") is None:
        raise ConfigError('debugpy is not installed: pip install "loom-host[debug]"')
    if tier == "grpc":
        under_debugger(manifest.entry, 0)


def under_debugger(entry: str | tuple[str, ...], port: int) -> tuple[str, ...]:
    """The command of a child that listens for a debugger. Raises ConfigError for no Python."""
    listen = (QUIET, "-m", "debugpy", "--listen", f"{LOOPBACK}:{port}")
    if isinstance(entry, str) and ":" in entry:
        return (sys.executable, "-u", *listen, "-m", "loom_sdk.serve", entry)
    words = (entry,) if isinstance(entry, str) else entry
    rest = words[1:]
    python = Path(words[0]).name.startswith("python")
    if not python or not rest or (rest[0].startswith("-") and rest[0] != "-m"):
        raise ConfigError(
            "--debug is for Python: entry must be 'module:Class' or a list such as "
            "['python', 'plugin.py']; debuggers of other languages attach by the process id that "
            "the command `state` shows"
        )
    return (words[0], *listen, *rest)


def listen_here() -> int:
    """Let a debugger attach to this process; the port on loopback."""
    import debugpy

    return int(debugpy.listen((LOOPBACK, 0))[1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class _Patient:
    """An instance that is not asked for its health: at a breakpoint it could not answer."""

    def __init__(self, inner: PluginInstance) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def health(self) -> str:
        return ""


class DebuggedRuntime:
    """As `inner`, with all the time of the world; children listen for a debugger.

    Args:
        tell: gets the port of each child that starts.
    """

    def __init__(self, inner: Runtime, tell: Callable[[int], None]) -> None:
        self.tier = inner.tier
        self._inner, self._tell = inner, tell

    async def start(self, spec: PluginSpec, services: HostServices) -> PluginInstance:
        if self.tier == "grpc":
            port = _free_port()
            entry = under_debugger(spec.entry, port)
            # A debugger comes in over TCP, which no sandbox lets through.
            spec = replace(spec, entry=entry, sandbox="none")
            self._tell(port)
        spec = replace(spec, start_timeout_s=DEBUG_DEADLINE_MS / 1000)
        return cast(PluginInstance, _Patient(await self._inner.start(spec, services)))

    async def aclose(self) -> None:
        await self._inner.aclose()
