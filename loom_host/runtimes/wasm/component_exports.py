"""What a component exports, as functions that can be called by name with JSON.

A capability is named `PLUGIN.FUNCTION` for a function of the world itself and `INTERFACE.FUNCTION`
for one of an exported interface, in lower case: `calc.add`, and `geometry.area` for `area` in
`acme:shapes/geometry@1.2.0`, whose version becomes the capability's. Where two interfaces bear one
name, both get their package before it: `shapes.geometry.area`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wasmtime import Engine
from wasmtime.component import _types as t

from .component_types import Function, Unsupported, read_function

MAX_FUNCTIONS = 256
"""Most functions of one component that become capabilities."""
_MAX_NAME = 128
_MAX_DEPTH = 4
_CAPABILITY = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


@dataclass(frozen=True, slots=True)
class Export:
    """One exported function, or whatever else is exported under that path."""

    path: tuple[str, ...]
    """Names of the instances that it is in, then its own; `("acme:shapes/geometry", "area")`."""
    function: Function | None = None
    why_not: str = ""
    """Why it cannot be called, where `function` is None."""

    @property
    def text(self) -> str:
        return "#".join(self.path)

    @property
    def version(self) -> str:
        """Version of the interface, empty for functions of the world itself."""
        return self.path[0].partition("@")[2] if len(self.path) > 1 else ""


def exports_of(component: t.ComponentType, engine: Engine) -> list[Export]:
    """Every export but types, in the component's order."""
    return list(_walk(component.exports(engine), engine, ()))


def _walk(
    items: Mapping[str, t.ComponentExtern], engine: Engine, inside: tuple[str, ...]
) -> Iterator[Export]:
    for name, item in items.items():
        path, kind = (*inside, name), item.ty
        if isinstance(kind, t.FuncType):
            yield _function(path, kind)
        elif isinstance(kind, t.ComponentInstanceType):
            if len(path) > _MAX_DEPTH:
                yield Export(path, why_not=f"it is nested deeper than {_MAX_DEPTH}")
            else:
                yield from _walk(kind.exports(engine), engine, path)
        elif isinstance(kind, t.ComponentType | t.ModuleType):
            yield Export(path, why_not="it is code, not a function")


def _function(path: tuple[str, ...], kind: t.FuncType) -> Export:
    if path == ("exports", "init") and kind.params[:1] and kind.params[0][0] == "app-name":
        return Export(path, why_not="componentize-py runs it while it builds")
    if path[-1].startswith("["):
        return Export(path, why_not="it belongs to a resource, and a handle is no JSON")
    try:
        return Export(path, read_function(kind))
    except Unsupported as error:
        return Export(path, why_not=str(error))
    except TypeError as error:  # a kind of type that this wasmtime does not know
        return Export(path, why_not=f"its type cannot be read: {error}")


def offered(exports: list[Export], plugin: str) -> tuple[dict[str, Export], list[Export]]:
    """Capabilities of a plugin by name, and what is not offered with its reason.

    Args:
        plugin: short name of the plugin.
    """
    found: dict[str, Export] = {}
    refused = [export for export in exports if export.function is None]
    callable_ = [export for export in exports if export.function is not None]
    shorts = Counter(_name(export, plugin, 1) for export in callable_)
    for export in callable_:
        name = _name(export, plugin, 1)
        if shorts[name] > 1:
            name = _name(export, plugin, 2)
        why = _why_not(name, found)
        if why:
            refused.append(Export(export.path, why_not=why))
        else:
            found[name] = export
    return found, refused


def _why_not(name: str, found: Mapping[str, Export]) -> str:
    if name in found:
        return f"{name} is the name of {found[name].text} already"
    if len(name) > _MAX_NAME or not _CAPABILITY.fullmatch(name):
        return f"its name is no capability's name: {name[:_MAX_NAME]!r}"
    return f"it is beyond the first {MAX_FUNCTIONS}" if len(found) >= MAX_FUNCTIONS else ""


def _name(export: Export, plugin: str, packages: int) -> str:
    """`packages`: how many parts of `package/interface` go before the function's name."""
    *instances, function = export.path
    parts = [plugin] if not instances else []
    for instance in instances:
        whole = instance.partition("@")[0]
        parts += re.split("[:/]", whole)[-packages:]
    return ".".join([*parts, function]).lower()
