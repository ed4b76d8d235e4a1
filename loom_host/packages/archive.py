"""The archive: a zip of stored files whose every byte follows from what is in it.

`LOOM/package.json` says what it is and lists each file with size and SHA-256; `LOOM/signature.json`
signs that. Reading builds the archive again from what was read and compares: whatever `pack` would
not write, from a flipped bit in a zip header to a second entry of one name, is refused. Nothing is
compressed, since compressors differ from version to version and a bomb needs one.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from loom_host.manifest import Manifest, load_manifest
from loom_sdk.errors import ManifestError, PluginLoadError

from .names import clash, wrong_with
from .sbom import sbom_of
from .signing import PACKAGE, Rotation, SigningKey, verify

FORMAT = 1
SUFFIX = ".loom"
MOST_FILES, MOST_BYTES = 20_000, 1 << 30
OWN = "LOOM/"
DESCRIPTION, SBOM, SIGNATURE = f"{OWN}package.json", f"{OWN}sbom.json", f"{OWN}signature.json"
LEFT_OUT = {"__pycache__", ".git", ".venv", ".hypothesis", ".pytest_cache", ".mypy_cache"}
BIN_LINKS = ("node_modules", ".bin")
"""Where npm links programs of packages, which nothing that Node imports needs."""
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip can name."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A package that was read and found whole. Its files are in memory."""

    description: Mapping[str, Any]
    files: Mapping[str, tuple[bytes, bool]]
    """Path to content, and whether it is executable."""
    key: str
    """The public key that signed it."""
    rotations: tuple[Rotation, ...]
    digest: str
    """SHA-256 of `LOOM/package.json`, which pins every file."""

    @property
    def id(self) -> str:
        return str(self.description["id"])

    @property
    def version(self) -> str:
        return str(self.description["version"])


