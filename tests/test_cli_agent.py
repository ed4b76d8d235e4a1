"""`loom agent`, against a real host."""

from __future__ import annotations

from pathlib import Path

import pytest

from loom_host.discovery import code_hash

from .hosting import PLUGINS
from .test_cli import Loom
from .test_cli_changes import running

CONFIG = """
[host]
plugin_paths = ["{plugins}"]
data_dir = "data"
runtime_dir = "run"
stop_grace_ms = 500

[telemetry]
log_level = "error"

[plugins.chatter]
trusted = true
code = "{chatter}"
allow = {{ subscribe = ["chat.*"], publish = ["chatter"], storage = true }}

[agents.ann]
plugin = "chatter"
durable = true
"""


@pytest.fixture
def loom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Loom:
    path = tmp_path / "loom.toml"
    path.write_text(CONFIG.format(plugins=PLUGINS, chatter=code_hash(PLUGINS / "chatter")))
    return Loom(path, capsys)


def test_the_life_of_an_agent(loom: Loom) -> None:
    with running(loom.config):
        (ann,) = loom.json("agent", "list")
        assert ann == {
            "name": "ann", "plugin": "chatter", "state": "running", "plugin_state": "ready",
            "durable": True, "origin": "loom.toml", "waiting": 0, "hears": ["chat.*"],
        }  # fmt: skip
        made = loom(
            "agent", "create", "chatter", "eve", "--subscribe", "chat.eve", "--durable",
            "--parameter", "greeting=hey", "--mailbox", "5",
        )  # fmt: skip
        assert made == "eve is created\n"
        loom("agent", "stop", "eve", code=1)
        assert "agent eve is created: to stop it, it must be running" in loom.err
        assert loom.json("agent", "start", "eve")["hears"] == ["chat.eve"]
        table = loom("agent", "list").splitlines()
        assert [line.split()[:3] for line in table[1:]] == [
            ["ann", "chatter", "running"], ["eve", "chatter", "running"],
        ]  # fmt: skip
    with running(loom.config):
        assert [row["state"] for row in loom.json("agent", "list")] == ["running", "running"]
        assert loom("agent", "stop", "eve") == "eve is stopped\n"
        assert loom("agent", "delete", "eve") == "eve is deleted\n"
        loom("agent", "delete", "eve", code=1)
        assert "there is no agent 'eve'" in loom.err
        loom("agent", "stop", "ann")
        assert "it is made anew at the next start, since its origin is loom.toml" in loom(
            "agent", "delete", "ann"
        )
        loom("agent", "create", "chatter", "x", "--parameter", "greting=1", code=1)
        assert "unknown key 'greting'; did you mean 'greeting'" in loom.err
        loom("agent", "create", "chatter", "../x", code=1)
        assert "a name has letters, digits" in loom.err
