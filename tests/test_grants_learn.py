"""`loom grants learn`: what was seen in use is granted, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.allow_writing import write_allow
from loom_host.cli.main import main
from loom_host.discovery import code_hash
from loom_host.learning import Learned, Learner, opened
from loom_sdk import Event
from loom_sdk.errors import CapabilityNotFound, ConfigError, LoomError, PermissionDenied

from .docs_runner import blocks_of
from .support import ROOT

PLUGIN = """\
[plugin]
id = "acme/doer"
version = "1.0.0"
api = "1"
type = "tool"
tier = "native"
entry = "doer_learn_plugin:Doer"

[[capability]]
name = "doer.work"
effects = "none"
input = { type = "object", properties = { what = { type = "array", items = { type = "string" } } } }

[[capability]]
name = "doer.idle"
effects = "none"

[[events.subscribes]]
topic = "door.*"
types = ["rung"]

[events]
publishes = ["room.>"]

[permissions]
invoke = ["notes.*"]
network = ["http://127.0.0.1:*", "https://api.example"]
secrets = ["key", "other"]
storage = true
env = ["HOME_NAME"]
devices = ["speaker"]
filesystem = ["music"]
"""
CODE = '''\
"""Does what it is told."""

from loom_sdk import Context, Event, Plugin, capability, on_event


class Doer(Plugin):
    @capability("doer.work", effects="none")
    def work(self, ctx: Context, what: list[str]) -> list[str]:
        return [self.one(ctx, *order.split(" ")) for order in what]

    @capability("doer.idle", effects="none")
    def idle(self, ctx: Context) -> str:
        return "nothing"

    def one(self, ctx: Context, kind: str, value: str = "", more: str = "") -> str:
        if kind == "publish":
            return str(ctx.publish(value, "told"))
        if kind == "invoke":
            return str(ctx.invoke(value, {"text": "milk"} if value == "notes.add" else {}).output)
        if kind == "fetch":
            return str(ctx.http.request(value, more).status)
        if kind == "secret":
            return ctx.secret(value)
        ctx.kv.put("key", b"value")
        return "kept"

    @on_event("door.*", types=["rung"])
    def heard(self, ctx: Context, event: Event) -> None:
        """Hears."""
'''


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def page() -> Iterator[str]:
    """The address of a server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with `doer` and the first-party notes, neither of which is allowed anything."""
    folder = tmp_path / "doer"
    folder.mkdir()
    (folder / "plugin.toml").write_text(PLUGIN)
    (folder / "doer_learn_plugin.py").write_text(CODE)
    monkeypatch.setenv("DOER_KEY", "hush-hush")
    path = tmp_path / "loom.toml"
    path.write_text(
        f"""\
# Kept: what people wrote.
[host]
plugin_paths = ["doer"]
data_dir = "data"
cache_dir = "cache"
runtime_dir = "run"

[secrets.key]
env = "DOER_KEY"

[plugins.doer]  # mine
trusted = true
code = "{code_hash(folder)}"
allow = {{ subscribe = ["window"], devices = ["speaker"] }}

