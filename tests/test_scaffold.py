"""`loom plugin new`: each template passes its own test and runs in every tier that it claims."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
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
from loom_host.runtimes.wasm import build_js
from loom_host.scaffold import Wish, create
from loom_host.templates import KINDS, LANGUAGES, TEMPLATES, TIERS, Template, find
from loom_host.testing import real_host
from loom_sdk.errors import ConfigError, PluginLoadError

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


MINUTES = {"go", "rust", "zig", "c", ("javascript", "wasm")}
"""From nothing their compilers take one to three minutes: `make soak`."""
OFFLINE = ("dial tcp", "ENOTFOUND", "EAI_AGAIN", "Could not resolve host", "failed to download")


def _case(template: Template) -> Any:
    long = MINUTES & {template.lang, (template.lang, template.tier)}
    mark = pytest.mark.soak if long else pytest.mark.slow
    name = f"{template.lang}-{template.tier}-{template.kind}"
    return pytest.param(template, marks=mark, id=name)


def missing(template: Template, folder: Path) -> str:
    """Why it cannot be built here; empty when it can."""
    if lacking := template.lacking():
        return f"{', '.join(lacking)}: not installed; get {template.toolchain}"
    if (template.lang, template.tier) == ("javascript", "wasm"):
        try:
            build_js.js_tools(folder)
        except PluginLoadError as error:
            return error.message
    return ""


def run_its_test(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    env = os.environ | environment
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What npm fetched for one plugin in JavaScript, since all have the same."""
    return tmp_path_factory.mktemp("packages") / "build"


@pytest.mark.parametrize("template", [_case(t) for t in TEMPLATES if t.lang != "python"])
def test_a_project_in_another_language_passes_its_own_test(
    tmp_path: Path, template: Template, packages: Path
) -> None:
    folder = tmp_path / "my-plugin"
    wish = ("--lang", template.lang, "--tier", template.tier, "--type", template.kind)
    new("my-plugin", *wish, "--publisher", "acme", "--dir", str(folder))
    assert load_manifest(folder / "plugin.toml").id == "acme/my-plugin"
    if why := missing(template, folder):
        pytest.skip(why)
    by_npm = "npm" in template.programs
    if by_npm and packages.is_dir():
        shutil.copytree(packages, folder / "build")
    done = run_its_test(folder)
    if any(word in done.stdout for word in OFFLINE):
        pytest.skip("its registry of packages is not reached")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    if by_npm and not packages.is_dir():
        shutil.copytree(folder / "build", packages)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: f"{t.lang}-{t.tier}-{t.kind}")
def test_every_project_is_whole(
    tmp_path: Path, template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    files = create(Wish("a-b", template.lang, template.tier, template.kind), tmp_path / "it")
    names = {path.relative_to(tmp_path / "it").as_posix() for path in files}
    assert {"plugin.toml", "README.md", "plugin.schema.json", ".gitignore", "test_a_b.py"} <= names
    manifest = load_manifest(tmp_path / "it" / "plugin.toml")
    assert (manifest.id, manifest.tier, manifest.license) == ("me/a-b", template.tier, "MIT")
    data = tomllib.loads((tmp_path / "it" / "plugin.toml").read_text())
    assert valid(plugin_schema(), data) == []
    assert not [path for path in files if re.search(r"\{\{\w+\}\}", path.read_text())]
    assert ("loom.d.ts" in names) == ((template.lang, template.tier) == ("javascript", "wasm"))
    readme = (tmp_path / "it" / "README.md").read_text()
    assert template.toolchain in readme
    assert 'plugin_paths = ["it"]' in readme
    assert main(["plugin", "check", str(tmp_path / "it")]) == 0
    said = capsys.readouterr().out
    assert {line.split()[2] for line in said.splitlines() if ": warning " in line} <= {
        "entry.not-built:"
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lang", "tier", "told"),
    [
        ("go", "grpc", "built with go, which is not installed: Go 1.26 or newer from https://"),
        ("javascript", "grpc", "npm, which is missing: install Node.js 20 or newer: apt install"),
    ],
)
def test_without_its_toolchain_its_test_says_in_one_line_how_to_get_it(
    tmp_path: Path, lang: str, tier: str, told: str
) -> None:
    create(Wish("my-plugin", lang, tier), tmp_path / "it")
    done = run_its_test(tmp_path / "it", PATH=str(tmp_path))
    assert done.returncode == 1
    assert told in done.stdout
    assert "Traceback" not in done.stdout
    assert "During handling" not in done.stdout
    assert "loom_host(HERE" not in done.stdout  # nor pytest's own


def test_a_missing_toolchain_is_told_and_the_project_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    new("x", "--lang", "go", "--dir", str(tmp_path / "x"))
    assert "not installed: go; building it needs Go 1.26" in capsys.readouterr().err
    assert (tmp_path / "x" / "plugin.go").is_file()
    new("y", "--lang", "rust", "--json", "--dir", str(tmp_path / "y"))
    written = json.loads(capsys.readouterr().out)
    assert written["lacking"] == ["cargo"]
    assert "src/main.rs" in written["files"]


def test_whatever_has_no_template_is_refused_with_what_there_is(tmp_path: Path) -> None:
    offered = {(t.lang, t.tier, t.kind) for t in TEMPLATES}
    wishes = set(itertools.product(LANGUAGES, TIERS, KINDS))
    assert offered < wishes
    for lang, tier, kind in wishes - offered:
        with pytest.raises(ConfigError, match=rf"{lang} has: --tier") as raised:
            create(Wish("x", lang, tier, kind), tmp_path / "x")
        assert "loom plugin new --list" in raised.value.message
    assert not (tmp_path / "x").exists()
    for row in offered:
        assert (find(*row).lang, find(*row).tier, find(*row).kind) == row


def test_the_list_is_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    new("--list", "--json")
    rows = json.loads(capsys.readouterr().out)
    listed = {(row["lang"], row["tier"], kind) for row in rows for kind in row["types"]}
    assert listed == {(t.lang, t.tier, t.kind) for t in TEMPLATES}
    page = (ROOT / "docs" / "TEMPLATES.md").read_text()
    for row in rows:
        assert f"| `{row['lang']}` | `{row['tier']}` | {', '.join(row['types'])} |" in page
    new("--list")
    assert "javascript  grpc    tool,agent,stt,tts,source" in capsys.readouterr().out


def test_what_cannot_be_had_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (("Bad_Name",), "lower case letters and digits"),
        (("x", "--lang", "c", "--tier", "grpc"), "gRPC has no library for C"),
        (("x", "--lang", "rust", "--tier", "wasm"), "rustup target add wasm32-wasip2"),
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
    asked: list[str] = []
    replies = iter(["again", "go", "wasm", "", "stt", "source"])

    def reply(text: str) -> str:
        asked.append(text)
        return next(replies)

    monkeypatch.setattr("builtins.input", reply)
    new()
    assert load_manifest(tmp_path / "again" / "plugin.toml").type == "event_source"
    assert asked[2:] == [
        "tier (grpc) [grpc]: ", "tier (grpc) [grpc]: ",
        "type (tool, agent, source) [tool]: ", "type (tool, agent, source) [tool]: ",
    ]  # fmt: skip


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


@pytest.mark.parametrize("file", ["sdk/wit/plugin.wit", "proto/plugin.proto"])
def test_the_contract_is_printed_as_it_is(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "schema", file.rpartition("/")[2]]) == 0
    assert capsys.readouterr().out == (ROOT / file).read_text()
