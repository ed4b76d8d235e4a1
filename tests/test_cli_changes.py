"""`loom swap`, `loom disable`, `loom enable` and `loom run --only`, against a real host."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from loom_host.discovery import code_hash

from .hosting import PLUGINS
from .test_cli import Loom

CONFIG = """
[host]
plugin_paths = ["{plugins}"]
data_dir = "data"
cache_dir = "cache"
runtime_dir = "run"
stop_grace_ms = 500

[telemetry]
log_level = "error"

[providers]
"tell.who" = ["teller"]

[plugins.teller]
trusted = true
code = "{teller}"
allow = {{ provide = ["*"], storage = true }}

[plugins.herald]
trusted = true
code = "{herald}"
role = "stand-in"
allow = {{ provide = ["*"] }}

[plugins.wake-phrase]
allow = {{ provide = ["wake.match"] }}
"""


def write_config(folder: Path) -> Path:
    hashes = {name: code_hash(PLUGINS / name) for name in ("teller", "herald")}
    path = folder / "loom.toml"
    path.write_text(CONFIG.format(plugins=PLUGINS, **hashes))
    return path


@contextlib.contextmanager
def running(config: Path, *words: str) -> Iterator[str]:
    """A real `loom run`; what it said as it was ready."""
    command = [sys.executable, "-m", "loom_host.cli.main", "-c", str(config), "run", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith("loom runs"):
                break
        try:
            yield said
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert process.wait(10) == 0, rest
        assert "Traceback" not in rest


def test_changes_of_a_running_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loom = Loom(write_config(tmp_path), capsys)
    with running(loom.config):
        told = loom("swap", "teller", "--config", "word=new", "--config", "ail=")
        assert "teller 1.0.0 (native) is in the place of teller, after" in told
        assert json.loads(loom("call", "tell.who"))["word"] == "new"
        swapped = loom.json("swap", "teller", "--with", "herald", "--tier", "grpc")
        assert (swapped["plugin"], swapped["tier"]) == ("herald", "grpc")
        assert "teller: replaced by herald 1.0.0 (grpc)" in loom("ps")
        loom("swap", "herald", "--config", "fail=hoarse", code=1)
        assert "nothing was swapped, herald goes on (ready)" in loom.err
        assert "herald: the last swap was rolled back" in loom("ps")
        loom("swap", "herald", "--with", "nobody", code=1)
        assert "'nobody' has no table" in loom.err

        told = loom("disable", "herald", "--reason", 'says "no"')
        assert 'herald is stopped: disabled: says "no"' in told
        assert f"{loom.config} is as it was" in told
        written = tomllib.loads(told[told.index("[plugins.herald]") :])["plugins"]["herald"]
        assert written == {"enabled": False, "reason": 'says "no"'}
        loom("call", "tell.who", code=1)
        assert 'herald is disabled: says "no"; `loom enable herald` starts it' in loom.err
        assert loom("enable", "herald") == "herald is ready\n"
        loom("enable", "herald", code=1)
        assert "there is nothing to enable" in loom.err
        assert json.loads(loom("call", "tell.who"))["word"] == "herald"
        answer = loom.json("disable", "herald", "--reason", "x")
        assert (answer["state"], answer["persistent"]) == ("stopped", False)
    assert loom.config.read_text() == write_config(tmp_path).read_text()


def test_run_only_first_party(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loom = Loom(write_config(tmp_path), capsys)
    with running(loom.config, "--only", "first-party") as said:
        assert "loom runs 1 plugins: wake-phrase (native, ready)" in said
        rows = {row["name"]: row for row in loom.json("ps")}
        assert rows["teller"]["reason"] == "disabled: safe mode"
        assert "teller: disabled: safe mode" in loom("ps")
        loom("call", "tell.who", code=1)
        assert "teller is disabled: safe mode" in loom.err
    loom("run", "--only", "telller", code=1)
    assert "--only: 'telller' has no table; did you mean 'teller'" in loom.err
