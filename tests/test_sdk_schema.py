"""Type hints and docstrings -> JSON Schema; what the schema takes, the method takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional, TypedDict

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_sdk import Context, Plugin, Result, capability
from loom_sdk.errors import ManifestError
from loom_sdk.plugin import declared_capabilities
from loom_sdk.schema import coercions, description, input_schema, output_schema, schema_of


@dataclass
class Place:
    city: str
    tags: list[str] = field(default_factory=list)


class Options(TypedDict, total=False):
    depth: int


TABLE: list[tuple[Any, dict[str, Any]]] = [
    (str, {"type": "string"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (type(None), {"type": "null"}),
    (Any, {}),
    (list, {"type": "array"}),
    (dict, {"type": "object"}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (Sequence[str], {"type": "array", "items": {"type": "string"}}),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    (
        tuple[int, str],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        },
    ),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    (Mapping[str, Any], {"type": "object", "additionalProperties": {}}),
    (Literal["a", "b"], {"enum": ["a", "b"]}),
    (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
    (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    (Annotated[int, "How many.", {"minimum": 0}, 5], {
        "type": "integer", "description": "How many.", "minimum": 0,
    }),
    (Place, {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": False,
        "required": ["city"],
    }),
    (Options, {
        "type": "object", "properties": {"depth": {"type": "integer"}},
        "additionalProperties": False,
    }),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "schema"), TABLE, ids=[str(row[0]) for row in TABLE])
def test_schema_of(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == schema
    jsonschema_rs.validator_for(schema)


@pytest.mark.parametrize("hint", [object, bytes, set[int], complex, Plugin])
def test_what_has_no_json_form_is_told(hint: Any) -> None:
    with pytest.raises(ManifestError, match="no JSON Schema for"):
        schema_of(hint)


HINTS = st.recursive(
    st.sampled_from([str, int, float, bool, type(None), Any]),
    lambda inner: st.one_of(
        inner.map(lambda h: list[h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: dict[str, h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: tuple[h, ...]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: tuple[h, h]),  # type: ignore[valid-type]  # built at run time
        inner.map(lambda h: Optional[h]),  # noqa: UP045
    ),
    max_leaves=5,
)


@runs(max_examples=50, deadline=None)
@given(HINTS)
def test_every_schema_is_a_valid_schema(hint: Any) -> None:
    jsonschema_rs.meta.validate(schema_of(hint))


class Weather(Plugin):
    @capability("weather.get", effects="none")
    def get(
        self, ctx: Context, city: str, place: Place, units: Literal["c", "f"] = "c",
        days: int | None = None, free: Any = 1,
    ) -> dict[str, float]:  # fmt: skip
        """Current weather
        for a city.

        More words.

        Args:
            city: Its name.
            days: How many
                to look ahead.

        Returns:
            A table.
        """
        return {}

    def bare(self, ctx: Context):  # type: ignore[no-untyped-def]  # it is the case
        return None

    def raw(self, ctx: Context) -> Result:
        return Result()


def test_input_schema() -> None:
    schema = input_schema(Weather.get)
    assert schema["required"] == ["city", "place"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert list(properties) == ["city", "place", "units", "days", "free"]
    assert properties["city"] == {"type": "string", "description": "Its name."}
    assert properties["units"] == {"enum": ["c", "f"], "default": "c"}
    assert properties["days"]["description"] == "How many"
    assert "default" not in properties["days"]
    assert properties["free"] == {"default": 1}
    assert input_schema(Weather.bare) == {
        "type": "object", "properties": {}, "additionalProperties": False,
    }  # fmt: skip


def test_output_schema() -> None:
    assert output_schema(Weather.get) == schema_of(dict[str, float])
    assert output_schema(Weather.bare) is None
    assert output_schema(Weather.raw) is None


def test_description_is_the_first_paragraph_on_one_line() -> None:
    assert description(Weather.get) == "Current weather for a city."
    assert description(Weather.bare) == ""


def test_coercions_build_dataclasses() -> None:
    ((name, build),) = coercions(Weather.get).items()
    assert (name, build({"city": "Ulm"})) == ("place", Place("Ulm"))


def test_a_declared_capability_carries_all_of_it() -> None:
    bound = declared_capabilities(Weather)["weather.get"]
    assert (bound.spec.description, bound.spec.effects) == ("Current weather for a city.", "none")
    assert bound.spec.input_schema == input_schema(Weather.get)
    assert bound.spec.output_schema == output_schema(Weather.get)
