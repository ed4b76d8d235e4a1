"""A software bill of materials (CycloneDX 1.6, JSON) of what a plugin says it depends on.

Read from the lock and requirement files of its language; nothing is resolved over the network.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loom_host.manifest import Manifest

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.\-]*)\s*(?:\[[^\]]*\])?\s*(?:==\s*([\w.!+\-]+))?")
_GO_MODULE = re.compile(r"^\s*(?:require\s+)?([\w./\-~]+\.[\w./\-~]+)\s+(v[\w.\-+]+)", re.MULTILINE)
Found = tuple[str, str, str]
"""Kind of package URL, name, version (empty where it is open)."""


def sbom_of(manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The bill as JSON; without time or serial number, so that it is the same every time."""
    found = sorted({entry for name, data in files.items() for entry in _read(name, data)})
    wasm = [name for name in sorted(files) if name.endswith(".wasm")]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": manifest.id, "name": manifest.id,
                "version": manifest.version,
            }
        },
        "components": [_component(*entry) for entry in found]
        + [
            {
                "type": "file", "name": name,
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(files[name]).hexdigest()}],
            }
            for name in wasm
        ],
    }  # fmt: skip


def _component(kind: str, name: str, version: str) -> dict[str, Any]:
    url = f"pkg:{kind}/{name.replace('@', '%40')}" + (f"@{version}" if version else "")
    known = {"version": version} if version else {}
    return {"type": "library", "bom-ref": url, "name": name, "purl": url, **known}


def _read(path: str, data: bytes) -> Iterator[Found]:
    """What one file says; a file that cannot be read says nothing."""
    reader = _READERS.get(path.rpartition("/")[2])
    if reader is None or "node_modules/" in path:
        return
    try:
        yield from reader(data.decode())
    except (ValueError, KeyError, TypeError, AttributeError):
        return


def _requirements(text: str) -> Iterator[Found]:
    for line in text.splitlines():
        match = _REQUIREMENT.match(line.partition("#")[0])
        if match:
            yield "pypi", match[1].lower().replace("_", "-"), match[2] or ""


def _pyproject(text: str) -> Iterator[Found]:
    for line in tomllib.loads(text).get("project", {}).get("dependencies", ()):
        yield from _requirements(line)


def _package_lock(text: str) -> Iterator[Found]:
    for path, entry in json.loads(text).get("packages", {}).items():
        if path:
            yield "npm", path.rpartition("node_modules/")[2], str(entry.get("version", ""))


def _go_mod(text: str) -> Iterator[Found]:
    for name, version in _GO_MODULE.findall(text):
        yield "golang", name, version


def _cargo_lock(text: str) -> Iterator[Found]:
    for entry in tomllib.loads(text).get("package", ()):
        if "source" in entry:
            yield "cargo", entry["name"], entry["version"]


_READERS: Mapping[str, Callable[[str], Iterator[Found]]] = {
    "requirements.txt": _requirements,
    "pyproject.toml": _pyproject,
    "package-lock.json": _package_lock,
    "go.mod": _go_mod,
    "Cargo.lock": _cargo_lock,
}
