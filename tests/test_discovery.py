"""Discovery: manifests are found without loading code; a hash tells whether code changed."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from loom_host import discovery
from loom_host.discovery import (
    code_hash,
    find_manifests,
    find_named,
    first_party_root,
    installed_roots,
    is_first_party,
    problems,
)
from loom_sdk.errors import ConfigError, ManifestError

MANIFEST = """
[plugin]
id = "{id}"
version = "1"
api = "1"
type = "tool"
tier = "native"
entry = "{module}:P"
"""


def write(folder: Path, id: str = "a/p", module: str = "not_to_be_loaded") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.toml").write_text(MANIFEST.format(id=id, module=module))
    (folder / f"{module}.py").write_text("raise SystemExit('plugin code was loaded')\n")
    return folder


def test_three_depths_and_no_code_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "here", "a/one")
    write(tmp_path / "root" / "two", "a/two")
    write(tmp_path / "root" / "native" / "three", "a/three")
    write(tmp_path / "root" / "native" / "too" / "deep", "a/four")
    found = find_manifests([tmp_path / "here", tmp_path / "root"])
    assert set(found) == {"one", "two", "three"}
    assert "not_to_be_loaded" not in sys.modules


def test_one_folder_named_twice_is_one_plugin(tmp_path: Path) -> None:
    write(tmp_path / "p")
    assert set(find_manifests([tmp_path, tmp_path / "p"])) == {"p"}


def test_two_plugins_of_one_name_are_told(tmp_path: Path) -> None:
    write(tmp_path / "x", "a/p")
    write(tmp_path / "y", "b/p")
    with pytest.raises(ConfigError, match=r"two plugins are called 'p'.*rename one"):
        find_manifests([tmp_path])


def test_a_host_reads_no_more_manifests_than_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write(tmp_path / "own", "a/own")
    installed = write(tmp_path / "installed", "b/far")
    looks: list[Path] = []

    def look() -> list[Path]:
        looks.append(installed)
        return [installed]

    monkeypatch.setattr(discovery, "installed_roots", look)
    assert set(find_named({"vad", "own"}, [own])) == {"vad", "own"}
    assert not looks
    assert {"vad", "own", "far", "wake-phrase"} <= set(find_named({"far"}, [own]))
    write(tmp_path / "own" / "vad", "a/vad")
    with pytest.raises(ConfigError, match="two plugins are called 'vad'"):
        find_named({"vad"}, [own])


def test_a_first_party_folder_bears_the_name_of_its_plugin() -> None:
    for name, manifest in find_manifests([first_party_root()]).items():
        assert manifest.folder.name == name


def test_a_missing_root_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mend host\.plugin_paths"):
        find_manifests([tmp_path / "nowhere"])


def test_problems_lists_what_find_would_raise(tmp_path: Path) -> None:
    write(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "plugin.toml").write_text("[plugin]\nid = 1\n")
    with pytest.raises(ManifestError):
        find_manifests([tmp_path])
    (message,) = problems([tmp_path])
    assert "bad/plugin.toml" in message


def test_the_hash_follows_names_and_contents(tmp_path: Path) -> None:
    folder = write(tmp_path / "p")
    first = code_hash(folder)
    assert first.startswith("sha256:")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"1")
    (folder / "build").mkdir()
    (folder / "build" / "p.wasm").write_bytes(b"1")
    assert code_hash(folder) == first
    data = folder / "data.txt"
    data.write_text("1")
    second = code_hash(folder)
    data.rename(folder / "other.txt")
    third = code_hash(folder)
    (folder / "other.txt").write_text("2")
    assert len({first, second, third, code_hash(folder)}) == 4


def test_first_party_is_by_place_not_by_name(tmp_path: Path) -> None:
    stranger = find_manifests([write(tmp_path / "vad", "loom/vad")])["vad"]
    assert not is_first_party(stranger)
    assert all(map(is_first_party, find_manifests([first_party_root()]).values()))


def test_a_bundle_beside_the_package_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "loom_host"
    monkeypatch.setattr(discovery, "PACKAGE", package)
    assert discovery.bundle("plugins") == tmp_path / "plugins"
    (package / "_bundle" / "plugins").mkdir(parents=True)
    assert discovery.bundle("plugins") == package / "_bundle" / "plugins"


def test_installed_plugins_are_located_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme_plugins"
    write(package / "weather", "acme/weather")
    (package / "__init__.py").write_text("raise SystemExit('the package was imported')\n")
    points = [metadata.EntryPoint("weather", "acme_plugins.weather", discovery.ENTRY_POINTS)]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_roots() == [package / "weather"]
    assert set(find_manifests(installed_roots())) == {"weather"}
    points[0] = metadata.EntryPoint("gone", "acme_gone", discovery.ENTRY_POINTS)
    with pytest.raises(ConfigError, match="package acme_gone is missing"):
        installed_roots()
