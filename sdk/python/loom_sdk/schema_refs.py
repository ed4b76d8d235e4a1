"""`$ref` and `$defs` of a schema, and the place that an error about one is told with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import ManifestError

_TABLES = ("$defs", "definitions")


def inlined(schema: Mapping[str, Any], *, finite: bool = True) -> dict[str, Any]:
    """The same schema without `$ref`, for where it becomes a part of another.

    Args:
        finite: whether to refuse what refers to itself; anything goes in its place otherwise.

    Raises:
        ManifestError: a `$ref` leads back to itself, or out of the schema.
    """
    root = {key: part for key, part in schema.items() if key not in _TABLES}
    found: dict[str, Any] = _inlined(root, _Tables(schema, finite), ())
    return found


class _Tables:
    """What the references of one schema lead to."""

    def __init__(self, schema: Mapping[str, Any], finite: bool) -> None:
        self.finite = finite
        self._targets = {
            f"#/{table}/{name}": part
            for table in _TABLES
            for name, part in schema.get(table, {}).items()
        }

    def find(self, reference: str) -> Any:
        if reference in self._targets:
            return self._targets[reference]
        if self.finite:
            raise ManifestError(f"$ref {reference!r} leads to nothing in $defs")
        return {}


def _inlined(value: Any, tables: _Tables, within: tuple[str, ...]) -> Any:
    if isinstance(value, list | tuple):
        return [_inlined(part, tables, within) for part in value]
    if not isinstance(value, Mapping):
        return value
    rest = {key: _inlined(part, tables, within) for key, part in value.items()}
    reference = rest.get("$ref")
    if not isinstance(reference, str):
        return rest
    del rest["$ref"]
    if reference in within:
        if tables.finite:
            raise refers_to_itself(reference.rpartition("/")[2])
        return rest
    return _inlined(tables.find(reference), tables, (*within, reference)) | rest


def refers_to_itself(name: str) -> ManifestError:
    return ManifestError(
        f"{name} refers to itself, and schemas here are finite, for models and forms to read: "
        "give the inner one as dict[str, Any], or as a list of rows"
    )


@contextmanager
def named(method: Callable[..., Any], parameter: str = "") -> Iterator[None]:
    """Errors about a hint begin with where it stands."""
    try:
        yield
    except ManifestError as error:
        place = f"{method.__qualname__}({parameter})" if parameter else method.__qualname__
        raise ManifestError(f"{place}: {error.message}") from error
