"""The guests of the wasm benchmark: one echo in C, for Loom and for Extism, and a host for ours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from loom_host import Host, load_settings
from loom_host.runtimes.wasm.build import ensure_component
from loom_host.runtimes.wasm.cache import default_folder
from loom_host.runtimes.wasm.engine import Engine, Guest
from loom_host.runtimes.wasm.ticket import Ticket, TicketedPort
from loom_host.runtimes.wasm.traps import Limits
from loom_sdk.bridge import Bridge

GUESTS = Path(__file__).parent / "guests"
LIMITS = Limits("bench/echo-c", 16 * 1024**2, 16 * 1024**2)
SIZES = {"16 B": 16, "1 KB": 1024, "32 KB": 32 * 1024}


def json_text(size: int) -> str:
    """A JSON object of exactly `size` bytes, at least 11."""
    return '{"text":"' + "x" * (size - 11) + '"}'


class NoPort(Bridge, TicketedPort):
    """Stands where a guest's host API is; this guest asks for nothing."""

    def __init__(self) -> None:
        self.ticket = Ticket("")


def guest(engine: Engine, direct: bool = True) -> Guest:
    """An instance of our guest, initialised."""
    loaded = engine.load(ensure_component(GUESTS / "echo", "main.c", default_folder()), direct)
    made = Guest(engine, loaded, engine.linker(loaded), NoPort(), LIMITS)
    made.open(Ticket(""))
    request = {"api-versions": ["1"], "plugin-id": "", "config": "{}", "grants": [], "quotas": []}
    made.call("init", (request,), Ticket(""))
    return made


def extism_plugin() -> Any:
    """Extism's echo. Raises ModuleNotFoundError without the extra `dev`."""
    import extism

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "echo.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", "-O2"]
        command += ["-nostdlib", "-Wl,--no-entry", "-o", str(made)]
        subprocess.run([*command, str(GUESTS / "extism" / "echo.c")], check=True)
        return extism.Plugin(made.read_bytes())


@asynccontextmanager
async def echo_host(isolation: str) -> AsyncIterator[Host]:
    """A host with our guest and all that a call passes: grants, quotas, schema, metrics, traces."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"isolation": isolation, "allow": {"provide": ["bench.*"]}}
        tables = {
            "host": {"plugin_paths": [str(GUESTS)], "data_dir": folder, "runtime_dir": folder},
            "telemetry": {"sample_ratio": 0.1, "log_level": "error"},
            "plugins": {"echo-c": own},
        }
        async with Host(load_settings(None, tables)) as host:
            assert host.plugins["echo-c"].state == "ready"
            yield host
