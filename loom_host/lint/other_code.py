"""What JavaScript, C and Zig ask of their host, by the look of the calls of Loom's SDKs.

Comments are taken out first; nothing is parsed. So every use is marked as not sure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .use import Use, request_value

_TEXT = r"""["'`](?P<text>[^"'`\n]*)["'`]"""
_NEVER = r"(?!)"
_CTX = r"\b(?:ctx|context)\."
_METHOD = r"""["'`](?P<method>[A-Z]+)["'`]\s*,\s*"""
_JS = (
    ("publish", rf"{_CTX}publish\(\s*", _TEXT),
    ("invoke", rf"{_CTX}(?:invoke|stream)\(\s*", _TEXT),
    ("secrets", rf"{_CTX}secret\(\s*", _TEXT),
    ("storage", rf"{_CTX}kv\b", ""),
    ("network", rf"{_CTX}http\w*(?:\.\w+)?\(\s*", _METHOD + _TEXT),
)  # fmt: skip
_C_TEXT = r'loom_text\(\s*"(?P<text>[^"\n]*)"'
_C = (
    ("publish", r"\bloom_new_event\(\s*", _C_TEXT),
    ("publish", r"\.topic\s*=\s*", _C_TEXT),
    ("invoke", r"\bloom_call_capability\(\s*", _C_TEXT),
    ("secrets", r"\bloom_secret\(\s*", _C_TEXT),
    ("storage", r"\bloom_kv_\w+\(", ""),
    ("network", r"\bloom_http\(", _NEVER),
)
_ZIG_TEXT = r'(?:loom\.Str\.of\(\s*)?"(?P<text>[^"\n]*)"'
_ZIG = (
    ("publish", r"\.topic\s*=\s*", _ZIG_TEXT),
    ("invoke", r"\bloom\.call\(\s*", _ZIG_TEXT),
    ("secrets", r"\bloom\.secret\(\s*", _ZIG_TEXT),
    ("storage", r"\bloom\.kv\b", ""),
    ("network", r"\bloom\.http\(", _NEVER),
)
_CALLS = {".js": _JS, ".mjs": _JS, ".c": _C, ".zig": _ZIG}
"""Kind, how the call begins, and its literal argument, which some never have."""
_OFFERS = re.compile(r"""\.capability\(\s*["'](?P<text>[^"'\n]*)["']""")
_SKIPPED = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|//[^\n]*|/\*.*?\*/""", re.DOTALL
)


def without_comments(text: str) -> str:
    """The same lines, with texts kept and comments taken out."""
    return _SKIPPED.sub(lambda m: m[1] or "\n" * m[0].count("\n"), text)


def uses_in(file: str, text: str) -> Iterator[Use]:
    """Args:
    text: without comments.
    """
    suffix = file[file.rindex(".") :]
    for kind, call, literal in _CALLS.get(suffix, ()):
        for match in re.finditer(call, text):
            line = text.count("\n", 0, match.start()) + 1
            found = re.compile(literal).match(text, match.end()) if literal else None
            value = "own" if kind == "storage" else _value(kind, found)
            yield Use(kind, value, file, line, sure=False)


def _value(kind: str, found: re.Match[str] | None) -> str | None:
    if found is None:
        return None
    text, cut, _ = found["text"].partition("${")
    if kind == "network":
        return request_value(found["method"], text, whole=not cut)
    return None if cut else text.partition("@")[0]


def offers_in(file: str, text: str) -> Iterator[tuple[str, int]]:
    """Capabilities that a plugin on Node.js names, with their lines."""
    if file.endswith((".js", ".mjs")):
        for match in _OFFERS.finditer(text):
            yield match["text"], text.count("\n", 0, match.start()) + 1
