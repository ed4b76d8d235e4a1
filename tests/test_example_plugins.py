"""What holds for every plugin in examples/ that a stranger could have made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loom_host.cli.main import main
from loom_host.packages import read_archive
from loom_host.runtimes.wasm.build_js import js_tools
from loom_sdk.errors import PluginLoadError

from .parcels import key
from .support import ROOT

EXAMPLES = ("wyoming", "home-intents", "wake-clap")


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Path:
    return ROOT / "examples" / str(request.param)


def test_it_is_packed_twice_to_the_same_bytes(example: Path, tmp_path: Path) -> None:
    key(tmp_path)
    made = []
    for name in ("one.loom", "two.loom"):
        out = str(tmp_path / name)
        assert (
            main(["plugin", "pack", str(example), "--key", str(tmp_path / "key"), "-o", out]) == 0
        )
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    archive = read_archive(made[0], "it")
    assert {"plugin.toml", "README.md"} <= set(archive.files)


def test_the_check_finds_nothing(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "check", str(example), "--strict"]) == 0, capsys.readouterr()


@pytest.mark.soak  # one of them compiles JavaScript
def test_its_own_tests_pass(example: Path) -> None:
    if example.name == "home-intents":
        try:
            js_tools(example)
        except PluginLoadError as error:
            pytest.skip(error.message)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(example)]
    done = subprocess.run(command, cwd=example, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
