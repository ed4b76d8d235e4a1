"""A module of Python with a typed method for each capability, for `def` and `async def` alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .layout import INDENT, argument_lines, docstring
from .python_types import Types, camel, is_name
from .wanted import Offered

HEAD = '''"""Typed calls of the capabilities that a plugin invokes.

Made from their manifests by `loom plugin stubs`: make it anew instead of editing it.
"""

from __future__ import annotations

'''
_NAMES = ("Capabilities", "AsyncCapabilities", "AsyncContext", "Context")
_RESERVED = {"self", "arguments", "output"}
_CLASS = '''class {prefix}Capabilities:
    """What {methods} methods call. An argument that is None is left out.

    Args:
        payload, content_type: binary that goes with each call.
        timeout_ms: longest time of each call; as long as the caller has where None.
    """

    def __init__(
        self,
        ctx: {prefix}Context,
        *,
        payload: bytes = b"",
        content_type: str = "",
        timeout_ms: int | None = None,
    ) -> None:
        self._ctx = ctx
        self._options: dict[str, Any] = {{
            "payload": payload,
            "content_type": content_type,
            "timeout_ms": timeout_ms,
        }}

    {define} _call(
        self,
        capability: str,
        arguments: Any,
    ) -> Any:
        result = {wait}self._ctx.invoke(capability, arguments, **self._options)
        return result.output
'''


def module_of(wanted: Sequence[Offered]) -> str:
    """The source. The same manifests give the same text."""
    types = Types(_NAMES)
    types.typing.add("Any")
    methods = [_Method(offered, name, types) for name, offered in _named(wanted)]
    parts = [*types.definitions]
    for prefix, define, wait, told in (
        ("", "def", "", "`def`"),
        ("Async", "async def", "await ", "`async def`"),
    ):
        head = _CLASS.format(prefix=prefix, define=define, wait=wait, methods=told)
        parts.append("\n".join([head, *(method.text(define, wait) for method in methods)]))
    imports = f"from typing import {', '.join(sorted(types.typing))}\n\n"
    sdk = "from loom_sdk import AsyncContext, Context\n"
    return HEAD + imports + sdk + "".join(f"\n\n{part}" for part in parts)


def _named(wanted: Sequence[Offered]) -> list[tuple[str, Offered]]:
    """Each with the name of its method; of two that would be one, the second gets a number."""
    names: dict[str, Offered] = {}
    for offered in sorted(wanted, key=lambda item: item.spec.name):
        name = offered.spec.name.replace(".", "_").replace("-", "_")
        name = name if is_name(name) else f"_{name}"
        free, number = name, 2
        while free in names:
            free, number = f"{name}_{number}", number + 1
        names[free] = offered
    return list(names.items())


class _Method:
    """One capability; its types are defined when it is made."""

    def __init__(self, offered: Offered, name: str, types: Types) -> None:
        spec = offered.spec
        self._offered, self._name = offered, name
        self._schema: Mapping[str, Any] | None = spec.input_schema
        properties: Mapping[str, Any] = (spec.input_schema or {}).get("properties") or {}
        self._whole = ""
        """The type of all arguments at once, where they cannot be parameters."""
        self._rows: list[tuple[str, str, bool]] = []
        base, root = camel(spec.name), spec.input_schema or {}
        if not all(is_name(key) and key not in _RESERVED for key in properties):
            self._whole = types.typed_dict(root, f"{base}Arguments", root)
        elif spec.input_schema is None or not (properties or _is_closed(root)):
            self._whole = "dict[str, Any] | None = None"
        else:
            required = set(root.get("required", ()))
            rows = [
                (key, types.of(value, base + camel(key), root), key in required)
                for key, value in properties.items()
            ]
            self._rows = sorted(rows, key=lambda row: not row[2])
        output = spec.output_schema
        self._output = "Any" if output is None else types.of(output, f"{base}Output", output)

    def text(self, define: str, wait: str) -> str:
        deep, deeper = INDENT, INDENT * 2
        parameters = "".join(f"{deeper}{line},\n" for line in self._parameters())
        sections = [f"`{self._offered.spec.name}` of {self._offered.by}."]
        if rows := self._documented():
            sections.append(argument_lines(rows))
        told = self._offered.spec.description or f"Call {self._offered.spec.name}."
        return (
            f"{deep}{define} {self._name}(\n{parameters}{deep}) -> {self._output}:\n"
            f"{docstring(told, deeper, sections)}{self._body(wait)}"
        )

    def _parameters(self) -> list[str]:
        if self._whole:
            return ["self", f"arguments: {self._whole}"]
        lines = ["self"] + (["*"] if self._rows else [])
        for key, kind, required in self._rows:
            lines.append(f"{key}: {kind}" if required else f"{key}: {_optional(kind)} = None")
        return lines

    def _documented(self) -> list[tuple[str, str]]:
        properties = (self._schema or {}).get("properties") or {}
        described = [(key, properties[key].get("description")) for key, *_ in self._rows
                     if isinstance(properties[key], Mapping)]  # fmt: skip
        return [(key, str(text)) for key, text in described if text]

    def _body(self, wait: str) -> str:
        deep, deeper = INDENT * 2, INDENT * 3
        lines = [] if self._whole else self._gathered(deep, deeper)
        call = f'{wait}self._call(\n{deeper}"{self._offered.spec.name}",\n'
        call += f"{deeper}arguments,\n{deep})"
        if self._output == "Any":
            return "".join([*lines, f"{deep}return {call}\n"])
        return "".join([*lines, f"{deep}output: {self._output} = {call}\n{deep}return output\n"])

    def _gathered(self, deep: str, deeper: str) -> list[str]:
        needed = [f'{deeper}"{key}": {key},\n' for key, _, required in self._rows if required]
        given = f"{{\n{''.join(needed)}{deep}}}" if needed else "{}"
        lines = [f"{deep}arguments: dict[str, Any] = {given}\n"]
        for key, _, required in self._rows:
            if not required:
                lines.append(f'{deep}if {key} is not None:\n{deeper}arguments["{key}"] = {key}\n')
        return lines


def _is_closed(schema: Mapping[str, Any]) -> bool:
    """Whether it takes no argument at all."""
    return schema.get("additionalProperties") is False


def _optional(kind: str) -> str:
    return kind if kind == "Any" or kind.endswith("None") else f"{kind} | None"
