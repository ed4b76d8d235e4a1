"""More examples out of few: the same wording around other wanted words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

EACH = 1
"""New examples out of one."""
_TEXT = """
the blue folder is in the drawer
my sister arrives on Tuesday
we parked near the church
order new filters
how bridges are built
the train to the airport
paint for the kitchen
old coins
tickets for the theatre
the neighbour has the ladder
learning the guitar
the password starts with a seven
"""
PHRASES = _TEXT.strip().splitlines()
"""What people note, look for and send, in general; with and without a verb."""


def varied(entry: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Questions with one free text exchanged; sums, places and the like stay as they are."""
    properties = (entry.get("input_schema") or {}).get("properties", {})
    free = [
        name
        for name, schema in properties.items()
        if schema.get("x-extract") and schema.get("x-slot", "rest") == "rest"
    ]
    for row, example in enumerate(examples):
        question = str(example["question"])
        for name in free:
            value = str(example["arguments"].get(name, ""))
            at = question.lower().find(value.lower()) if value else -1
            for turn in range(EACH if at >= 0 else 0):
                phrase = PHRASES[(EACH * row + turn) % len(PHRASES)]
                yield question[:at] + phrase + question[at + len(value) :]
