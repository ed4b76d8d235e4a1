"""`loom plugin new`: each template passes its own test and runs in every tier that it claims."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from loom_host.cli.main import main
from loom_host.discovery import find_manifests, first_party_root
from loom_host.editor_schemas import loom_schema, plugin_schema
from loom_host.manifest import load_manifest
from loom_host.scaffold import KINDS, Wish, create
from loom_host.testing import real_host
from loom_sdk.errors import ConfigError

from .support import ROOT

PYTHON = [(kind, "grpc" if kind == "source" else "wasm") for kind in KINDS]


def new(*words: str, code: int = 0) -> None:
    assert main(["plugin", "new", *words]) == code


@pytest.mark.parametrize(("kind", "tier"), PYTHON)
def test_a_python_project_passes_its_own_test(tmp_path: Path, kind: str, tier: str) -> None:
    folder = tmp_path / "my-plugin"
    new("my-plugin", "--type", kind, "--tier", tier, "--dir", str(folder))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tier"), PYTHON)
async def test_a_python_project_runs_in_every_tier_it_claims(
    tmp_path: Path, kind: str, tier: str
) -> None:
    name = f"my-{kind}"  # modules of native plugins stay loaded
    create(Wish(name, tier=tier, kind=kind), tmp_path / "it")
    for claimed in load_manifest(tmp_path / "it" / "plugin.toml").tiers:
        if claimed == "wasm" and kind != "tool":
            continue  # each takes a build of 5 s, and they differ in nothing that it sees
        async with real_host(tmp_path / "it", tier=claimed) as host:
            assert host.plugins[name].state == "ready"
            if kind == "tool":
                answer = await host.invoke(f"{name}.greet", {"who": "Ada"})
                assert answer.output == {"text": "Hello, Ada!"}


@pytest.mark.parametrize(
    "lang",
    ["c", pytest.param("zig", marks=pytest.mark.soak), pytest.param("javascript", marks=pytest.mark.soak)],  # noqa: E501
)  # fmt: skip
@pytest.mark.slow
def test_a_project_in_another_language_passes_its_own_test(tmp_path: Path, lang: str) -> None:
    folder = tmp_path / "my-plugin"
    new("my-plugin", "--lang", lang, "--publisher", "acme", "--dir", str(folder))
    assert load_manifest(folder / "plugin.toml").id == "acme/my-plugin"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_cannot_be_had_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (("Bad_Name",), "lower case letters and digits"),
        (("x", "--lang", "c", "--tier", "grpc"), "c has: --tier wasm --type tool"),
        (("x", "--type", "source", "--tier", "wasm"), "--tier grpc"),
    ):
        new(*words, "--dir", str(tmp_path / "x"), code=1)
        assert told in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "precious").write_text("")
    with pytest.raises(ConfigError, match="is there already"):
        create(Wish("x"), tmp_path / "x")


def test_it_asks_in_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "new"]) == 2
    assert "say the plugin's name" in capsys.readouterr().err
    answers = iter(["asked-for", "cobol", "", "grpc", "agent"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    monkeypatch.chdir(tmp_path)
    new()
    manifest = load_manifest(tmp_path / "asked-for" / "plugin.toml")
    assert (manifest.tier, manifest.name) == ("grpc", "asked-for")


# -- schemas for editors


def valid(schema: dict[str, Any], data: Any) -> list[str]:
    return [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(data)]


def test_every_first_party_manifest_fits_the_schema() -> None:
    schema = plugin_schema()
    for manifest in find_manifests([first_party_root()]).values():
        data = tomllib.loads((manifest.folder / "plugin.toml").read_text())
        assert valid(schema, data) == [], manifest.id


def test_shipped_settings_fit_the_schema_and_misspelt_ones_do_not() -> None:
    schema = loom_schema()
    for path in (ROOT / "loom.toml", *(ROOT / "loom_host" / "profiles").glob("*.toml")):
        assert valid(schema, tomllib.loads(path.read_text())) == [], path
    assert valid(schema, {"host": {"data_dirr": "x"}})
    assert valid(plugin_schema(), {"plugin": {"id": "NoSlash"}})


def test_schemas_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "schema", "loom.toml"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(loom_schema()))
