"""The wheels: what travels in them, and that they run alone, from an empty folder.

Dependencies are borrowed from the Python that runs the tests; Loom itself is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from loom_sdk.models import models_dir

from .support import ROOT

DEPENDENCIES = Path(sysconfig.get_paths()["purelib"])
MB = 1_000_000
SDK_BORROWS = ("grpc", "google", "typing_extensions.py")
"""What `loom-sdk[grpc]` asks for: grpcio, protobuf, and what grpcio needs."""


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}\n{done.stdout}"
    return done.stdout


def clean_environment(folder: Path) -> dict[str, str]:
    """Nothing of ours but PATH and the models; every folder that Loom writes to is new."""
    homes = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
    return homes | {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "LOOM_MODELS": str(models_dir()),
    }


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def new_venv(folder: Path, *wheels: Path) -> Path:
    """A virtual environment with these wheels and nothing else; returns its site-packages."""
    venv.create(folder, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", *wheels, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    return site


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built from this repository."""
    out = tmp_path_factory.mktemp("wheels")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*build, "--wheel-dir", out, ROOT, ROOT / "sdk" / "python", cwd=out)
    return {path.name.partition("-")[0]: path for path in out.glob("*.whl")}


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with both wheels; what they depend on comes by way of a .pth."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    site = new_venv(folder, wheels["loom_sdk"], wheels["loom_host"])
    (site / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")
    return folder


def sizes_in(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.file_size for info in archive.infolist()}


@pytest.mark.slow
def test_the_host_wheel_holds_every_plugin_and_all_that_it_needs(wheels: dict[str, Path]) -> None:
    inside = sizes_in(wheels["loom_host"])
    for manifest in (ROOT / "plugins").glob("*/*/plugin.toml"):
        folder = manifest.parent
        for path in (manifest, *folder.glob("*.py")):
            assert f"loom_host/_bundle/{path.relative_to(ROOT).as_posix()}" in inside
    for name in (
        "_bundle/wit/plugin.wit", "profiles/voice.toml", "profiles/text.toml", "models.toml",
        "data/question.wav", "py.typed",
    ):  # fmt: skip
        assert f"loom_host/{name}" in inside
    sdk = {"c", "zig", "js/wasm"}
    for path in (p for part in sdk for p in (ROOT / "sdk" / part).glob("*.*")):
        assert f"loom_host/_bundle/{path.relative_to(ROOT / 'sdk').as_posix()}" in inside


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loom_host", "loom_sdk"])
def test_a_wheel_holds_no_tests_no_caches_and_no_binaries(
    wheels: dict[str, Path], name: str
) -> None:
    inside = sizes_in(wheels[name])
    assert f"{name}/py.typed" in inside
    tops = {file.partition("/")[0] for file in inside}
    assert {top for top in tops if not top.endswith(".dist-info")} == {name}
    for file, size in inside.items():
        assert size < MB, file
        assert not file.endswith((".wasm", ".cwasm", ".pyc", ".so")), file
        assert not {"tests", "build", "__pycache__", ".mypy_cache"} & set(Path(file).parts), file


@pytest.mark.slow
def test_the_installed_host_answers_with_its_sandboxed_tool_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    site = next(installed.glob("lib/python*/site-packages"))
    before = files_below(site)
    empty = tmp_path / "empty"
    empty.mkdir()
    loom, environment = installed / "bin" / "loom", clean_environment(tmp_path)
    text = run(loom, "demo", "--json", "--text", "what is 12 times 9?", cwd=empty, env=environment)
    report = json.loads(text)
    assert "108" in report["answer"]
    assert (report["tool"]["name"], report["tool"]["tier"]) == ("calculator.evaluate", "wasm")
    (component,) = (tmp_path / "cache").rglob("calculator_plugin-*.wasm")
    assert component.stat().st_size > MB
    assert files_below(empty) == set()
    assert files_below(site) == before


@pytest.mark.slow
def test_the_installed_host_checks_itself_and_finds_its_models(
    installed: Path, tmp_path: Path
) -> None:
    loom, environment = installed / "bin" / "loom", clean_environment(tmp_path)
    report = json.loads(run(loom, "check", "--json", cwd=tmp_path, env=environment))
    assert [f for f in report["findings"] if f["level"] == "error"] == []
    rows = json.loads(run(loom, "models", "list", "--json", cwd=tmp_path, env=environment))
    assert all(row["installed"] for row in rows if row["needed"])
    where = "import loom_host, loom_sdk; print(loom_host.__file__, loom_sdk.__file__)"
    files = run(installed / "bin" / "python", "-c", where, cwd=tmp_path, env=environment)
    assert str(ROOT) not in files


LOOK = """
import json, sys
sys.path.insert(0, {sdk!r})
before = set(sys.modules)
import loom_sdk
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_sdk_imports_nothing_outside_the_standard_library(tmp_path: Path) -> None:
    look = LOOK.format(sdk=str(ROOT / "sdk" / "python"))
    loaded = json.loads(run(sys.executable, "-I", "-S", "-c", look, cwd=tmp_path))
    tops = {name.partition(".")[0] for name in loaded}
    assert "loom_sdk" in tops
    assert tops - set(sys.stdlib_module_names) == {"loom_sdk"}


MANIFEST = """
[plugin]
id = "test/where"
version = "0.0.1"
api = "1"
type = "tool"
tier = "grpc"
tiers = ["grpc"]
entry = [{python}, "-m", "loom_sdk.serve", "where_plugin:Where"]
description = "Tells what its Python can import."

[[capability]]
name = "where.am_i"
effects = "none"
"""
PLUGIN = '''
import importlib.util

import loom_sdk
from loom_sdk import Plugin, capability


class Where(Plugin):
    @capability("where.am_i", effects="none")
    def am_i(self, ctx) -> dict:
        """Where the SDK is, and whether there is a host."""
        host = importlib.util.find_spec("loom_host") is not None
        return {"sdk": loom_sdk.__file__, "host": host}
'''
ASK = """
import asyncio, json, sys
from loom_host import Host, load_settings

async def main():
    async with Host(load_settings(None, json.loads(sys.argv[1]))) as host:
        print(json.dumps((await host.invoke("where.am_i", {})).output))

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_plugin_needs_only_the_sdk_with_grpc_to_run_as_a_child(
    installed: Path, wheels: dict[str, Path], tmp_path: Path
) -> None:
    alone = new_venv(tmp_path / "author", wheels["loom_sdk"])
    for name in SDK_BORROWS:
        (alone / name).symlink_to(DEPENDENCIES / name)
    folder = tmp_path / "plugins" / "where"
    folder.mkdir(parents=True)
    python = json.dumps(str(tmp_path / "author" / "bin" / "python"))
    (folder / "plugin.toml").write_text(MANIFEST.format(python=python))
    (folder / "where_plugin.py").write_text(PLUGIN)
    settings = {
        "host": {"plugin_paths": [str(folder.parent)]},
        "plugins": {"where": {"allow": {"provide": ["where.am_i"]}}},
    }
    answer = run(
        installed / "bin" / "python", "-c", ASK, json.dumps(settings), cwd=tmp_path,
        env=clean_environment(tmp_path),
    )  # fmt: skip
    assert json.loads(answer) == {"sdk": str(alone / "loom_sdk" / "__init__.py"), "host": False}
