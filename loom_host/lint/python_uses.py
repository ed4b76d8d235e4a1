"""What Python code asks of its host, from its syntax tree."""

from __future__ import annotations

import ast

from .python_names import SETTING, Names, dotted
from .subject import Module
from .use import Use, request_value

_CONTEXTS = {"ctx", "_ctx", "context", "_context"}
_KINDS = {"publish": "publish", "invoke": "invoke", "stream": "invoke", "act": "invoke",
          "secret": "secrets", "http_request": "network"}  # fmt: skip
_FIRST = {"publish": "topic", "invoke": "capability", "stream": "capability", "act": "capability",
          "secret": "name"}  # fmt: skip
_TAKES = {"self", "cls", "len", "type", "isinstance", "str", "repr", "print"}


class UseReader(ast.NodeVisitor):
    """Reads one module into `uses`.

    Args:
        own: names of all functions and classes of the folder.
    """

    def __init__(self, module: Module, names: Names, own: set[str]) -> None:
        self.uses: list[Use] = []
        self.escapes = False
        """Whether a context is handed to code that is not in the folder."""
        self._file, self._names, self._own = module.file, names, own
        self._contexts = _CONTEXTS | _annotated(module.tree)
        self._called: set[int] = set()
        self.visit(module.tree)

    def _is_context(self, node: ast.expr) -> bool:
        name = node.id if isinstance(node, ast.Name) else ""
        name = node.attr if isinstance(node, ast.Attribute) else name
        return name in self._contexts

    def _is_http(self, node: ast.expr) -> bool:
        http = node.value if isinstance(node, ast.Attribute) and node.attr == "http" else None
        return http is not None and self._is_context(http)

    def _note(self, kind: str, value: str | None, node: ast.AST) -> None:
        self.uses.append(Use(kind, value, self._file, getattr(node, "lineno", 0)))

    def visit_Call(self, node: ast.Call) -> None:
        self._called.add(id(node.func))
        if isinstance(node.func, ast.Attribute):
            self._method(node, node.func)
        self._handed_on(node)
        self.generic_visit(node)

    def _method(self, node: ast.Call, func: ast.Attribute) -> None:
        if self._is_context(func.value):
            if func.attr in _FIRST:
                self._texts(_KINDS[func.attr], _argument(node, 0, _FIRST[func.attr]), node)
            elif func.attr == "http_request":
                self._request(_argument(node, 0, "method"), _argument(node, 1, "url"), node)
            elif func.attr == "require_grant":
                self._required(node)
        elif self._is_http(func.value):
            self._called.add(id(func.value))
            first = 0 if func.attr == "get_json" else 1
            method = _argument(node, 0, "method") if first else None
            self._request(method, _argument(node, first, "url"), node)
        if dotted(func) in ("os.getenv", "os.environ.get"):
            self._texts("env", _argument(node, 0, "key"), node)

    def _texts(self, kind: str, argument: ast.expr | None, node: ast.AST) -> None:
        for text in self._names.texts(argument) or [SETTING]:
            known = None if text.startswith(SETTING) else text
            self._note(kind, known.partition("@")[0] if known else None, node)

    def _request(self, method: ast.expr | None, url: ast.expr | None, node: ast.AST) -> None:
        verbs = [None] if method is None else self._names.texts(method)
        beginning, whole = self._names.beginning(url)
        for verb in verbs or ["?"]:
            value = None if verb == "?" else request_value(verb, beginning, whole)
            self._note("network", value, node)

    def _required(self, node: ast.Call) -> None:
        kinds = self._names.texts(_argument(node, 0, "kind")) or []
        for kind in kinds:
            self._texts(kind, _argument(node, 1, "value"), node)

    def _handed_on(self, node: ast.Call) -> None:
        """A context given to a function of somebody else may be used there for anything."""
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if any(self._is_context(value) for value in given):
            name = dotted(node.func).rpartition(".")[2]
            self.escapes |= name not in self._own and name not in _TAKES

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self._is_context(node.value):
            if node.attr in ("kv", "state") or node.attr.startswith("kv_"):
                self._note("storage", "own", node)
            elif node.attr == "http" and id(node) not in self._called:
                self._note("network", None, node)
            elif node.attr in _KINDS and id(node) not in self._called:
                self._note(_KINDS[node.attr], None, node)  # handed on as a function
        if dotted(node) == "os.environ" and id(node) not in self._called:
            self._note("env", None, node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if dotted(node.value) == "os.environ":
            self._called.add(id(node.value))
            if isinstance(node.ctx, ast.Load):
                self._texts("env", node.slice, node)
        self.generic_visit(node)


def _argument(node: ast.Call, position: int, name: str) -> ast.expr | None:
    if len(node.args) > position and not any(isinstance(a, ast.Starred) for a in node.args):
        return node.args[position]
    return next((k.value for k in node.keywords if k.arg == name), None)


def _annotated(tree: ast.Module) -> set[str]:
    """Names of what is annotated as a context."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            words = ast.unparse(node.annotation).replace("'", "").replace(".", " ").split()
            name = node.arg if isinstance(node, ast.arg) else dotted(node.target).rpartition(".")[2]
            if {"Context", "AsyncContext"} & set(words):
                found.add(name)
    return found
