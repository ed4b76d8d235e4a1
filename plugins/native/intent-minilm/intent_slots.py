"""Arguments of a tool out of a question, by the JSON Schema of its input."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from intent_durations import duration
from intent_frames import Frames
from intent_places import place
from intent_words import Word, number_at, words_of

Schema = Mapping[str, Any]


class Slots:
    """The arguments of one tool, learned from its examples once."""

    def __init__(
        self, schema: Schema, examples: Sequence[Mapping[str, Any]], ordinary: Collection[str]
    ) -> None:
        """`ordinary`: plain words that name no place; see `ordinary_words`."""
        properties = schema.get("properties")
        self._properties: dict[str, Schema] = {
            name: value
            for name, value in (properties if isinstance(properties, Mapping) else {}).items()
            if isinstance(value, Mapping)
        }
        self._required = set(schema.get("required", ()))
        self._ordinary = ordinary
        self._frames = {
            name: Frames(
                [
                    (example["question"], str(example["arguments"][name]))
                    for example in examples
                    if name in example["arguments"]
                ],
                closed=value.get("x-slot") == "sum",
            )
            for name, value in self._properties.items()
            if _kind(value) == "text"
        }

    def fill(self, text: str) -> tuple[dict[str, Any], list[str]]:
        """Arguments found, and the required ones that are not in the question."""
        words = words_of(text)
        found: dict[str, Any] = {}
        for name, schema in self._properties.items():
            required = name in self._required
            value = self._value(name, schema, text, words, required)
            if value is not None and _fits(schema, value):
                found[name] = value
        return found, sorted(self._required - set(found))

    def _value(
        self, name: str, schema: Schema, text: str, words: Sequence[Word], required: bool
    ) -> Any:
        if "const" in schema:
            return schema["const"] if required else None
        if "enum" in schema:
            return _choice(schema["enum"], text)
        slot = schema.get("x-slot", "")
        if slot == "place":
            return place(text, self._ordinary)
        if slot in _READERS:
            return _typed(schema, _READERS[slot](words))
        if schema.get("type") in ("integer", "number"):
            return _typed(schema, _number(words)) if required else None
        if _kind(schema) == "text" and (required or schema.get("x-extract")):
            return self._text(name, slot, text, words)
        return None

    def _text(self, name: str, slot: str, text: str, words: Sequence[Word]) -> str | None:
        if slot == "sum" and not any(word.is_number for word in words):
            return None
        if slot == "question":
            return text.strip(" ?!.") or None
        return self._frames[name].best(text) or None


def ordinary_words(questions: Iterable[str], values: Iterable[str]) -> set[str]:
    """Words of questions that are in none of the values, and no names by their first letter."""
    wanted = {word.plain for value in values for word in words_of(value)}
    return {
        word.plain
        for question in questions
        for at, word in enumerate(words_of(question))
        if at == 0 or not word.text[0].isupper()
    } - wanted


def _kind(schema: Schema) -> str:
    plain = schema.get("type", "string") == "string" and "enum" not in schema
    return "text" if plain and "const" not in schema else ""


def _number(words: Sequence[Word]) -> float | None:
    """The first number of the question."""
    for at in range(len(words)):
        if (found := number_at(words, at)) is not None:
            negative = at > 0 and words[at - 1].plain in ("minus", "-") and at < 2
            return -found[0] if negative else found[0]
    return None


_READERS: dict[str, Callable[[Sequence[Word]], float | None]] = {
    "duration": duration,
    "number": _number,
}


def _typed(schema: Schema, value: float | None) -> float | int | None:
    if value is not None and value.is_integer():
        return int(value)
    return None if schema.get("type") == "integer" else value


def _choice(values: Sequence[Any], text: str) -> Any:
    """The value whose words the question has; with several, the longest."""
    asked = " ".join(word.plain for word in words_of(text))
    named = [v for v in values if isinstance(v, str) and _said(v, asked)]
    return max(named, key=len, default=None)


def _said(value: str, asked: str) -> bool:
    wanted = " ".join(word.plain for word in words_of(value.replace("_", " ")))
    return bool(wanted) and f" {wanted} " in f" {asked} "


def _fits(schema: Schema, value: Any) -> bool:
    """The limits that a value read from speech can break; the broker checks the whole schema."""
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    if isinstance(value, (int, float)):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True