def pack(folder: Path, key: SigningKey, rotations: tuple[Rotation, ...] = ()) -> bytes:
    """The archive of a plugin's folder: the same files and key give the same bytes.

    Raises:
        ManifestError: the manifest is wrong, says no licence, or a file may not be in a package.
    """
    manifest = load_manifest(folder / "plugin.toml")
    files = _collect(folder)
    sbom = canonical(sbom_of(manifest, {path: data for path, (data, _) in files.items()}))
    description = canonical(_describe(manifest, files, sbom))
    signature = {
        "algorithm": "ed25519",
        "key": key.public,
        "rotations": [[r.old, r.new, r.signature] for r in rotations],
        "signature": key.sign(PACKAGE, description),
    }
    return _write(description, sbom, canonical(signature), files)


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no blanks, UTF-8, a newline at its end."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def _collect(folder: Path) -> dict[str, tuple[bytes, bool]]:
    files: dict[str, tuple[bytes, bool]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if LEFT_OUT & set(inside.parts):
            continue
        if path.is_symlink() and BIN_LINKS in pairwise(inside.parts):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ManifestError(f"{path} is a link or no plain file: a package holds none")
        name = inside.as_posix()
        if path.is_file():
            if problem := wrong_with(name) or ("is the package's own" if _own(name) else ""):
                raise ManifestError(f"{path}: the name {problem}: rename it")
            files[name] = (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
    if two := clash(files):
        raise ManifestError(f"{folder}: {two} are one file to some systems: rename one")
    _check_size(len(files), sum(len(data) for data, _ in files.values()), str(folder))
    return files


def _own(name: str) -> bool:
    return name.casefold().startswith(OWN.casefold())


def _describe(
    manifest: Manifest, files: Mapping[str, tuple[bytes, bool]], sbom: bytes
) -> dict[str, Any]:
    licence_file = next((name for name in LICENCE_FILES if name in files), "")
    if not manifest.license and not licence_file:
        raise ManifestError(
            f'{manifest.folder} says no licence: add license = "..." (an SPDX name) to [plugin], '
            "or a file LICENSE"
        )
    return {
        "format": FORMAT,
        "id": manifest.id,
        "version": manifest.version,
        "description": manifest.description,
        "license": manifest.license or f"see {licence_file}",
        "tiers": list(manifest.tiers),
        "sbom": _sha256(sbom),
        "files": {
            name: {"executable": executable, "sha256": _sha256(data), "size": len(data)}
            for name, (data, executable) in files.items()
        },
    }


def _write(
    description: bytes, sbom: bytes, signature: bytes, files: Mapping[str, tuple[bytes, bool]]
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        own = [(DESCRIPTION, description), (SBOM, sbom), (SIGNATURE, signature)]
        entries = [(name, data, False) for name, data in own]
        entries += [(name, *files[name]) for name in sorted(files)]
        for name, data, executable in entries:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, whatever this is run on
            entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def read_archive(data: bytes, where: str) -> Archive:
    """The archive in `data`, once its signature, its hashes and its every byte are right.

    Raises:
        PluginLoadError: it is no package, or something about it is not as `pack` writes it; says
            what. The key is not judged here.
    """
    entries = _entries(data, where)
    for name in (DESCRIPTION, SBOM, SIGNATURE):
        if name not in entries:
            raise _refused(where, f"it has no {name}: is it a Loom package?")
    raw, sbom, signed = (entries.pop(name)[0] for name in (DESCRIPTION, SBOM, SIGNATURE))
    signature = _parsed(signed, where, SIGNATURE)
    description = _parsed(raw, where, DESCRIPTION)
    key, rotations = _check_signature(raw, signature, where)
    if description.get("format") != FORMAT:
        raise _refused(where, f"its format is {description.get('format')!r}, this host reads 1")
    _check_shape(description, where)
    _check_files(description, entries, sbom, where)
    if _write(raw, sbom, signed, entries) != data:
        raise _refused(where, "it was changed after it was packed (bytes beside its files)")
    return Archive(description, entries, key, rotations, _sha256(raw))


def _entries(data: bytes, where: str) -> dict[str, tuple[bytes, bool]]:
    files: dict[str, tuple[bytes, bool]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listed = archive.infolist()
            _check_size(len(listed), sum(entry.file_size for entry in listed), where)
            for entry in listed:
                _check_entry(entry, files, where)
                mode = entry.external_attr >> 16
                files[entry.filename] = (archive.read(entry), bool(mode & stat.S_IXUSR))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise _refused(where, f"it is no whole zip archive ({error})") from error
    if two := clash(files):
        raise _refused(where, f"{two} are one file to some systems")
    return files


def _check_entry(entry: zipfile.ZipInfo, files: Mapping[str, object], where: str) -> None:
    name, mode = entry.filename, entry.external_attr >> 16
    if problem := wrong_with(name):
        raise _refused(where, f"the name {name!r} {problem}")
    if name in files:
        raise _refused(where, f"{name!r} is in it twice")
    if stat.S_ISLNK(mode) or not stat.S_ISREG(mode):
        raise _refused(where, f"{name!r} is a link or no plain file")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise _refused(where, f"{name!r} is compressed, which packages never are")
    if entry.flag_bits & 1:
        raise _refused(where, f"{name!r} is encrypted")


def _check_shape(description: Mapping[str, Any], where: str) -> None:
    """Whoever signs can sign anything."""
    texts = [description.get(name) for name in ("id", "version", "license", "sbom")]
    files = description.get("files")
    whole = isinstance(files, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("executable"), bool)
        for entry in files.values()
    )
    if not whole or not all(isinstance(text, str) for text in texts):
        raise _refused(where, f"{DESCRIPTION} is not of the agreed form")


def _check_signature(
    raw: bytes, signature: Mapping[str, Any], where: str
) -> tuple[str, tuple[Rotation, ...]]:
    try:
        key, made = str(signature["key"]), str(signature["signature"])
        rotations = tuple(Rotation(*map(str, step)) for step in signature["rotations"])
    except (KeyError, TypeError) as error:
        raise _refused(where, f"{SIGNATURE} is not of the agreed form") from error
    if not verify(key, made, PACKAGE, raw):
        raise _refused(where, "its signature does not fit its description: it was tampered with")
    return key, rotations


def _check_files(
    description: Mapping[str, Any],
    files: Mapping[str, tuple[bytes, bool]],
    sbom: bytes,
    where: str,
) -> None:
    listed = description["files"]
    for name in files:
        if name not in listed:
            raise _refused(where, f"{name!r} is not in its signed list of files")
    for name, entry in listed.items():
        if name not in files:
            raise _refused(where, f"{name!r} is in its signed list and missing")
        if _sha256(files[name][0]) != entry["sha256"] or files[name][1] != entry["executable"]:
            raise _refused(where, f"{name!r} was changed after it was signed")
    if _sha256(sbom) != description["sbom"]:
        raise _refused(where, f"{SBOM} was changed after it was signed")


def _parsed(data: bytes, where: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
        again = canonical(value)
    except (ValueError, RecursionError) as error:  # a lone surrogate is a ValueError, too
        raise _refused(where, f"{name} is no JSON") from error
    if not isinstance(value, dict) or again != data:
        raise _refused(where, f"{name} is not written as packages write it: it was changed")
    return value


def _check_size(count: int, size: int, where: str) -> None:
    if count > MOST_FILES or size > MOST_BYTES:
        raise PluginLoadError(
            f"{where}: {count} files of {size / 1e6:.0f} MB; a package holds at most {MOST_FILES} "
            f"files of {MOST_BYTES / 1e6:.0f} MB"
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refused(where: str, why: str) -> PluginLoadError:
    return PluginLoadError(f"{where} is refused: {why}")
