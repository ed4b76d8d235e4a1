"""Runs one piece of Python in this process and reports how it went; nothing is kept.

    python -I -S python_eval_runner.py REPORT FOLDERS WARM < request

REPORT is the descriptor that the report goes to, as JSON. FOLDERS are put on the path, as JSON.
WARM names modules to import before the request is there. The request is JSON: code, chars
(longest value), memory (bytes).
"""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import os
import resource
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

FILE = "<code>"


def run(code: str, chars: int) -> dict[str, Any]:
    """Execute `code` in a fresh namespace; the value of a last expression, or the error."""
    linecache.cache[FILE] = (len(code), None, code.splitlines(keepends=True), FILE)
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    try:
        body, last = _parts(ast.parse(code, FILE))
        exec(compile(body, FILE, "exec"), space)
        if last is None:
            return {}
        value = eval(compile(last, FILE, "eval"), space)
        return {} if value is None else _described(value, chars)
    except SystemExit as error:
        return {} if error.code in (None, 0) else {"error": _failure(error)}
    except BaseException as error:
        return {"error": _failure(error)}


def _parts(tree: ast.Module) -> tuple[ast.Module, ast.Expression | None]:
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return tree, None
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    return tree, ast.Expression(last.value)


def _described(value: Any, chars: int) -> dict[str, Any]:
    """The value as JSON where it has one, else only its repr, cut to `chars`."""
    text = repr(value)
    found: dict[str, Any] = {"repr": text[:chars]}
    if len(text) > chars:
        found["cut"] = True
    with suppress(TypeError, ValueError, RecursionError):
        plain = value.tolist() if type(value).__module__ == "numpy" else value
        if len(json.dumps(plain, allow_nan=False)) <= chars:
            found["value"] = plain
    return found


def _failure(error: BaseException) -> dict[str, Any]:
    """Type, message, and the line of the code in which it happened."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == FILE]
    line = frames[-1].lineno if frames else None
    if isinstance(error, SyntaxError) and error.filename == FILE:
        line = error.lineno
    shown = traceback.format_exception_only(error)
    if frames:
        shown = ["Traceback (most recent call last):\n", *traceback.format_list(frames), *shown]
    message = getattr(error, "msg", None) if isinstance(error, SyntaxError) else str(error)
    return {
        "type": type(error).__name__, "message": str(message)[:2000], "line": line,
        "traceback": "".join(shown)[-4000:],
    }  # fmt: skip


def _limit(memory: int) -> None:
    for kind, value in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _warm(modules: Iterable[str]) -> None:
    for name in modules:
        with suppress(ImportError):
            __import__(name)


def main() -> None:
    sys.path[:] = [*sys.path[1:], *json.loads(sys.argv[2])]
    _warm(json.loads(sys.argv[3]))
    request = json.loads(sys.stdin.buffer.read())
    _limit(request["memory"])
    report = run(request["code"], request["chars"])
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    text = json.dumps(report).encode("utf-8", "replace")
    with os.fdopen(int(sys.argv[1]), "wb") as channel:
        channel.write(text)
    os._exit(0)  # whatever threads the code has started


if __name__ == "__main__":
    main()
