"""What a docstring tells: a summary and the parameters, in Google, NumPy or reST style.

Small on purpose: it is part of every wasm guest and of every child's start.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

_GOOGLE = re.compile(r"(\w[\w ]*):\s*$")
_GOOGLE_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)")
_UNDERLINE = re.compile(r"\s*[-=]{3,}\s*$")
_NUMPY_ENTRY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_REST = re.compile(r":(\w+)(?:\s+([^:]*))?:\s*(.*)")
_NAMED = {"args", "arguments", "params", "parameters", "other parameters", "attributes",
          "keyword args", "keyword arguments"}  # fmt: skip
_OTHER = {"returns", "return", "yields", "yield", "raises", "raise", "example", "examples",
          "note", "notes", "see also", "warns", "warnings", "references", "todo"}  # fmt: skip
_REST_NAMED = {"param", "parameter", "arg", "argument", "key", "keyword", "attribute", "var",
               "ivar", "cvar"}  # fmt: skip


def text_of(thing: Any) -> str:
    """The docstring, unindented; empty where Python wrote it or there is none."""
    if not isinstance(thing, type):
        return inspect.getdoc(thing) or ""
    text = vars(thing).get("__doc__")
    if not isinstance(text, str) or text.startswith((f"{thing.__name__}(", "An enumeration.")):
        return ""  # a dataclass's or named tuple's signature
    return inspect.cleandoc(text)


def summary(text: str) -> str:
    """The first paragraph on one line, without what tells of parameters."""
    lines: list[str] = []
    all_lines = text.strip().split("\n")
    for number, line in enumerate(all_lines):
        heads = bool(lines) and _heads(all_lines, number)
        if not line.strip() or heads or _REST.match(line):
            break
        lines.append(line)
    return " ".join(" ".join(lines).split())


def parameters(text: str) -> dict[str, str]:
    """Name to description, each on one line."""
    found: dict[str, str] = {}
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if number and _UNDERLINE.match(line) and lines[number - 1].strip().lower() in _NAMED:
            found |= _numpy(lines[number + 1 :])
        elif (head := _GOOGLE.match(line)) and head[1].lower() in _NAMED:
            found |= _google(lines[number + 1 :])
        elif (field := _REST.match(line)) and field[1] in _REST_NAMED and field[2]:
            more = _indented(lines[number + 1 :])
            found[field[2].split()[-1].lstrip("*\\")] = _joined([field[3], *more])
    return {name: words for name, words in found.items() if words}


def _heads(lines: list[str], number: int) -> bool:
    """Whether a section begins here."""
    head = _GOOGLE.match(lines[number])
    if head and head[1].lower() in _NAMED | _OTHER:
        return True
    follows = number + 1 < len(lines) and bool(_UNDERLINE.match(lines[number + 1]))
    return follows and lines[number].strip().lower() in _NAMED | _OTHER


def _indented(lines: list[str], deeper_than: int = 0) -> list[str]:
    """The lines up to the first that is not, or is empty."""
    block: list[str] = []
    for line in lines:
        if not line.strip() or _depth(line) <= deeper_than:
            break
        block.append(line)
    return block


def _google(lines: list[str]) -> dict[str, str]:
    """Entries indented below `Args:`; empty lines may be between them."""
    found: dict[str, str] = {}
    depth = next((_depth(line) for line in lines if line.strip()), 0)
    for number, line in enumerate(lines):
        if line.strip() and (not depth or _depth(line) < depth):
            break
        entry = _GOOGLE_ENTRY.match(line.strip())
        if entry and line.strip() and _depth(line) == depth:
            more = _indented(lines[number + 1 :], depth)
            found[entry[1]] = _joined([entry[2], *more])
    return found


def _numpy(lines: list[str]) -> dict[str, str]:
    """`name : type` at the margin, its text indented below; ends at the next heading."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        if number + 1 < len(lines) and _UNDERLINE.match(lines[number + 1]):
            break
        entry = _NUMPY_ENTRY.match(line)
        if entry and _depth(line) == 0:
            words = _joined(_indented(lines[number + 1 :]))
            found |= {name.strip(" *"): words for name in entry[1].split(",")}
    return found


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
