"""Values drawn from a JSON Schema: at random, with a taste for the edges."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loom_host.schema_check import compiled
from loom_sdk.plugin import CapabilitySpec

TEXTS = (
    "", " ", "a", "0", "-1", "\0", "\n", "\t", "a\r\nb", "null", "nan", "é", "ß", "İ", "日本語",
    "\U0001f600", "e\u0301", "\u2028", "\u202eabc", "\ufeff", "'", '"', "\\", "%s", "{}", "../..",
    "<b>", "' OR 1=1 --", "١٢٣", "x" * 300, "\U0001f600" * 100,
)  # fmt: skip
"""What programs trip over; all of it is text that a schema may allow."""
LETTERS = "abc XYZ 019 .,-_/éß日\U0001f600"
WHOLE = (
    0, 1, -1, 2, 3, 7, 10, 100, 255, 256, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, 2**63,
    10**20,
)  # fmt: skip
BROKEN = (0.0, -0.0, 0.5, -0.5, 1e-9, 1e-300, 1.5, 1e15, 1e16, 1e300, -1e300)
FORMATS = {
    "date": ("2024-02-29", "1999-12-31", "0001-01-01"),
    "date-time": ("2024-02-29T12:00:00Z", "1999-12-31T23:59:59+14:00"),
    "time": ("00:00:00Z", "23:59:59Z"),
    "uri": ("https://example.com/", "http://[::1]:80/?q=1#x"),
    "email": ("a@example.com",),
    "uuid": ("00000000-0000-0000-0000-000000000000",),
    "ipv4": ("127.0.0.1", "255.255.255.255"),
    "ipv6": ("::1",),
}
DEEPEST = 5
TRIES = 6
"""Drawn for each that is wanted: some do not fit, or were drawn before."""
_KINDS = ("string", "integer", "number", "boolean", "null", "array", "object")


def arguments_of(spec: CapabilitySpec, count: int, seed: int) -> list[dict[str, Any]]:
    """At most `count` different ones that fit the input schema, the shortest first.

    Raises ValueError where the schema is wrong.
    """
    schema = dict(spec.input_schema or {"type": "object", "properties": {}})
    validator, dice = compiled(schema), random.Random(f"{seed} {spec.name}")
    quick = [one for one in spec.examples if not one.get("slow") and "arguments" in one]
    seeds = [one["arguments"] for one in quick]
    drawing = Drawing(schema, dice, list(_texts(seeds)))
    found: dict[str, dict[str, Any]] = {}
    for _ in range(count * TRIES):
        if len(found) >= count:
            break
        drawn = drawing.draw(schema)
        if seeds and isinstance(drawn, dict) and dice.random() < 0.3:
            drawn = dict(dice.choice(seeds)) | dict(list(drawn.items())[:1])
        if isinstance(drawn, dict) and validator.is_valid(drawn):
            found.setdefault(json.dumps(drawn, sort_keys=True), drawn)
    return [found[text] for text in sorted(found, key=lambda text: (len(text), text))]


def _texts(value: Any) -> Iterator[str]:
    """All texts of the examples: of a schema's pattern they may be the only ones known."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


class Drawing:
    """Draws values that mostly fit; whether they do is for a validator to say."""

    def __init__(self, root: Mapping[str, Any], dice: random.Random, texts: Sequence[str]) -> None:
        self._root, self._dice, self._known = root, dice, texts

    def draw(self, schema: Any, depth: int = 0) -> Any:
        dice = self._dice
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return dice.choice(list(schema["enum"]))
        kinds = schema.get("type", _implied(schema))
        kind = kinds if isinstance(kinds, str) else dice.choice(list(kinds))
        if depth > DEEPEST and kind in ("array", "object"):
            return [] if kind == "array" else {}
        return self._of_kind(kind, schema, depth)

    def _of_kind(self, kind: str, schema: Mapping[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._text(schema)
            case "integer":
                return self._whole(schema)
            case "number":
                return self._number(schema)
            case "boolean":
                return self._dice.random() < 0.5
        return None

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """One of its alternatives, with all that it refers to."""
        if not isinstance(schema, Mapping):  # `true`: anything
            return {}
        found = dict(schema)
        for _ in range(DEEPEST):
            if "$ref" in found:
                found |= _at(self._root, str(found.pop("$ref")))
            for key in ("anyOf", "oneOf"):
                if found.get(key):
                    found |= dict(self._dice.choice(found.pop(key)))
            for part in found.pop("allOf", ()):
                found |= {key: value for key, value in part.items() if key != "properties"}
                found["properties"] = {**found.get("properties", {}), **part.get("properties", {})}
        return found

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required, dice = schema.get("required", ()), self._dice
        made = {
            key: self.draw(part, depth + 1)
            for key, part in schema.get("properties", {}).items()
            if key in required or dice.random() < 0.5
        }
        more = schema.get("additionalProperties", True)
        if more is not False and dice.random() < 0.1:
            made[dice.choice(TEXTS[:12])] = self.draw(more, depth + 1)
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        most = int(schema.get("maxItems", least + 20))
        size = min(max(self._dice.choice((least, least + 1, least + 2, most)), least), most, 200)
        return [self.draw(schema.get("items", {}), depth + 1) for _ in range(size)]

    def _text(self, schema: Mapping[str, Any]) -> str:
        dice, least = self._dice, int(schema.get("minLength", 0))
        most = int(schema.get("maxLength", max(least, 1000)))
        if made := FORMATS.get(schema.get("format", "")):
            return dice.choice(made)
        ways = [*TEXTS, *self._known, "x" * least, "x" * most]
        if dice.random() < 0.5:
            text = dice.choice(ways)
        else:
            size = dice.randint(least, min(most, least + 40))
            text = "".join(dice.choices(LETTERS, k=size))
        return text.ljust(least, "x")[:most]

    def _whole(self, schema: Mapping[str, Any]) -> int:
        low, high = _bounds(schema)
        step = schema.get("multipleOf", 1)
        edges = [n for n in (*WHOLE, low, high) if n is not None and _within(n, low, high)]
        if not edges or self._dice.random() < 0.5:
            start = int(low) if low is not None else -1000
            edges = [self._dice.randint(start, int(high) if high is not None else start + 2000)]
        number = int(self._dice.choice(edges))
        return number if step == 1 else int(number // step * step)

    def _number(self, schema: Mapping[str, Any]) -> float:
        low, high = _bounds(schema)
        edges = [n for n in (*BROKEN, *WHOLE, low, high) if n is not None and _within(n, low, high)]
        if not edges or self._dice.random() < 0.5:
            start = low if low is not None else -1000.0
            return self._dice.uniform(start, high if high is not None else start + 2000.0)
        return self._dice.choice(edges)


def _implied(schema: Mapping[str, Any]) -> str | tuple[str, ...]:
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema else _KINDS


def _bounds(schema: Mapping[str, Any]) -> tuple[Any, Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    return low, high


def _within(number: float, low: Any, high: Any) -> bool:
    return (low is None or number >= low) and (high is None or number <= high)


def _at(root: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    """What a `$ref` within the schema points at; nothing where it points nowhere."""
    found: Any = root
    for part in pointer.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name, {}) if isinstance(found, Mapping) else {}
    return dict(found) if isinstance(found, Mapping) else {}
