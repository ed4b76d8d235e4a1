"""pydantic models as arguments and answers, where a handler uses them: native and grpc alone.

Nothing of pydantic is imported: a model brings its own methods, and a plugin without models has
no need of it. Its core is native code, which a wasm guest does not run.
"""

from __future__ import annotations

from typing import Any

REFUSED = (
    "pydantic does not run in the wasm tier (its core is native code): write a dataclass or a "
    "TypedDict, with loom_sdk.Field for limits, or run the plugin in the grpc or native tier"
)


def is_model(hint: Any) -> bool:
    """Whether it is a pydantic model (version 2)."""
    return (
        isinstance(hint, type)
        and hasattr(hint, "__pydantic_core_schema__")
        and hasattr(hint, "model_json_schema")
    )


def schema_of_model(kind: Any, answer: bool) -> dict[str, Any]:
    """Its schema as pydantic makes it."""
    mode = "serialization" if answer else "validation"
    schema: dict[str, Any] = kind.model_json_schema(mode=mode, ref_template="#/$defs/{model}")
    return schema


def load_model(kind: Any, value: Any) -> Any:
    """An instance from a JSON value, by the rules for JSON.

    Raises:
        ValueError: pydantic's, whose `errors` name each place.
    """
    import json

    return kind.model_validate_json(json.dumps(value))


def wrong_places(error: ValueError) -> list[tuple[tuple[str, ...], str]]:
    """Place and message of each error in a pydantic ValidationError; empty for any other."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return []
    return [(tuple(map(str, each["loc"])), str(each["msg"])) for each in errors()]


def json_of_model(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True)
