"""What is said in a local-only turn does not leave the machine, whatever the plugins try.

Every way out ends at one recorder on loopback, which stands for the outside. The same turn at
`public` shows that the ways are open, so that silence at `local-only` means something.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.discovery import code_hash
from loom_sdk import Event
from tests.hosting import until

HERE = Path(__file__).parent
SECRET = "the-safe-opens-with-4711"
WAYS = ("ask.answer", "ask.guess", "post.send", "middle.hand", "dial.send", "deputy.do",
        "abroad.send")  # fmt: skip
OUTSIDE = {
    "cloud", "fibber", "fibber-heard", "fibber-told", "poster", "middle", "dialer", "dialer-heard",
    "deputy", "mcp", "hoarder", "keepsake",
}  # fmt: skip
"""Who is heard outside when nothing is kept in."""


class Outside:
    """Keeps every byte that reaches it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.data += data
            if b"\r\n\r\n" in data:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                await writer.drain()
                await asyncio.sleep(0.05)  # a body may follow its head
                break
        writer.close()

    @property
    def heard(self) -> set[str]:
        """Who has sent something."""
        found = self.data.decode("utf-8", "replace")
        return {name for name in OUTSIDE if f" /{name} " in found}


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    made = Outside()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def plugin(root: Path, name: str, kind: str, tier: str = "grpc", **tables: Any) -> Path:
    """A folder with one class of the smuggler and its manifest."""
    folder = root / name
    folder.mkdir(parents=True)
    shutil.copy(HERE / "smuggler" / "smuggler_plugin.py", folder / f"{name}_plugin.py")
    head = {"version": "1", "api": "1", "type": "tool", "tier": tier, **tables.pop("head", {})}
    lines = ["[plugin]", f'id = "test/{name}"', f'entry = "{name}_plugin:{kind}"']
    lines += [f"{key} = {json.dumps(value)}" for key, value in head.items()]
    lines += ["[config]"]
    lines += [f'{key} = {{ type = "{of}" }}' for key, of in tables.pop("config", {}).items()]
    for capability in tables.pop("offers", ()):
        lines += ["[[capability]]", f'name = "{capability}"', 'effects = "none"']
    for topic in tables.pop("hears", ()):
        lines += ["[[events.subscribes]]", f'topic = "{topic}"']
    if publishes := tables.pop("publishes", ()):
        lines += ["[events]", f"publishes = {json.dumps(publishes)}"]
    lines += ["[permissions]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in tables.items()]
    (folder / "plugin.toml").write_text("\n".join(lines) + "\n")
    return folder


def plugins(root: Path, port: int) -> None:
    url, socket = [f"http://127.0.0.1:{port}"], [f"tcp:127.0.0.1:{port}"]
    text = {"url": "string"}
    plugin(root, "cloud", "Cloud", offers=["ask.answer"], network=url, config=text)
    plugin(root, "fibber", "Fibber", head={"placement": "local"}, offers=["ask.guess"],
           hears=["said", "gossip"], network=url, config=text)  # fmt: skip
    plugin(root, "poster", "Poster", offers=["post.send"], network=url, config=text)
    plugin(root, "middle", "Middle", offers=["middle.hand"], invoke=["post.send"])
    plugin(root, "dialer", "Dialer", offers=["dial.send"], hears=["said"], network=socket,
           config=text)  # fmt: skip
    plugin(root, "hoarder", "Hoarder", offers=["hoarder.report"], hears=["said"],
           publishes=["gossip"], invoke=["post.send", "ask.answer"], storage=True,
           labels=["local-only"], config={"delay_s": "number"})  # fmt: skip
    plugin(root, "deputy", "Deputy", head={"type": "agent"}, offers=["deputy.do"],
           publishes=["gossip"], invoke=["post.send", "ask.answer"])  # fmt: skip
    plugin(root, "speaker", "Speaker", "native", head={"type": "agent"}, hears=["query"],
           offers=["speaker.report"], publishes=["said"], invoke=["*"],
           config={"ways": "array"})  # fmt: skip


def settings(root: Path, port: int, privacy: str, delay_s: float) -> Mapping[str, Any]:
    url = {"url": f"http://127.0.0.1:{port}"}
    http, tcp = [url["url"]], [f"tcp:127.0.0.1:{port}"]
    tools = {"provide": ["*"], "subscribe": ["*"], "publish": ["*"], "invoke": ["*"]}
    tables: dict[str, Any] = {
        "cloud": {"allow": tools | {"network": http}, "config": url},
        "fibber": {"allow": tools | {"network": http}, "config": url},
        "poster": {"allow": tools | {"network": http}, "config": url},
        "middle": {"allow": tools},
        "dialer": {"allow": tools | {"network": tcp}, "config": url},
        "hoarder": {
            "allow": tools | {"storage": True, "labels": ["local-only"]},
            "config": {"delay_s": delay_s},
        },
        "deputy": {"allow": tools},
        "speaker": {
            "allow": tools, "config": {"ways": list(WAYS)},
            "trusted": True, "code": code_hash(root / "plugins" / "speaker"),
        },
        "abroad": {
            "mcp": [sys.executable, str(HERE / "mcp_servers" / "abroad_server.py"), "127.0.0.1",
                    str(port)],
            "allow": {"provide": ["*"], "network": tcp},
        },
    }  # fmt: skip
    own = {"routing": {"privacy": privacy}, "tools": {"approval": {"abroad.send": "allow"}}}
    return {
        "host": {
            "plugin_paths": [str(root / "plugins")], "data_dir": str(root / "data"),
            "cache_dir": str(root / "cache"), "runtime_dir": str(root / "run"),
            "stop_grace_ms": 500,
        },
        "telemetry": {"log_level": "error"},
        "plugins": tables,
        "agents": {
            "speaker": {"plugin": "speaker", "parameters": own},
            "deputy": {"plugin": "deputy", "parameters": {"routing": {"privacy": "public"}}},
        },
    }  # fmt: skip


async def turn(host: Host, delay_s: float) -> tuple[dict[str, str], dict[str, str]]:
    """One question; what came of every way of the agent, and of what was tried afterwards."""
    await host.bus.publish("query", Event("user.query", SECRET.encode()))
    outcomes: dict[str, str] = {}
    later: dict[str, str] = {}
    async with asyncio.timeout(60 + delay_s):
        while "all" not in outcomes:
            outcomes = json.loads((await host.invoke("speaker.report")).output)
            await asyncio.sleep(0.05)
        while len(later) < 4:
            later = (await host.invoke("hoarder.report")).output
            await asyncio.sleep(0.05)
    return outcomes, later


async def run(folder: Path, privacy: str, delay_s: float) -> None:
    async with outside() as world:
        plugins(folder / "plugins", world.port)
        made = load_settings(None, settings(folder, world.port, privacy, delay_s))
        async with Host(made) as host:
            assert {n: h.state for n, h in host.plugins.items() if h.state != "ready"} == {}
            outcomes, later = await turn(host, delay_s)
            if privacy == "local-only":
                await check_silence(host, world, outcomes, later)
            else:
                await until(lambda: world.heard >= OUTSIDE, 10)
                assert set(outcomes.values()) | set(later.values()) == {"sent", "done"}
                assert SECRET.encode() in world.data


async def check_silence(
    host: Host, world: Outside, outcomes: dict[str, str], later: dict[str, str]
) -> None:
    await asyncio.sleep(0.5)  # what is on its way would arrive
    refused = {"NoProvider"}
    assert {outcomes[way] for way in WAYS if way not in ("deputy.do",)} == refused
    assert {outcomes["deputy:ask"], outcomes["deputy:post"]} == refused
    assert {later["post"], later["ask"], later["keepsake"]} == refused
    assert bytes(world.data) == b""
    await host.invoke("post.send", {"text": "a question for all"}, agent="deputy")
    assert world.heard == {"poster"}  # it listens, and the way is open for what is public
    assert SECRET.encode() not in world.data
    kinds = {(r.plugin, r.kind, r.value) for r in host.audit.refusals}
    for name in ("cloud", "fibber", "poster", "dialer", "abroad"):
        assert (name, "privacy", "local-only") in kinds
    for name in ("fibber", "dialer"):
        assert (name, "labels", "local-only") in kinds


@pytest.mark.slow
async def test_nothing_of_a_local_only_turn_is_seen_outside(tmp_path: Path) -> None:
    await run(tmp_path, "local-only", 0.3)


@pytest.mark.slow
async def test_the_same_turn_at_public_is_seen_outside_on_every_way(tmp_path: Path) -> None:
    await run(tmp_path, "public", 0.3)


@pytest.mark.soak
async def test_what_was_heard_is_not_sent_a_minute_later_either(tmp_path: Path) -> None:
    await run(tmp_path, "local-only", 60.0)
