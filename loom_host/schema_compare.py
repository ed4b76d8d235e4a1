"""Where a schema in `plugin.toml` allows what the code's own, read from its hints, does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loom_sdk.constraints import types_of
from loom_sdk.errors import ManifestError
from loom_sdk.schema_refs import inlined

Schema = Mapping[str, Any]
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def input_differences(listed: Schema, said: Schema) -> list[str]:
    """What the manifest's input schema allows that the method does not take: place and reason.

    The manifest may say more: descriptions, examples, narrower limits. It must not allow what the
    method does not take, hide one of its parameters or values, or name another default.
    """
    return _compared(_wider, listed, said)


def output_differences(listed: Schema, said: Schema) -> list[str]:
    """Where what the method returns, by its hint, cannot be what the manifest promises.

    A hint that leaves open what is returned, such as `dict`, contradicts nothing.
    """
    return _compared(_other, listed, said)


def _compared(how: Callable[..., Iterator[str]], listed: Schema, said: Schema) -> list[str]:
    try:
        return list(how(inlined(listed), inlined(said), ""))
    except ManifestError as error:
        return [error.message]


def _other(listed: Schema, said: Schema, place: str) -> Iterator[str]:
    given, promised = types_of(said), types_of(listed)
    allowed = promised | ({"integer"} if "number" in promised else set())
    if given and promised and not given & allowed:
        yield _told(place, f"{' or '.join(sorted(promised))} where the code gives "
                    f"{' or '.join(sorted(given))}")  # fmt: skip
        return
    own, parts = listed.get("properties", {}), said.get("properties", {})
    closed = said.get("additionalProperties") is False
    for name in listed.get("required", ()):
        if closed and name not in parts:
            yield _told(place, f"the code gives no {name}")
    for name in parts:
        if name in own:
            yield from _other(own[name], parts[name], f"{place}/{name}".removeprefix("/"))
        elif own and listed.get("additionalProperties") is False:
            yield _told(place, f"{name} of the code is missing")
    if "items" in listed and "items" in said:
        yield from _other(listed["items"], said["items"], f"{place}/*".removeprefix("/"))


def _wider(listed: Schema, said: Schema, place: str) -> Iterator[str]:
    if not said:
        return  # takes anything
    if "anyOf" in listed:
        for option in listed["anyOf"]:
            yield from _wider(option, said, place)
    elif "anyOf" in said:
        found = [list(_wider(listed, option, place)) for option in said["anyOf"]]
        if all(found):
            yield _told(place, f"the code takes none of its options: {min(found, key=len)[0]}")
    elif "enum" in said:
        yield from _values(listed, said, place)
    elif wrong := list(_kinds(listed, said, place)):
        yield from wrong
    elif _constants(listed) is None:
        yield from _limits(listed, said, place)
        yield from _object(listed, said, place)
        yield from _items(listed, said, place)


def _told(place: str, what: str) -> str:
    return f"{place}: {what}" if place else what


def _values(listed: Schema, said: Schema, place: str) -> Iterator[str]:
    more = _constants(listed)
    if more is None:
        yield _told(place, f"the code takes one of {said['enum']} only")
    elif extra := [value for value in more if value not in said["enum"]]:
        yield _told(place, f"the code does not take {extra[0]!r}")
    elif hidden := [value for value in said["enum"] if value not in more]:
        yield _told(place, f"the code takes {hidden[0]!r} too")


def _constants(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _kinds(listed: Schema, said: Schema, place: str) -> Iterator[str]:
    wanted = _types(said)
    constants = _constants(listed)
    given = {_type_of(value) for value in constants} if constants is not None else _types(listed)
    if wanted and not given:
        yield _told(place, f"no type where the code takes {' or '.join(sorted(wanted))}")
    allowed = wanted | ({"integer"} if "number" in wanted else set())
    if wanted and (extra := given - allowed):
        told = " or ".join(sorted(wanted))
        yield _told(place, f"{sorted(extra)[0]} where the code takes {told}")


def _types(schema: Schema) -> set[str]:
    named = schema.get("type", ())
    return {named} if isinstance(named, str) else set(named)


def _type_of(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array",
             dict: "object", type(None): "null"}  # fmt: skip
    return names[type(value)]


def _limits(listed: Schema, said: Schema, place: str) -> Iterator[str]:
    for keywords, side in ((_LEAST, min), (_MOST, max)):
        for keyword in keywords:
            limit, own = said.get(keyword), listed.get(keyword)
            if limit is None:
                continue
            if own is None or side(own, limit) != limit:
                yield _told(place, f"{keyword} is {own}, in the code {limit}")
    if said.get("pattern") and "pattern" not in listed:
        yield _told(place, f"no pattern, in the code {said['pattern']}")


def _object(listed: Schema, said: Schema, place: str) -> Iterator[str]:
    own, parts = listed.get("properties", {}), said.get("properties", {})
    if said.get("additionalProperties") is False:
        for name in own.keys() - parts.keys():
            yield _told(place, f"the code has no {name}")
        if listed.get("additionalProperties") is not False:
            yield _told(place, "additionalProperties = false is missing: the code takes no others")
    for name in parts:
        if name not in own:
            yield _told(place, f"{name} of the code is missing")
            continue
        inner = f"{place}/{name}".removeprefix("/")
        yield from _wider(own[name], parts[name], inner)
        default = own[name].get("default", parts[name].get("default"))
        if default != parts[name].get("default", default):
            yield _told(inner, f"default {default!r}, in the code {parts[name]['default']!r}")
        if name in said.get("required", ()) and name not in listed.get("required", ()):
            yield _told(inner, "the code requires it")
    yield from _others(listed, said, place)


def _others(listed: Schema, said: Schema, place: str) -> Iterator[str]:
    """Entries by names that are not fixed, as of a dict."""
    names, values = said.get("propertyNames"), said.get("additionalProperties")
    inner = f"{place}/*".removeprefix("/")
    if names:
        given = listed.get("propertyNames", {"type": "string"})
        yield from _wider(given, names, f"{inner} (its name)")
    if isinstance(values, Mapping) and values:
        own = listed.get("additionalProperties", {})
        for part in (*listed.get("properties", {}).values(), own):
            if isinstance(part, Mapping):
                yield from _wider(part, values, inner)


def _items(listed: Schema, said: Schema, place: str) -> Iterator[str]:
    inner = f"{place}/*".removeprefix("/")
    if said.get("uniqueItems") and not listed.get("uniqueItems"):
        yield _told(place, "uniqueItems = true is missing, which the code needs")
    own, wanted = listed.get("prefixItems"), said.get("prefixItems")
    if wanted and own is None:
        yield _told(place, "no prefixItems, which the code has")
    for given, part in zip(own or (), wanted or (), strict=False):
        yield from _wider(given, part, inner)
    if said.get("items"):
        for part in own if own is not None else [listed.get("items", {})]:
            yield from _wider(part, said["items"], inner)
