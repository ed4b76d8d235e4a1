"""Packages: reproducible, and refused wherever a single bit is not as it was signed."""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.packages import pack, read_archive
from loom_host.packages.archive import DESCRIPTION, SBOM, SIGNATURE, canonical
from loom_host.packages.names import clash, wrong_with
from loom_host.packages.signing import PACKAGE, Rotation, heir, verify
from loom_sdk.errors import ConfigError, ManifestError, PluginLoadError

from .parcels import entries_of, greeter, key, link, parcel, rezipped


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("packages")
    return pack(greeter(folder / "src"), key(folder))


def refused(data: bytes) -> str:
    with pytest.raises(PluginLoadError) as caught:
        read_archive(data, "it.loom")
    assert "it.loom" in caught.value.message
    return caught.value.message


# -- the same bytes


def test_the_same_files_give_the_same_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    signer = key(tmp_path)
    source = greeter(tmp_path / "here")
    (source / "data").mkdir()
    (source / "data" / "b.bin").write_bytes(bytes(range(256)))
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o700)
    first = pack(source, signer)
    copy = tmp_path / "elsewhere" / "deep"
    shutil.copytree(source, copy)
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "greeter.pyc").write_bytes(b"stale")
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    assert pack(copy, signer) == first
    files = read_archive(first, "it").files
    assert files["run.sh"][1]
    assert not files["greeter.py"][1]
    assert not any("__pycache__" in name for name in files)


def test_the_description_has_licence_hashes_and_a_bill_of_materials(whole: bytes) -> None:
    archive = read_archive(whole, "it")
    assert (archive.id, archive.version) == ("acme/greeter", "1.0.0")
    assert archive.description["license"] == "MIT"
    bill = json.loads({e.filename: d for e, d in entries_of(whole)}[SBOM])  # type: ignore[union-attr]
    assert bill["bomFormat"] == "CycloneDX"
    assert [part["purl"] for part in bill["components"]] == [
        "pkg:pypi/numpy", "pkg:pypi/requests@2.32.0"
    ]  # fmt: skip


def test_a_plugin_without_a_licence_is_not_packed(tmp_path: Path) -> None:
    source = greeter(tmp_path / "src")
    manifest = source / "plugin.toml"
    manifest.write_text(manifest.read_text().replace('license = "MIT"', ""))
    with pytest.raises(ManifestError, match="says no licence: add license"):
        pack(source, key(tmp_path))
    (source / "LICENSE").write_text("do what you like")
    archive = read_archive(pack(source, key(tmp_path)), "it")
    assert archive.description["license"] == "see LICENSE"


def test_links_and_odd_names_are_not_packed(tmp_path: Path) -> None:
    source = greeter(tmp_path / "src")
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(ManifestError, match="link"):
        pack(source, key(tmp_path))
    (source / "link").unlink()
    programs = source / "build" / "node_modules" / ".bin"  # npm makes it, and Node needs none of it
    programs.mkdir(parents=True)
    (programs / "tool").symlink_to("../tool/main.js")
    assert not any(".bin" in name for name in read_archive(pack(source, key(tmp_path)), "it").files)
    (source / "what?.txt").write_text("")
    with pytest.raises(ManifestError, match="rename it"):
        pack(source, key(tmp_path))
    (source / "what?.txt").unlink()
    (source / "GREETER.py").write_text("")
    with pytest.raises(ManifestError, match="one file to some systems"):
        pack(source, key(tmp_path))


# -- tampering


def test_no_bit_can_be_flipped(whole: bytes) -> None:
    chance = random.Random(7)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        refused(bytes(damaged))


@pytest.mark.parametrize("length", [0, 1, 21, 100, -1, -22])
def test_a_part_of_a_package_is_none(whole: bytes, length: int) -> None:
    refused(whole[:length])


def test_nothing_can_be_added(whole: bytes) -> None:
    refused(whole + b"\0")
    refused(b"#!/bin/sh\n" + whole)
    entries = entries_of(whole)
    assert "not in its signed list" in refused(rezipped([*entries, ("more.py", b"import os")]))
    assert "missing" in refused(rezipped(entries[:-1]))


