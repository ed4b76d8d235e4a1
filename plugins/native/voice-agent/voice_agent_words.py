"""Puts a tool's result into words, and checks a model's words against it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_SPOKEN_ERROR = 160
"""Characters of a tool's error that are read aloud."""
NUMBER = re.compile(r"\d+(?:\.\d+)?")
NUMBER_COMMA = re.compile(r"(?<=\d),(?=\d{3})")


def scalars(value: Any, name: str = "result") -> Iterator[tuple[str, str]]:
    """Names and texts of the single values in a JSON value."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from scalars(part, str(key))
    elif isinstance(value, list):
        for part in value:
            yield from scalars(part, name)
    elif isinstance(value, bool):
        yield name, "yes" if value else "no"
    elif value is not None:
        yield name, str(value)


def numbers(text: str) -> set[float]:
    """The numbers written in a text, without their signs."""
    return {float(digits) for digits in NUMBER.findall(NUMBER_COMMA.sub("", text))}


def holds(answer: str, output: Any, question: str) -> bool:
    """Whether an answer names the result, and no number that is in neither data nor question.

    The result is the value under `result` where there is one, else any value.
    """
    found = list(scalars(output))
    known = numbers(" ".join(text for _, text in found)) | numbers(question)
    given = numbers(answer)
    wanted = [text for name, text in found if name == "result"] or [text for _, text in found]
    return given <= known and any(
        numbers(text) <= given
        if NUMBER.fullmatch(text.lstrip("-"))
        else text.lower() in answer.lower()
        for text in wanted
    )


def stated(output: Any) -> str:
    """A tool's result as a sentence."""
    found = list(scalars(output))
    if not found:
        return "That is done."
    if len(found) == 1 or found[0][0] == "result":
        return f"The result is {short(found[0][1])}."
    parts = [f"{name.replace('_', ' ')} is {text}" for name, text in found[:4]]
    text = short(", ".join(parts))
    return f"{text[0].upper()}{text[1:]}."


def short(text: str) -> str:
    """On one line, and no longer than somebody listens to."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_SPOKEN_ERROR else line[:MAX_SPOKEN_ERROR].rstrip() + "…"
