"""All that is known of a folder's Python: what it offers, hears, uses and imports."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .python_names import Names, dotted
from .python_uses import UseReader
from .subject import Module
from .use import Use

BASES = {"Plugin", "Agent"}
_MARKS = {"tool", "capability", "on_event"}


@dataclass(frozen=True, slots=True)
class Offer:
    """A method that is marked as a capability."""

    file: str
    line: int
    effects: str | None
    """None where the mark says none, or not in plain text."""
    documented: bool


@dataclass
class PythonCode:
    """Of one folder."""

    classes: dict[str, tuple[Module, ast.ClassDef]] = field(default_factory=dict)
    """By name; those at the top of a module."""
    offers: dict[str, Offer] = field(default_factory=dict)
    hears: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Topic to file and line."""
    uses: list[Use] = field(default_factory=list)
    escapes: bool = False
    """Whether a context is handed to code that is not in the folder."""
    unsure: bool = False
    """Whether marks were seen whose text cannot be told, or a base that is not in the folder."""
    dynamic: bool = False
    """Whether it tells what it offers only when it runs (`offers`)."""


def read_python(modules: Iterable[Module], entry: str) -> PythonCode:
    """Args:
    entry: name of the plugin's class; the marks of it and its bases count.
    """
    modules, code = list(modules), PythonCode()
    names = Names(modules)
    own = {
        node.name
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef):
                code.classes[node.name] = (module, node)
        reader = UseReader(module, names, own)
        code.uses += reader.uses
        code.escapes |= reader.escapes
    for kind in lineage(code, entry):
        _read_marks(code, *code.classes[kind], names)
    return code


def lineage(code: PythonCode, name: str) -> Iterator[str]:
    """The class and those of its bases that are in the folder; others make it `unsure`."""
    seen, waiting = set[str](), [name]
    while waiting:
        kind = waiting.pop()
        if kind in seen or kind in BASES | {"object", "ABC"}:
            continue
        seen.add(kind)
        if kind not in code.classes:
            code.unsure = True
            continue
        yield kind
        waiting += [dotted(base).rpartition(".")[2] for base in code.classes[kind][1].bases]


def is_plugin(code: PythonCode, name: str) -> bool:
    """Whether the class descends from the SDK's, or from what is not in the folder."""
    for kind in lineage(PythonCode(classes=code.classes), name):
        for base in code.classes[kind][1].bases:
            word = dotted(base).rpartition(".")[2]
            foreign = word not in code.classes and not hasattr(builtins, word) and word != "ABC"
            if word in BASES or foreign:
                return True
    return False


def _read_marks(code: PythonCode, module: Module, kind: ast.ClassDef, names: Names) -> None:
    for node in kind.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        code.dynamic |= node.name == "offers"
        for mark in node.decorator_list:
            word = dotted(mark.func).rpartition(".")[2] if isinstance(mark, ast.Call) else ""
            if isinstance(mark, ast.Call) and word in _MARKS:
                _read_mark(code, module, node, mark, word, names)


def _read_mark(
    code: PythonCode,
    module: Module,
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    mark: ast.Call,
    word: str,
    names: Names,
) -> None:
    given = {keyword.arg: keyword.value for keyword in mark.keywords}
    texts = names.texts(mark.args[0] if mark.args else given.get("name") or given.get("topic"))
    if texts is None or len(texts) != 1:
        code.unsure = True
    elif word == "on_event":
        code.hears.setdefault(texts[0], (module.file, mark.lineno))
    else:
        effects = names.texts(given["effects"]) if "effects" in given else None
        documented = ast.get_docstring(node) is not None
        said = effects[0] if effects else None
        code.offers.setdefault(texts[0], Offer(module.file, mark.lineno, said, documented))
