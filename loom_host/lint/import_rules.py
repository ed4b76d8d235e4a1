"""What Python imports against what its tiers have and what it declares."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import tomli

from loom_host.discovery import PACKAGE

from .finding import Finding, finding
from .python_names import dotted
from .subject import Module, Subject

NOT_IN_WASM = {
    "socket": "sockets", "socketserver": "sockets", "ssl": "sockets", "select": "sockets",
    "selectors": "sockets", "asyncio": "an event loop", "urllib.request": "sockets",
    "http.client": "sockets", "http.server": "sockets", "smtplib": "sockets", "ftplib": "sockets",
    "subprocess": "processes", "multiprocessing": "processes", "pty": "processes",
    "concurrent.futures": "threads", "_thread": "threads", "ctypes": "native libraries",
    "mmap": "memory maps", "sqlite3": "native libraries", "curses": "a terminal",
}  # fmt: skip
"""Modules of the standard library that a wasm guest imports in vain, and what they need."""
_THREADS = {"Thread", "Timer"}


@dataclass(frozen=True, slots=True)
class Import:
    name: str
    file: str
    line: int
    certain: bool
    """At the top of a module, not within a `try` or a function."""


def import_findings(subject: Subject) -> Iterator[Finding]:
    own = {name.partition(".")[0] for name in subject.modules} | _packages(subject.folder)
    wasm = "wasm" in subject.manifest.tiers
    declared = _declared(subject.folder)
    told = set[str]()
    for item in (i for module in subject.modules.values() for i in imports_of(module)):
        top = item.name.partition(".")[0]
        if item.name in told or top in own:
            continue
        told.add(item.name)
        if wasm and (why := _not_in_wasm(subject, item.name, top)):
            yield _tier(subject, item, why)
        elif top not in sys.stdlib_module_names and not _is_declared(top, declared):
            what = f"imports {top}, which nothing here declares"
            fix = "name it in a requirements.txt or pyproject.toml, or copy it into the folder"
            yield finding("import.undeclared", what, fix, item.file, item.line)
    if wasm:
        for module in subject.modules.values():
            yield from _threads(module)


def _tier(subject: Subject, item: Import, why: str) -> Finding:
    sure = item.certain and subject.manifest.tier == "wasm"
    fix = "do without it, or leave wasm out of tiers"
    what = f"imports {item.name} in the wasm tier: {why}"
    return finding("import.tier", what, fix, item.file, item.line, sure=sure)


def _not_in_wasm(subject: Subject, name: str, top: str) -> str:
    if top == "loom_sdk":
        part = name.partition(".")[2].partition(".")[0]
        return f"loom_sdk.{part} is not in a guest" if part and part not in _guest_sdk() else ""
    for module in (name, top):
        if module in NOT_IN_WASM:
            return f"a guest has no {NOT_IN_WASM[module]}"
    if top in sys.stdlib_module_names:
        return ""
    if _is_native(top):
        return "it is compiled for this machine, which a guest cannot load"
    return "a guest holds what is in the folder, and nothing that is installed"


@cache
def _guest_sdk() -> frozenset[str]:
    from loom_host.runtimes.wasm.build_python import PythonBuilder

    return frozenset(path.stem for root, path in PythonBuilder().sources(PACKAGE / "profiles"))


def _threads(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        named = isinstance(node, ast.ImportFrom) and node.module == "threading"
        names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
        used = isinstance(node, ast.Attribute) and dotted(node) in {
            f"threading.{name}" for name in _THREADS
        }
        if used or (named and names & _THREADS):
            line = getattr(node, "lineno", 0)
            what, fix = "starts a thread in the wasm tier: a guest has one", "do without it"
            yield finding("import.tier", what, fix, module.file, line, sure=False)


def imports_of(module: Module) -> Iterator[Import]:
    """Absolute imports that happen when it runs, in the order of the source."""
    yield from _imports(module.tree.body, module.file, True)


def _imports(body: list[ast.stmt], file: str, certain: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, file, node.lineno, certain) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module:
                yield from _from(node, file, certain)
        elif not (isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING")):
            inner = certain and isinstance(node, ast.ClassDef | ast.With)
            for name in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(node, name, []), file, inner)
            for handler in getattr(node, "handlers", []):
                yield from _imports(handler.body, file, False)


def _from(node: ast.ImportFrom, file: str, certain: bool) -> Iterator[Import]:
    assert node.module is not None
    if node.module == "loom_sdk":  # `from loom_sdk import models` names a module, too
        for alias in node.names:
            if alias.name.islower() and not _exported(alias.name):
                yield Import(f"loom_sdk.{alias.name}", file, node.lineno, certain)
    else:
        yield Import(node.module, file, node.lineno, certain)


def _exported(name: str) -> bool:
    import loom_sdk

    return name in loom_sdk.__all__


def _packages(folder: Path) -> set[str]:
    """What lies in the folder and can be imported from there."""
    return {path.name for path in folder.iterdir() if path.is_dir()} | {
        path.name.partition(".")[0] for path in folder.glob("*.so")
    }


def _declared(folder: Path) -> set[str]:
    """Normal names of the distributions that the plugin says it needs."""
    found = {"loom-sdk", *_requirements(_brought_by("loom-sdk"))}
    for path in sorted(folder.glob("requirements*.txt")):
        found |= _requirements(path.read_text(encoding="utf-8", errors="replace").splitlines())
    for parent in (folder, *list(folder.resolve().parents)[:3]):
        if (parent / "pyproject.toml").is_file():
            found |= _of_project(parent / "pyproject.toml")
            break
    return _with_theirs(found)


def _with_theirs(names: set[str]) -> set[str]:
    """Those, and what the installed ones among them bring along."""
    found, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _requirements(line for line in _brought_by(name) if "extra ==" not in line)
    return found


@cache
def _brought_by(name: str) -> tuple[str, ...]:
    try:
        return tuple(metadata.requires(name) or ())
    except metadata.PackageNotFoundError:
        return ()


def _of_project(path: Path) -> set[str]:
    try:
        project = tomli.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return set()
    lists = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
    return _requirements(line for lines in lists for line in lines)


def _requirements(lines: Iterable[object]) -> set[str]:
    matches = (re.match(r"\s*([A-Za-z0-9][\w.-]*)", str(line)) for line in lines)
    return {_normal(match[1]) for match in matches if match}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_declared(top: str, declared: set[str]) -> bool:
    if top in ("loom_sdk", "loom_host"):
        return True
    return bool({_normal(name) for name in (top, *_distributions().get(top, ()))} & declared)


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _is_native(top: str) -> bool:
    """Whether an installed distribution of that module holds compiled code."""
    for name in _distributions().get(top, ()):
        files = metadata.files(name) or ()
        if any(path.suffix in (".so", ".pyd", ".dylib") for path in files):
            return True
    return False
