"""JSON Schema as Python's types: TypedDicts, Literals, unions."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .layout import INDENT, WIDTH, docstring

LONG = 48
"""Characters of a type from which on it gets a name of its own."""
_PLAIN = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
}  # fmt: skip


class Types:
    """The definitions of one module, in the order in which they are needed."""

    def __init__(self, taken: Sequence[str] = ()) -> None:
        self.definitions: list[str] = []
        self.typing: set[str] = set()
        """Names that the module imports from `typing`."""
        self._names = set(taken)
        self._references: dict[tuple[int, str], str] = {}
        self._open: set[str] = set()
        """TypedDicts whose own fields are being told, so that their names are not there yet."""

    def of(self, schema: Any, name: str, root: Mapping[str, Any]) -> str:
        """The type of a value.

        Args:
            name: of the class, where it needs one.
            root: the whole schema, which `$ref` looks into.
        """
        if not isinstance(schema, Mapping) or not schema:
            return self._any()
        if isinstance(reference := schema.get("$ref"), str):
            return self._reference(reference, name, root)
        if "const" in schema:
            return self._literal([schema["const"]], name)
        if isinstance(values := schema.get("enum"), list):
            return self._literal(values, name)
        for key in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(key), list):
                return self._union([self.of(o, name, root) for o in options], name)
        kind = schema.get("type")
        if isinstance(kind, list):
            each = [{**schema, "type": one} for one in kind]
            return self._union([self.of(one, name, root) for one in each], name)
        return self._typed(kind, schema, name, root)

    def _typed(self, kind: Any, schema: Mapping[str, Any], name: str, root: Any) -> str:
        if kind == "array":
            return self._array(schema, name, root)
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, name, root)
        return _PLAIN.get(kind, "") or self._any()

    def _any(self) -> str:
        self.typing.add("Any")
        return "Any"

    def _array(self, schema: Mapping[str, Any], name: str, root: Mapping[str, Any]) -> str:
        first = schema.get("prefixItems")
        if isinstance(first, list):
            items = [self.of(item, name + "Item", root) for item in first]
            return f"list[{self._union(items, name + 'Item')}]"
        return f"list[{self.of(schema.get('items'), name + 'Item', root)}]"

    def _object(self, schema: Mapping[str, Any], name: str, root: Mapping[str, Any]) -> str:
        if schema.get("properties"):
            return self.typed_dict(schema, name, root)
        more = schema.get("additionalProperties")
        value = self.of(more, name + "Value", root) if isinstance(more, Mapping) else self._any()
        return f"dict[str, {value}]"

    def _reference(self, reference: str, name: str, root: Mapping[str, Any]) -> str:
        key = (id(root), reference)
        if key in self._references:
            return self._references[key]
        target: Any = root
        for part in reference.removeprefix("#").strip("/").split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            target = target.get(part) if isinstance(target, Mapping) and part else target
        if not reference.startswith("#") or not isinstance(target, Mapping):
            return self._any()
        if target.get("properties"):
            own = self._free(name if target is root else name + camel(reference))
            self._references[key] = own
            return self.typed_dict(target, own, root, named=True)
        self._references[key] = self._any()  # of a type without fields that holds itself
        self._references[key] = self.of(target, name, root)
        return self._references[key]

    def typed_dict(
        self, schema: Mapping[str, Any], name: str, root: Mapping[str, Any], named: bool = False
    ) -> str:
        """Define it; its name."""
        own = name if named else self._free(name)
        required = set(schema.get("required", ()))
        self._open.add(own)
        rows = []
        for key, value in schema["properties"].items():
            text = self.of(value, own + camel(key), root)
            if key not in required:
                text = f"NotRequired[{text}]"
                self.typing.add("NotRequired")
            rows.append((key, text))
        self._open.discard(own)
        self.typing.add("TypedDict")
        self.definitions.append(_class(own, rows, str(schema.get("description", ""))))
        return own

    def _literal(self, values: list[Any], name: str) -> str:
        if not all(isinstance(v, str | bool | int | None) for v in values) or not values:
            kinds = [{str: "str", float: "float", bool: "bool", int: "int", type(None): "None"}
                     .get(type(v), "") or self._any() for v in values]  # fmt: skip
            return self._union(kinds, name) if kinds else self._any()
        self.typing.add("Literal")
        texts = list(dict.fromkeys(_text(value) for value in values))
        line = f"Literal[{', '.join(texts)}]"
        if len(line) <= LONG:
            return line
        own = self._free(name)
        rows = "".join(f"{INDENT}{text},\n" for text in texts)
        self.definitions.append(f"{own} = Literal[\n{rows}]\n")
        return own

    def _union(self, options: list[str], name: str) -> str:
        parts = list(dict.fromkeys(part for option in options for part in _parts(option)))
        if "Any" in parts or not parts:
            return self._any()
        parts.sort(key=lambda part: part == "None")
        text = " | ".join(parts)
        if len(text) <= LONG:
            return text
        own = f"{name}Union"
        whole = f"{own} = {text}\n"
        if len(whole) > WIDTH or any(word in self._open for word in re.findall(r"\w+", text)):
            return self._any()
        if whole not in self.definitions:
            self._names.add(own)
            self.definitions.append(whole)
        return own

    def _free(self, name: str) -> str:
        free, number = name, 2
        while free in self._names:
            free, number = f"{name}{number}", number + 1
        self._names.add(free)
        return free


def camel(text: str) -> str:
    """`given-name` as `GivenName`; what is no letter or digit falls out."""
    words = re.findall(r"[A-Za-z0-9]+", text.removeprefix("#").replace("$defs", ""))
    return "".join(word[0].upper() + word[1:] for word in words)


def is_name(text: str) -> bool:
    """Whether it can be a parameter or a field of a class."""
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text)


def _parts(text: str) -> list[str]:
    """Members of a union; one with brackets is left as it is."""
    return text.split(" | ") if "[" not in text else [text]


def _text(value: Any) -> str:
    """As source: JSON's text is Python's, where it is no true, false or null."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """A type in quotes, since the name may not be there yet."""
    return repr(text) if '"' in text else f'"{text}"'


def _class(name: str, rows: list[tuple[str, str]], description: str) -> str:
    plain = all(is_name(key) and not key.startswith("__") for key, _ in rows)
    if not plain:
        fields = "".join(f"{INDENT * 2}{_text(key)}: {_quoted(text)},\n" for key, text in rows)
        return f'{name} = TypedDict(\n{INDENT}"{name}",\n{INDENT}{{\n{fields}{INDENT}}},\n)\n'
    told = docstring(description, INDENT) + "\n" if description else ""
    fields = "".join(f"{INDENT}{key}: {text}\n" for key, text in rows)
    return f"class {name}(TypedDict):\n{told}{fields}"
