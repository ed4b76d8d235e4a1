"""The folder under check, read once: manifest, Python as trees, other sources as text."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loom_host.manifest import Manifest

from .toml_lines import TomlLines

NOT_SOURCE = {"build", "node_modules", "tests", "test", "dist"}
OTHER_SOURCES = {".js", ".mjs", ".c", ".zig"}


@dataclass(frozen=True, slots=True)
class Module:
    """One file of Python that compiles."""

    file: str
    """Relative to the folder, with `/`."""
    name: str
    """As other modules of the folder import it."""
    tree: ast.Module


@dataclass
class Subject:
    """What the rules look at."""

    folder: Path
    data: Mapping[str, Any]
    """The tables of `plugin.toml` as they stand."""
    lines: TomlLines
    manifest: Manifest
    modules: dict[str, Module] = field(default_factory=dict)
    """By name."""
    texts: dict[str, str] = field(default_factory=dict)
    """Sources in JavaScript, C and Zig, by file, without their comments."""

    def at(self, table: str, key: str, text: str = "", index: int = 0) -> int:
        """The line of a value in `plugin.toml`."""
        if text:
            return self.lines.value(table, key, text, index)
        return self.lines.key(table, key, index)


def sources(folder: Path) -> Iterator[Path]:
    """Files of code that belong to the plugin: neither its tests nor what was built."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
        if hidden or NOT_SOURCE & set(inside.parts[:-1]) or not path.is_file():
            continue
        if path.suffix == ".py" and (path.stem.startswith("test_") or path.stem == "conftest"):
            continue
        if path.suffix == ".py" or path.suffix in OTHER_SOURCES:
            yield path


def module_name(folder: Path, path: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
