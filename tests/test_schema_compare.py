"""A manifest's schema beside that of the code: what may differ, and what is told."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host.discovery import find_manifests, first_party_root
from loom_host.schema_compare import input_differences, output_differences
from loom_sdk.driver import load_entry
from loom_sdk.plugin import declared_capabilities
from loom_sdk.schema import schema_of
from loom_sdk.schema_refs import inlined

from .test_sdk_values import HINTS, Journey, fitting

CODE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 9},
        "units": {"enum": ["c", "f"], "default": "c"},
        "days": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "free": {},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def with_part(**parts: Any) -> dict[str, Any]:
    known = {name: part for name, part in parts.items() if part is not None}
    kept = {n: part for n, part in CODE["properties"].items() if n not in parts}
    return CODE | {"properties": kept | known}


@pytest.mark.parametrize(
    "listed",
    [
        CODE,
        with_part(city={"type": "string", "minLength": 1, "maxLength": 5, "description": "Its."}),
        with_part(city={"enum": ["Ulm", "Bonn"]}),
        with_part(days={"type": "integer", "minimum": 2, "maximum": 5}),
        with_part(free={"type": "string"}),
        with_part(tags={"type": "array", "items": {"enum": ["a"]}}),
        CODE | {"required": ["city", "units"], "examples": [{}]},
        with_part(city={"$ref": "#/$defs/City"}) | {"$defs": {"City": {"enum": ["Ulm"]}}},
    ],
)
def test_a_manifest_may_narrow_and_describe(listed: dict[str, Any]) -> None:
    assert input_differences(listed, CODE) == []


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        (with_part(city={"type": "integer"}), "city: integer where the code takes string"),
        (with_part(city={"type": "string"}), "city: maxLength is None, in the code 9"),
        (
            with_part(city={"type": "string", "maxLength": 10}),
            "city: maxLength is 10, in the code 9",
        ),
        (with_part(city={"maxLength": 5}), "city: no type where the code takes string"),
        (with_part(units={"type": "string"}), "units: the code takes one of ['c', 'f'] only"),
        (with_part(units={"enum": ["c", "k"]}), "units: the code does not take 'k'"),
        (with_part(units={"enum": ["c"]}), "units: the code takes 'f' too"),
        (
            with_part(units={"enum": ["c", "f"], "default": "f"}),
            "units: default 'f', in the code 'c'",
        ),
        (with_part(units=None), "units of the code is missing"),
        (with_part(town={"type": "string"}), "the code has no town"),
        (CODE | {"required": []}, "city: the code requires it"),
        (
            with_part(days={"type": "integer"}),
            "days: the code takes none of its options: days: minimum is None, in the code 1",
        ),
        (with_part(tags={"type": "array"}), "tags/*: no type where the code takes string"),
        (
            with_part(tags={"type": "array", "items": {"type": "number"}}),
            "tags/*: number where the code takes string",
        ),
        (
            {k: v for k, v in CODE.items() if k != "additionalProperties"},
            "additionalProperties = false is missing: the code takes no others",
        ),
        (with_part(city={"$ref": "#/$defs/None"}), "$ref '#/$defs/None' leads to nothing in $defs"),
    ],
)
def test_what_the_code_does_not_take_is_told(listed: dict[str, Any], told: str) -> None:
    assert input_differences(listed, CODE) == [told]


@pytest.mark.parametrize(
    ("hint", "listed", "told"),
    [
        (dict, {"type": "object", "required": ["text"]}, []),
        (Any, {"type": "string"}, []),
        (int, {"type": "number"}, []),
        (str, {"type": "number"}, ["number where the code gives string"]),
        (list[int], {"type": "array", "items": {"type": "string"}},
         ["*: string where the code gives integer"]),
        (Journey, {"type": "object", "required": ["price"]}, ["the code gives no price"]),
        (Journey, {"type": "object", "properties": {"days": {"type": "string"}}},
         ["days: string where the code gives integer"]),
    ],
)  # fmt: skip
def test_only_a_contradiction_of_an_answer_is_told(
    hint: Any, listed: dict[str, Any], told: list[str]
) -> None:
    assert output_differences(listed, schema_of(hint)) == told


@runs(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(HINTS, HINTS, st.data())
def test_where_nothing_is_told_the_code_takes_what_the_manifest_allows(
    one: Any, other: Any, data: st.DataObject
) -> None:
    listed, said = schema_of(one), schema_of(other)
    assert input_differences(listed, listed) == []
    assert output_differences(listed, listed) == []
    if not input_differences(listed, said):
        value = data.draw(fitting(inlined(listed)))
        assert jsonschema_rs.validator_for(said).is_valid(value)


@pytest.mark.slow  # it imports every engine
def test_first_party_manifests_agree_with_their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    for manifest in find_manifests([first_party_root()]).values():
        if not isinstance(manifest.entry, str) or ":" not in manifest.entry:
            continue
        monkeypatch.syspath_prepend(str(manifest.folder))
        try:
            said = declared_capabilities(load_entry(manifest.entry))
        except ImportError:
            continue  # an extra that is not installed
        for listed in manifest.capabilities:
            spec = said[listed.name].spec
            if listed.input_schema:
                compared += 1
                assert input_differences(listed.input_schema, spec.input_schema or {}) == []
            if listed.output_schema and spec.output_schema:
                assert output_differences(listed.output_schema, spec.output_schema) == []
    assert compared > 5