[plugins.notes]
tier = "native"
[plugins.notes.quotas]
concurrency = 2
"""
    )
    return path


@contextmanager
def learning(*options: Path | str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, once it serves."""
    command = [sys.executable, "-m", "loom_host.cli.main", "grants", "learn", *map(str, options)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stderr is not None
        told = ""
        try:
            for line in process.stderr:
                told += line
                if "use it now" in line:
                    break
            assert "AUDIT MODE" in told
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed, stopped as by Ctrl-C."""
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return out


def call(config: Path, capability: str, **arguments: Any) -> int:
    given = [f"{name}={json.dumps(value)}" for name, value in arguments.items()]
    return main(["-c", str(config), "call", capability, *given])


def test_what_was_used_is_served_afterwards_and_the_rest_is_denied(config: Path, page: str) -> None:
    work = [
        "publish room.light", "invoke notes.add", f"fetch GET {page}", f"fetch POST {page}",
        "secret key", "keep",
    ]  # fmt: skip
    with learning(config, "--write") as process:
        assert call(config, "doer.work", what=work) == 0
        assert main(["-c", str(config), "publish", "door.front", "--type", "rung"]) == 0
        assert main(["-c", str(config), "publish", "door.back", "--type", "knocked"]) == 0
        told = ended(process)
    tables = tomllib.loads(config.read_text())["plugins"]
    assert tables["doer"]["allow"] == {
        "subscribe": ["door.front"],
        "publish": ["room.light"],
        "provide": ["doer.work"],
        "invoke": ["notes.add"],
        "network": [f"GET,POST {page}"],
        "secrets": ["key"],
        "devices": ["speaker"],
        "storage": ["own"],
    }
    assert tables["notes"]["allow"] == {"provide": ["notes.add"], "storage": ["own"]}
    for line in (
        "# invoke 'notes.*' is asked for and was used for: notes.add",
        "# asked for and never used: provide 'doer.idle'",
        "# asked for and never used: network 'https://api.example'",
        "# asked for and never used: secrets 'other'",
        "# not observed: devices 'speaker', given for this run; kept: 'speaker'",
        "# not observed: env 'HOME_NAME', given for this run; left out",
        "# not allowed today: publish 'room.light'",
    ):
        assert line in told, told
    asyncio.run(serves_no_more_than(config, work, page))


async def serves_no_more_than(config: Path, work: list[str], page: str) -> None:
    """A host with the grants as they were learned."""
    async with Host.from_config(config) as host:
        answer = await host.invoke("doer.work", {"what": work})
        assert answer.output[4:] == ["hush-hush", "kept"]
        assert await host.bus.publish("door.front", Event("rung")) == 1
        assert await host.bus.publish("door.back", Event("rung")) == 0
        for order in ("publish room.dark", "invoke notes.list", "secret other",
                      f"fetch DELETE {page}", "fetch GET http://127.0.0.1:9"):  # fmt: skip
            with pytest.raises(PermissionDenied):
                await host.invoke("doer.work", {"what": [order]})
        with pytest.raises(CapabilityNotFound):
            await host.invoke("doer.idle")


def test_what_people_wrote_in_the_file_stays(config: Path) -> None:
    before = config.read_text()
    with learning(config, "--write", "--plugin", "notes") as process:
        assert call(config, "notes.add", text="milk") == 0
        ended(process)
    after = config.read_text()
    assert "# Kept: what people wrote." in after
    added = 'allow = {provide = ["notes.add"], storage = ["own"]}'
    assert [line for line in after.splitlines() if line not in ("", added)] == [
        line for line in before.splitlines() if line
    ]
    assert tomllib.loads(after)["plugins"]["notes"]["quotas"] == {"concurrency": 2}


def test_only_the_named_plugin_gets_what_it_asks_for(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = config.read_text()
    with learning(config, "--plugin", "doer", "--json") as process:
        assert call(config, "notes.list") == 1  # of notes nothing is allowed still
        assert "nobody offers 'notes.list'" in capsys.readouterr().err
        assert call(config, "doer.idle") == 0
        rows = json.loads(ended(process))
    assert [row["plugin"] for row in rows] == ["doer"]
    assert rows[0]["used"] == {"provide": ["doer.idle"]}
    assert rows[0]["not_allowed_today"] == ["provide:doer.idle"]
    assert config.read_text() == before


def test_it_ends_by_itself_after_the_seconds(config: Path) -> None:
    with learning(config, "--seconds", "0.2") as process:
        out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert re.findall(r"^\[plugins\.(\w+)\]$", out, re.MULTILINE) == ["doer", "notes"]
    assert 'allow = { devices = ["speaker"] }' in out
    assert "allow = {}" in out


def test_every_line_of_the_page_is_run(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [b for b in blocks_of(ROOT / "docs" / "CHECKS.md") if "grants_learn" in b.detail]
    monkeypatch.chdir(config.parent)
    lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    assert len(lines) == 3
    for words in lines:
        assert words[:3] == ["loom", "grants", "learn"]
        with learning(*words[3:]) as process:
            ended(process)
    assert tomllib.loads(config.read_text())["plugins"]["notes"]["allow"] == {}


async def seen(config: Path, *orders: str) -> Learned:
    """In this process: what is learned of `doer` from some work."""
    settings = load_settings(config)
    host = Host(opened(settings))
    learner = Learner(host, settings)
    async with host:
        for order in orders:
            try:
                await host.invoke("doer.work", {"what": [order]})
            except LoomError as error:
                assert isinstance(error, PermissionDenied), error
    return learner.learned()[0]


async def test_no_more_is_allowed_than_the_manifest_asks_for(config: Path) -> None:
    found = await seen(config, "publish kitchen", "publish room.light", "invoke weather.get")
    assert found.used == {"publish": ("room.light",), "provide": ("doer.work",)}
    assert found.refused == (("publish", "kitchen"), ("invoke", "weather.get"))


def test_a_folder_that_nobody_has_named_is_not_given(config: Path, tmp_path: Path) -> None:
    assert "filesystem" not in opened(load_settings(config)).plugins["doer"].allow
    (tmp_path / "songs").mkdir()
    folder = '[plugins.doer.folders]\nmusic = "songs"\n'
    config.write_text(config.read_text() + folder)
    assert opened(load_settings(config)).plugins["doer"].allow["filesystem"] == ("music",)


async def test_kinds_that_a_profile_allows_are_written_as_empty_where_unused(
    config: Path,
) -> None:
    """Lists of the file replace those of the profile, kind by kind."""
    settings = load_settings(config, {"plugins": {"doer": {"allow": {"publish": ["room.a"]}}}})
    host = Host(opened(settings))
    learner = Learner(host, settings)
    async with host:
        await host.invoke("doer.idle")
    assert learner.learned()[0].allow == {
        "publish": (), "provide": ("doer.idle",), "devices": ("speaker",),
    }  # fmt: skip


def test_a_plugin_that_is_not_there_is_told(config: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'doer'"):
        opened(load_settings(config), ["dor"])
    assert main(["grants", "learn", str(config), "--plugin", "dor"]) == 1


def test_there_is_no_writing_into_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["grants", "learn", "--write"]) == 2


@pytest.mark.parametrize(
    "text",
    [
        "[plugins.doer]\n",
        "[plugins.doer]\nallow = { publish = ['a'] }  # said\ntier = 'native'\n",
        "[plugins.doer.allow]\npublish = ['a']\n[plugins.doer.config]\nx = 1\n",
        "[plugins.doer.config]\nx = 1\n",
        "[plugins.doer]\ntier = 'native'\n[plugins.doer.config]\nx = 1\n[host]\ncontrol = false\n",
        "[plugins.'doer']\n[agents.a]\nplugin = 'doer'\n",
        "extends = 'voice'\n",
        "[plugins]\ndoer = { tier = 'native' }\n",
        "plugins.doer.tier = 'native'\n",
        "[plugins.doer]\ntier = 'native'\n[host]\ncontrol = false\n[plugins.notes]\n",
    ],
)
def test_every_form_of_the_table_is_changed_in_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / "loom.toml"
    path.write_text(text)
    write_allow(path, {"doer": {"provide": ("doer.work",), "storage": ("own",)}})
    expected = tomllib.loads(text)
    table = expected.setdefault("plugins", {}).setdefault("doer", {})
    table["allow"] = {"provide": ["doer.work"], "storage": ["own"]}
    assert tomllib.loads(path.read_text()) == expected
    for comment in re.findall(r"#.*", text):
        assert comment in path.read_text()
    assert [item.name for item in tmp_path.iterdir()] == ["loom.toml"]
