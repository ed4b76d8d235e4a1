"""The conformance plugin in each language: built where it must be, hosted, or served bare."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from loom_host import Host, load_settings, node_plugin
from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc
from loom_sdk.errors import PluginLoadError
from tests.hosting import host_tables, until
from tests.support import ROOT

LANGUAGES = {
    "python": ROOT / "tests" / "languages" / "python",
    "node": ROOT / "tests" / "languages" / "node",
    "node-bare": ROOT / "examples" / "node-bare",
    "go": ROOT / "examples" / "go-plugin",
}
ALLOW = {
    "provide": ["demo.*"],
    "subscribe": ["room.*"],
    "publish": ["notes"],
    "invoke": ["lab.*"],
    "secrets": ["door"],
    "storage": True,
}
BUILD_TIMEOUT_S = 900
"""A first build compiles grpc-go: three minutes on a busy machine."""

OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "dial tcp")


def missing(language: str) -> str:
    """The toolchain that the language lacks on this machine; empty when all is there."""
    wanted = {"node": ("node", "npm"), "node-bare": ("node", "npm"), "go": ("go",)}
    lacking = [name for name in wanted.get(language, ()) if shutil.which(name) is None]
    return f"{', '.join(lacking)} is not installed" if lacking else ""


def build(language: str) -> str:
    """Make the plugin runnable; empty, or why that cannot be: no registry is reached."""
    if language == "go":
        return _run(LANGUAGES["go"], sys.executable, "build.py")
    if language == "python":
        return ""
    folder = LANGUAGES[language]
    if language == "node-bare":
        (folder / "build").mkdir(exist_ok=True)
        shutil.copy(ROOT / "proto" / "plugin.proto", folder / "build")
        return npm_packages(folder)
    try:
        if not node_plugin.is_current(folder):
            node_plugin.build(folder)
    except PluginLoadError as error:
        if any(word in error.message for word in OFFLINE):
            return "npm reaches no package registry here"
        raise
    return ""


def npm_packages(folder: Path) -> str:
    """`npm ci` unless it was done for this very lock file. Empty, or why it failed."""
    lock, done = folder / "package-lock.json", folder / "node_modules" / ".loom-lock"
    if done.is_file() and done.read_bytes() == lock.read_bytes():
        return ""
    flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    if problem := _run(folder, "npm", "ci", *flags):
        return problem
    done.write_bytes(lock.read_bytes())
    return ""


def _run(folder: Path, *command: str) -> str:
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S
    )
    if result.returncode == 0:
        return ""
    offline = any(word in result.stderr for word in OFFLINE)
    assert offline, f"{command} in {folder}: {result.stderr[-2000:]}"
    return f"{command[0]} reaches no package registry here"


@asynccontextmanager
async def hosted(folder: Path, language: str, **config: Any) -> AsyncIterator[Host]:
    """A host with the plugin and, for it to ask, the native plugin `lab`."""
    name = f"demo-{language}"
    tables = host_tables(folder, lab={"allow": {"provide": ["lab.*"]}})
    tables["host"]["plugin_paths"].append(str(LANGUAGES[language]))
    tables["plugins"][name] = {"allow": ALLOW, "config": config}
    tables["secrets"] = {"door": {"env": "DOOR_OF_THE_TEST"}}
    async with Host(load_settings(None, tables)) as host:
        await until(lambda: host.plugins[name].state in ("ready", "failed"), 20)
        assert host.plugins[name].state == "ready", host.plugins[name].explain()
        yield host


@dataclass
class Child:
    """The plugin's process without a host: only the socket and the token that it was given."""

    process: asyncio.subprocess.Process
    stub: Any
    token: str = "the right one"
    output: bytearray = field(default_factory=bytearray)

    @property
    def admitted(self) -> dict[str, Any]:
        return {"metadata": (("loom-token", self.token),), "timeout": 10}

    async def init(self, folder: Path, **fields: Any) -> Any:
        request: dict[str, Any] = {
            "api_versions": ["1"], "plugin_id": "test/demo", "data_dir": str(folder),
            "config": '{"greeting": "hi", "unwell": ""}', "host_socket": str(folder / "none"),
        }  # fmt: skip
        return await self.stub.Init(pb.InitRequest(**request | fields), **self.admitted)


def _environment(folder: Path, language: str) -> Mapping[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": f"{LANGUAGES[language]}:{ROOT / 'sdk' / 'python'}",
        "LOOM_SOCKET": str(folder / "s"),
        "LOOM_TOKEN": "the right one",
        "LOOM_PLUGIN_ID": "test/demo",
        "LOOM_HOST_SOCKET": str(folder / "none"),
    }


COMMANDS = {
    "python": (sys.executable, "-m", "loom_sdk.serve", "demo_plugin:Demo"),
    "node": ("node", "main.js"),
    "node-bare": ("node", "main.js"),
    "go": (str(LANGUAGES["go"] / "build" / "plugin"),),
}


@asynccontextmanager
async def served(folder: Path, language: str) -> AsyncIterator[Child]:
    """The plugin's process, listening, as leader of its own group."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[language], cwd=LANGUAGES[language], env=_environment(folder, language),
        stdin=pipe, start_new_session=True,
    )  # fmt: skip
    channel = grpc.aio.insecure_channel(f"unix:{folder / 's'}")
    try:
        async with asyncio.timeout(20):
            await until((folder / "s").exists, 20)
            await channel.channel_ready()
        yield Child(process, pb_grpc.PluginStub(channel))
    finally:
        await channel.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
