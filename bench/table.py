"""Rows of the benchmark table: made, judged and printed in one way."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypedDict


class Row(TypedDict):
    """One line of `bench/results.json`."""

    name: str
    value: float | None
    unit: str
    peer: str
    ratio: float | None
    target: str
    met: bool | None


def row(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    peer: str = "",
    floors: Sequence[float] = (),
    target: float | None = None,
    at_least: bool = False,
) -> Row:
    """The median of `values`, and of their ratios to `floors` taken in the same rounds.

    `target` bounds the ratio where there are floors, else the value. It is met only when the
    worse quartile meets it.
    """
    ratios = [value / floor for value, floor in zip(values, floors, strict=False)]
    judged = ratios or list(values)
    met = None
    if target is not None:
        low, _, high = statistics.quantiles(judged, n=4, method="inclusive")
        met = low >= target if at_least else high <= target
    return {
        "name": name,
        "value": round(statistics.median(values), 3),
        "unit": unit,
        "peer": peer,
        "ratio": round(statistics.median(ratios), 3) if ratios else None,
        "target": "" if target is None else f"{'>=' if at_least else '<='} {target:g}",
        "met": met,
    }


def show(rows: Sequence[Row]) -> None:
    """Print the table, as wide as its content."""
    met = {True: "met", False: "not met", None: ""}
    table = [("name", "value", "unit", "peer", "ratio", "target", "met")]
    for r in rows:
        ratio = "" if r["ratio"] is None else str(r["ratio"])
        cells = (r["name"], str(r["value"]), r["unit"], r["peer"], ratio, r["target"])
        table.append((*cells, met[r["met"]]))
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())
