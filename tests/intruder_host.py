"""A host with an intruder and a neighbour, both in the wasm tier, that lives through all cases.

The neighbour is the guest of tests/guests, plugin `hostile`, which here does no harm.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_host import Host, load_settings
from loom_host.runtimes.wasm.cache import default_folder

from .hosting import host_tables
from .test_egress import Server, serving

INTRUDER, NEIGHBOUR = (Path(__file__).parent / name for name in ("intruder", "guests"))
SECRET, THEIRS = "s3cret-of-mine", "s3cret-of-theirs"
QUOTAS = {
    "memory": "64MiB", "deadline_ms": 600, "output_bytes": 65_536, "log_bytes": 20_000,
    "storage_bytes": 1000, "folder_bytes": 100_000,
}  # fmt: skip


@dataclass
class Town:
    """The host, and what lies around it."""

    host: Host
    server: Server
    folder: Path
    isolation: str
    neighbour_calls: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def attempt(self, what: str, of: str = "", text: str = "", size: int = 0) -> Any:
        """Let the intruder try; its answer, or what is raised."""
        of = of.replace("{url}", self.url).replace("{port}", str(self.server.port))
        arguments = {"what": what, "of": of, "text": text, "size": size}
        return (await self.host.invoke("intruder.try", arguments)).output

    async def is_well(self) -> None:
        """The host and both plugins serve, and the neighbour has kept its state."""
        self.neighbour_calls += 1
        assert (await self.host.invoke("t.count")).output == self.neighbour_calls
        assert (await self.host.invoke("intruder.count")).output >= 1
        states = {name: handle.state for name, handle in self.host.plugins.items()}
        assert states == {"intruder": "ready", "hostile": "ready"}
        assert (await self.host.invoke("loom.tools")).output == {"tools": []}


def _folders(folder: Path) -> dict[str, str]:
    for name in ("library", "desk", "attic"):
        (folder / name).mkdir()
    (folder / "outside").write_text("private")
    (folder / "library" / "book").write_text("words")
    (folder / "library" / "out").symlink_to("../outside")
    (folder / "library" / "root").symlink_to("/")
    return {name: str(folder / name) for name in ("library", "desk", "attic")}


def _tables(folder: Path, isolation: str, port: int) -> dict[str, Any]:
    tables = host_tables(folder)
    tables["host"] |= {
        "plugin_paths": [str(INTRUDER), str(NEIGHBOUR)],
        "cache_dir": str(default_folder().parent),
    }
    network = [f"GET http://127.0.0.1:{port}", "http://*.example:*", "http://localhost:1"]
    tables["secrets"] = {
        "mine": {"command": ["echo", SECRET]}, "key": {"command": ["echo", THEIRS]},
    }  # fmt: skip
    tables["plugins"] = {
        "intruder": {
            "isolation": isolation,
            "folders": _folders(folder),
            "quotas": QUOTAS,
            "allow": {
                "provide": ["intruder.*"], "subscribe": ["room"], "publish": ["intruder.out"],
                "invoke": ["t.count", "intruder.try"], "secrets": ["mine"],
                "storage": True, "network": network, "filesystem": ["library", "desk:rw"],
            },
        },
        "hostile": {
            "isolation": isolation,
            "allow": {"provide": ["t.*"], "storage": True, "secrets": ["key"]},
        },
    }  # fmt: skip
    return tables


@asynccontextmanager
async def town(folder: Path, isolation: str) -> AsyncIterator[Town]:
    async with serving() as server:
        settings = load_settings(None, _tables(folder, isolation, server.port))
        async with Host(settings) as host:
            town = Town(host, server, folder, isolation)
            await host.invoke("t.store", {"key": "diary"})
            assert (await host.invoke("t.secret")).output == THEIRS
            yield town


def resolve_to(monkeypatch: Any, *addresses: str) -> None:
    """Make every name of `.example` have these addresses."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def resolve(host: str, port: int, **options: Any) -> Any:
        if not host.endswith(".example"):
            return await real(host, port, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
