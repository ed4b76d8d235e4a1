"""Texts that can be told from Python without running it: literals, constants, their joins."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from .subject import Module

SETTING = "\0setting/"
"""Begins what stands for a value of the plugin's settings, followed by the key."""


class Names:
    """Constants of all modules of one folder. A name with two values has none."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self._texts: dict[str, str | None] = {}
        for module in modules:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Module | ast.ClassDef):
                    self._take(node.body)

    def _take(self, body: list[ast.stmt]) -> None:
        for node in body:
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                targets, value = [node.target], node.value
            for target in targets:
                for name, text in _pairs(target, value):
                    known = self._texts.get(name, text)
                    self._texts[name] = text if known == text else None

    def texts(self, node: ast.expr | None) -> list[str] | None:
        """What the expression may be; None where it cannot be told."""
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else None
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            text = self._texts.get(name)
            return None if text is None else [text]
        if isinstance(node, ast.IfExp):
            both = self.texts(node.body), self.texts(node.orelse)
            return None if None in both else [text for texts in both for text in texts or ()]
        if key := setting(node):
            return [SETTING + key]
        return None

    def beginning(self, node: ast.expr | None) -> tuple[str | None, bool]:
        """How a text begins, and whether that is all of it."""
        if isinstance(node, ast.JoinedStr):
            text = ""
            for part in node.values:
                value = part.value if isinstance(part, ast.FormattedValue) else part
                known = self.texts(value)
                if known is None or len(known) > 1 or known[0].startswith(SETTING):
                    return text or None, False
                text += known[0]
            return text, True
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.beginning(node.left)[0], False
        known = self.texts(node)
        if known is None or len(known) > 1 or known[0].startswith(SETTING):
            return None, False
        return known[0], True


def _pairs(target: ast.expr, value: ast.expr) -> Iterable[tuple[str, str | None]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=False):
            yield from _pairs(one, its)
    elif isinstance(target, ast.Name):
        text = value.value if isinstance(value, ast.Constant) else None
        yield target.id, text if isinstance(text, str) else None


def setting(node: ast.expr | None) -> str:
    """The key of `self.config["key"]` or `self.config.get("key")`, else empty."""
    holder: ast.expr | None = None
    key: ast.expr | None = None
    if isinstance(node, ast.Subscript):
        holder, key = node.value, node.slice
    elif isinstance(node, ast.Call) and dotted(node.func).endswith(".get") and node.args:
        assert isinstance(node.func, ast.Attribute)
        holder, key = node.func.value, node.args[0]
    of_config = isinstance(holder, ast.Attribute) and holder.attr == "config"
    if of_config and isinstance(key, ast.Constant) and isinstance(key.value, str):
        return key.value
    return ""


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""
