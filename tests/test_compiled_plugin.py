"""Plugins in Go and Rust: what is built, when, and what is said where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loom_host import builds
from loom_host.cli.main import main
from loom_host.manifest import load_manifest
from loom_host.scaffold import Wish, create
from loom_host.testing import real_host
from loom_sdk.errors import ManifestError, PluginLoadError

MANIFEST = """
[plugin]
id = "test/tiny"
version = "1.0.0"
api = "1"
type = "tool"
tier = "grpc"
entry = ["build/plugin"]
"""
CARGO = '[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2021"\n'


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in Rust without dependencies, which is built in a second and without a network."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "tiny"
    (folder / "src").mkdir(parents=True)
    (folder / "plugin.toml").write_text(MANIFEST)
    (folder / "Cargo.toml").write_text(CARGO)
    (folder / "src" / "main.rs").write_text("fn main() {}\n")
    return folder


def test_a_build_is_kept_until_a_source_changes(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def build() -> str:
        assert main(["plugin", "build", str(tiny)]) == 0
        return capsys.readouterr().out

    def lack() -> tuple[str, str] | None:
        return builds.unbuilt(load_manifest(tiny / "plugin.toml"))

    old = ("its build is missing or old", f"loom plugin build {tiny}")
    assert lack() == old
    assert "MB, " in build()
    first = (tiny / "build" / "plugin").read_bytes()
    assert first.startswith(b"\x7fELF")
    assert lack() is None
    (tiny / "README.md").write_text("no source\n")
    assert build() == f"{tiny / 'build' / 'plugin'} is up to date\n"
    (tiny / "src" / "main.rs").write_text('fn main() { println!("other") }\n')
    assert lack() == old
    assert "up to date" not in build()
    assert (tiny / "build" / "plugin").read_bytes() != first
    (tiny / "build" / "plugin").unlink()
    assert lack() == old


def test_what_the_compiler_refuses_is_told_with_its_place(tiny: Path) -> None:
    (tiny / "src" / "main.rs").write_text("fn main() {\n    nothing();\n}\n")
    with pytest.raises(PluginLoadError, match=r"error\[E0425\].*nothing.*src/main\.rs:2:5"):
        builds.build_plugin(tiny)
    assert builds.unbuilt(load_manifest(tiny / "plugin.toml")) is not None


@pytest.mark.parametrize(
    ("entry", "beside", "told"),
    [
        ('["./tiny"]', "go.mod", r'for the go\.mod beside it its entry must be \["build/plugin"\]'),
        ('["./tiny"]', "Cargo.toml", r'for the Cargo\.toml beside .* \["build/plugin"\]'),
        ('["node", "main.js"]', "package.json", "a package-lock.json, which `npm install` writes"),
        (
            '["./tiny"]',
            "Makefile",
            "does not claim the wasm tier: add it to tiers; nor is its entry",
        ),
    ],
)
def test_where_there_is_nothing_to_build_it_is_told_what_the_entry_must_be(
    tmp_path: Path, entry: str, beside: str, told: str
) -> None:
    (tmp_path / "plugin.toml").write_text(MANIFEST.replace('["build/plugin"]', entry))
    (tmp_path / beside).write_text("")
    with pytest.raises(ManifestError, match=told):
        builds.build_plugin(tmp_path)


@pytest.mark.soak
def test_go_is_built_once_and_its_errors_are_told_with_their_place(tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    folder = tmp_path / "it"
    create(Wish("my-plugin", "go", "grpc"), folder)
    assert builds.build_plugin(folder).seconds > 0
    assert builds.build_plugin(folder).seconds == 0
    stubs = (folder / "build" / "loompb" / "plugin.pb.go").stat().st_mtime_ns
    source = folder / "plugin.go"
    source.write_text(source.read_text().replace('"Hello, "', '"Moin, "'))
    assert builds.build_plugin(folder).seconds > 0
    assert (folder / "build" / "loompb" / "plugin.pb.go").stat().st_mtime_ns == stubs
    source.write_text(source.read_text().replace("given.Who", "given.Nobody", 1))
    with pytest.raises(PluginLoadError, match=r"plugin\.go:20:\d+: given\.Nobody undefined"):
        builds.build_plugin(folder)


@pytest.mark.parametrize("lang", ["go", "rust"])
async def test_no_start_compiles_and_its_refusal_names_the_command(
    tmp_path: Path, lang: str
) -> None:
    folder = tmp_path / "it"
    create(Wish("my-plugin", lang, "grpc"), folder)
    with pytest.raises(PluginLoadError, match=f"run `loom plugin build {folder}`"):
        async with real_host(folder):
            pass
    assert not (folder / "build").exists()


def test_a_plugin_that_needs_no_build_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "plugin.toml").write_text(MANIFEST)  # but no source beside it
    with pytest.raises(ManifestError, match=r"go\.mod, Cargo\.toml or package-lock\.json"):
        builds.build_plugin(tmp_path)
    assert builds.unbuilt(load_manifest(tmp_path / "plugin.toml")) is None
