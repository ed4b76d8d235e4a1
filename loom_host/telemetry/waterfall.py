"""A trace as text: what `loom trace last` prints."""

from __future__ import annotations

from collections.abc import Sequence

from .spans import Span

NAME_MAX = 36
"""Columns for the indented name."""
_PARTS = " ▏▎▍▌▋▊▉█"


def tree(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Depth and span, parents before children, siblings by start.

    A span whose parent is not among them counts as a root.
    """
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda s: s.start_ns):
        parent = span.parent_id if span.parent_id in known - {span.span_id} else ""
        children.setdefault(parent, []).append(span)
    found: list[tuple[int, Span]] = []
    stack = [(0, span) for span in reversed(children.pop("", []))]
    while stack:
        depth, span = stack.pop()
        found.append((depth, span))
        stack += [(depth + 1, child) for child in reversed(children.pop(span.span_id, []))]
    # Only a circle of parents, which a faulty child process may send, leaves some over.
    return found + [(0, span) for rest in children.values() for span in rest]


def waterfall(spans: Sequence[Span], width: int = 100) -> list[str]:
    """One line per span: name indented by depth, a bar in time, milliseconds, the error if any.

    Args:
        width: columns of a line without its error text; at least 60 are used.
    """
    if not spans:
        return []
    rows = tree(spans)
    begin = min(span.start_ns for span in spans)
    total = max(1, max(span.end_ns for span in spans) - begin)
    column = min(NAME_MAX, max(2 * depth + len(span.name) for depth, span in rows))
    bar = max(60, width) - column - 14
    lines = []
    for depth, span in rows:
        name = ("  " * depth + span.name)[:column].ljust(column)
        drawn = _bar((span.start_ns - begin) / total, span.duration_ns / total, bar)
        error = f"  ! {span.error.splitlines()[0]}" if span.error else ""
        lines.append(f"{name} {drawn} {span.duration_ns / 1e6:9.1f} ms{error}")
    return lines


def _bar(start: float, length: float, columns: int) -> str:
    """A bar at least an eighth of a column wide, `columns` characters with its padding."""
    left = min(columns - 1, int(start * columns))
    eighths = max(1, min(round(length * columns * 8), (columns - left) * 8))
    drawn = "█" * (eighths // 8) + _PARTS[eighths % 8].strip()
    return (" " * left + drawn).ljust(columns)
