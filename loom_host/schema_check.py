"""JSON Schemas of plugins, compiled: they come from strangers, so that they reach nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def compiled(schema: Mapping[str, Any]) -> Any:
    """A validator of jsonschema_rs.

    Raises:
        ValueError: the schema is wrong, or its `$ref` leads out of it: left to itself the library
            reads files and fetches addresses for that, with all that the host may.
    """
    import jsonschema_rs

    return jsonschema_rs.validator_for(dict(schema), retriever=_refuse)


def _refuse(uri: str) -> Any:
    raise ValueError(f"a $ref must stay within the schema, not lead to {uri}")
