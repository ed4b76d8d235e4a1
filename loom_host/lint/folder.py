"""The check of one plugin's folder: reads it, asks every rule."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loom_host.manifest import Manifest, parse_manifest
from loom_host.tables import read_toml
from loom_sdk.errors import LoomError, ManifestError

from .code_rules import node_findings, python_findings
from .entry_rules import entry_findings
from .finding import Finding, finding
from .folder_rules import size_findings
from .import_rules import import_findings
from .manifest_rules import manifest_findings, without_unknown
from .model_rules import model_findings
from .other_code import uses_in, without_comments
from .permission_rules import missing, unused
from .python_code import PythonCode, read_python
from .schema_rules import schema_findings
from .subject import Module, Subject, module_name, sources
from .toml_lines import TomlLines

_SDKS = ("loom.js", "loom-sdk", "loom.h", '@import("loom")')
"""By which a source shows that it uses one."""


def check_folder(folder: Path) -> list[Finding]:
    """What is wrong with a plugin, by file and line. Runs none of its code, writes nothing."""
    path = folder / "plugin.toml"
    try:
        data = read_toml(path, ManifestError)
    except ManifestError as error:
        fix = "write TOML; `loom plugin new` makes a folder with one"
        return [finding("manifest.unreadable", error.message, fix)]
    lines = TomlLines(path.read_text(encoding="utf-8"))
    data, found = without_unknown(data, lines)
    manifest = _manifest(data, path, lines, found)
    if manifest is None:
        return sorted(found)
    subject = Subject(folder, data, lines, manifest)
    found += _read(subject)
    return sorted({*found, *_ask(subject)})


def _manifest(
    data: dict[str, Any], path: Path, lines: TomlLines, found: list[Finding]
) -> Manifest | None:
    try:
        return parse_manifest(data, path)
    except (LoomError, ValueError) as error:
        told = error.message if isinstance(error, LoomError) else str(error)
        what = told.removeprefix(f"{path}").lstrip(": ")
        fix = "mend the value: docs/CONTRACT.md tells what each may be"
        found.append(finding("manifest.value", what, fix, line=_line(what, lines)))
        return None


def _line(what: str, lines: TomlLines) -> int:
    """Where a text stands that the message quotes; the first line where none does."""
    found = (lines.holding(text) for text in re.findall(r"'([^']+)'", what))
    return next(filter(None, found), 1)


def _read(subject: Subject) -> Iterator[Finding]:
    """Take up the sources; what does not compile is told."""
    for path in sources(subject.folder):
        file = path.relative_to(subject.folder).as_posix()
        if path.suffix != ".py":
            text = path.read_text(encoding="utf-8", errors="replace")
            subject.texts[file] = without_comments(text)
            continue
        try:
            tree = ast.parse(path.read_bytes(), file)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", 0) or 0
            what = getattr(error, "msg", "") or str(error) or "nested too deeply"
            yield finding("code.syntax", what, "mend it", file, line)
            continue
        name = module_name(subject.folder, path)
        subject.modules[name] = Module(file, name, tree)


def _ask(subject: Subject) -> Iterator[Finding]:
    entry = subject.manifest.entry
    python = isinstance(entry, str) and ":" in entry
    name = str(entry).rpartition(":")[2] if python else ""
    code = PythonCode()
    try:
        code = read_python(subject.modules.values(), name) if python else code
    except RecursionError:
        what, fix = "code here is nested too deeply to be read", "break the longest expression up"
        yield finding("code.syntax", what, fix, ".", sure=False)
    yield from manifest_findings(subject, code)
    yield from schema_findings(subject)
    yield from entry_findings(subject, code)
    yield from size_findings(subject.folder)
    if python and name in code.classes:
        yield from _ask_python(subject, code)
    elif not python and subject.texts:
        yield from _ask_others(subject)


def _ask_python(subject: Subject, code: PythonCode) -> Iterator[Finding]:
    yield from python_findings(subject, code)
    yield from import_findings(subject)
    yield from model_findings(subject)
    yield from missing(subject, code.uses)
    yield from unused(subject, code.uses, escapes=code.escapes or code.unsure)


def _ask_others(subject: Subject) -> Iterator[Finding]:
    uses = [use for file, text in subject.texts.items() for use in uses_in(file, text)]
    yield from node_findings(subject)
    yield from missing(subject, uses)
    entry = subject.manifest.entry
    # Without an SDK of ours, or beside sources in other languages, calls look otherwise.
    by_sdk = any(word in text for word in _SDKS for text in subject.texts.values())
    known = by_sdk and (isinstance(entry, str) or entry[0] == "node")
    yield from unused(subject, uses, escapes=not known)