def test_each_kind_of_tampering_has_its_own_message(whole: bytes) -> None:
    entries = {e.filename: d for e, d in entries_of(whole)}  # type: ignore[union-attr]

    def with_(name: str, data: bytes) -> str:
        return refused(rezipped(list((entries | {name: data}).items())))

    assert "'greeter.py' was changed after it was signed" in with_("greeter.py", b"import os")
    assert "sbom.json was changed" in with_(SBOM, b"{}\n")
    described = json.loads(entries[DESCRIPTION]) | {"version": "2.0.0"}
    assert "signature does not fit" in with_(DESCRIPTION, canonical(described))
    assert "is no JSON" in with_(DESCRIPTION, b"nonsense")
    assert "not written as packages write it" in with_(SIGNATURE, entries[SIGNATURE] + b" ")
    assert "not of the agreed form" in with_(SIGNATURE, b"{}\n")
    assert "is it a Loom package?" in refused(rezipped([("a.txt", b"x")]))


def test_what_a_signer_may_write_is_still_checked(tmp_path: Path) -> None:
    signer = key(tmp_path)
    entries = {e.filename: d for e, d in entries_of(pack(greeter(tmp_path / "src"), signer))}  # type: ignore[union-attr]
    described = json.loads(entries[DESCRIPTION])
    changes: list[dict[str, Any]] = [
        {"files": []}, {"files": {"a": 1}}, {"id": 7}, {"sbom": None}, {"license": []}
    ]  # fmt: skip
    for change in changes:
        raw = canonical(described | change)
        signed = json.loads(entries[SIGNATURE]) | {"signature": signer.sign(PACKAGE, raw)}
        forged = entries | {DESCRIPTION: raw, SIGNATURE: canonical(signed)}
        assert "not of the agreed form" in refused(rezipped(list(forged.items())))
    broken = entries | {DESCRIPTION: b'{"a":"\\ud800"}\n'}
    assert "is no JSON" in refused(rezipped(list(broken.items())))


# -- tricks with zips


@pytest.mark.parametrize(
    "name",
    ["../up.py", "/etc/cron", "a/../../b", "a\\b", "c:evil", "a//b", "nul.txt", "x. ", "a\x01b", "e\u0301.py"],  # noqa: E501
)  # fmt: skip
def test_names_that_lead_elsewhere(whole: bytes, name: str) -> None:
    assert repr(name)[1:-1][:3] in refused(rezipped([*entries_of(whole), (name, b"x")]))


def test_links_doubles_bombs_and_clashes(whole: bytes) -> None:
    entries = entries_of(whole)
    assert "link" in refused(rezipped([*entries, (link("greet"), b"/etc/passwd")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        double = rezipped([*entries, ("greeter.py", b"import os")])
    assert "twice" in refused(double)
    bomb = rezipped([*entries, ("zeros", bytes(50_000_000))], zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(bomb)
    assert "one file to some systems" in refused(rezipped([*entries, ("Greeter.py", b"")]))
    assert "one file to some systems" in refused(rezipped([*entries, ("greeter.py/x", b"")]))


def test_a_size_that_lies_is_refused_before_it_is_read(whole: bytes) -> None:
    central = bytearray(whole)
    place = central.rindex(b"PK\x01\x02")
    central[place + 20 : place + 28] = (0xF0000000).to_bytes(4, "little") * 2
    assert "holds at most" in refused(bytes(central))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_package_or_refused(data: bytes) -> None:
    refused(data)


@given(st.text(max_size=30))
def test_a_name_that_is_taken_stays_in_its_folder(name: str) -> None:
    if not wrong_with(name):
        inside = (Path("/root/of/it") / name).resolve()
        assert inside.is_relative_to("/root/of/it")
        assert inside != Path("/root/of/it")
        assert not clash([name])


# -- keys


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    key(tmp_path)
    path = tmp_path / "key"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="cannot be had back"):
        type(key(tmp_path)).create(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        key(tmp_path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="no Ed25519 key"):
        key(tmp_path)


def test_a_signature_is_for_one_purpose(tmp_path: Path) -> None:
    signer = key(tmp_path)
    made = signer.sign(b"one\n", b"data")
    assert verify(signer.public, made, b"one\n", b"data")
    assert not verify(signer.public, made, b"two\n", b"data")
    assert not verify(signer.public, made, b"one\n", b"date")
    assert not verify("", "", b"one\n", b"data")


def test_keys_hand_over_in_a_chain(tmp_path: Path) -> None:
    a, b, c, other = (key(tmp_path, name) for name in "abco")
    steps = [a.hand_over(b.public), b.hand_over(c.public)]
    assert heir(a.public, steps) == [a.public, b.public, c.public]
    assert heir(b.public, steps) == [b.public, c.public]
    assert heir(other.public, steps) == [other.public]
    forged = Rotation(a.public, other.public, other.hand_over(other.public).signature)
    with pytest.raises(PluginLoadError, match="not signed by the old key"):
        heir(a.public, [forged])
    assert parcel(tmp_path, a).is_file()
