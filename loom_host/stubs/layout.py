"""How generated Python is laid out: as `ruff format` leaves it, at 88 columns and above."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

INDENT = "    "
WIDTH = 88


def docstring(text: str, indent: str, sections: Sequence[str] = ()) -> str:
    """A docstring with its indent and last line end.

    Args:
        sections: further paragraphs, as they are but for the indent.
    """
    words = " ".join(_safe(text).split())
    room = WIDTH - len(indent)
    if not sections and len(words) <= room - 6:
        return f'{indent}"""{words}"""\n'
    first = textwrap.wrap(words, room, initial_indent='"""')
    lines = [*first]
    for section in sections:
        lines += ["", *_safe(section).splitlines()]
    body = "".join(f"{indent}{line}".rstrip() + "\n" for line in lines)
    return f'{body}{indent}"""\n'


def argument_lines(rows: Sequence[tuple[str, str]]) -> str:
    """An `Args:` section."""
    lines = ["Args:"]
    for name, text in rows:
        words = " ".join(f"{name}: {text}".split())
        deep = INDENT * 2
        lines += textwrap.wrap(
            words, WIDTH - len(deep), initial_indent=INDENT, subsequent_indent=deep
        )
    return "\n".join(lines)


def _safe(text: str) -> str:
    """That neither ends the docstring nor escapes anything in it."""
    plain = text.replace("\\", "\\\\").replace('"""', "'''")
    return plain + "." if plain.endswith('"') else plain
