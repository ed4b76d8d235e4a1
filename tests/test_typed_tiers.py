"""One typed source, three tiers: the same schemas, the same instances, values and errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from loom_host import Host
from loom_sdk.errors import ActionFailed, InvalidArguments, QuotaExceeded

from .hosting import host_tables

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = ("native", "wasm", "grpc")
SAID: dict[str, str] = {}
"""What each tier said of its schemas, kept to compare."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TIERS)
async def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Host]:
    allow = {"provide": ["*"], "invoke": ["traveller.plan"]}
    folder = tmp_path_factory.mktemp(request.param)
    tables = host_tables(folder, traveller={"tier": request.param, "allow": allow})
    del tables["host"]["cache_dir"]  # a guest is built once for all tests
    (folder / "loom.toml").touch()
    async with Host.from_config(folder / "loom.toml", tables) as running:
        assert running.plugins["traveller"].state == "ready", running.plugins["traveller"].reason
        yield running


async def test_every_tier_reads_the_same_schemas_from_the_source(host: Host) -> None:
    handle = host.plugins["traveller"]
    assert handle.instance is not None
    said = {spec.name: spec for spec in handle.instance.declaration.capabilities}
    text = json.dumps(
        [[name, s.description, s.input_schema, s.output_schema] for name, s in said.items()]
    )
    SAID[handle.spec.tier] = text
    assert set(SAID.values()) == {text}
    properties = (said["traveller.plan"].input_schema or {})["properties"]
    assert properties["days"] == {
        "type": "integer", "minimum": 1, "maximum": 30, "default": 1,
        "description": "How many, at most thirty.",
    }  # fmt: skip
    assert properties["plan"] == {"$ref": "#/$defs/Plan", "description": "What there is."}
    place = (said["traveller.plan"].input_schema or {})["$defs"]["Place"]
    assert place["description"] == "A town."
    assert place["properties"]["name"] == {
        "type": "string", "minLength": 1, "pattern": "^[A-Z]",
        "description": "As its people call it.",
    }  # fmt: skip
    stages = (said["traveller.stages"].input_schema or {})["properties"]["how"]
    assert stages == {"enum": ["emit", "invoke", "wrong"], "description": "Which way."}
    sort = (said["traveller.sort"].input_schema or {})["properties"]
    assert sort["modes"]["items"] == {"enum": ["rail", "road"], "description": "How one travels."}
    assert sort["modes"]["description"] == "Which ones."


PLAN = {"start": {"name": "Ulm", "at": [48]}, "mode": "road", "marks": ["z", "b"]}


async def test_instances_go_in_and_come_out_alike(host: Host) -> None:
    answer = await host.invoke("traveller.plan", {"plan": PLAN, "days": 2.0})
    assert answer.output == {
        "start": {"name": "Ulm", "at": [48, 0.0]},
        "stops": [{"name": "Day 2", "at": [2, 0.5]}],
        "mode": "rail",
        "marks": ["Point", "b", "z"],
        "options": None,
    }
    again = await host.invoke("traveller.plan", {"plan": answer.output})
    assert again.output["mode"] == "road"


async def test_sets_enums_and_dicts_by_enum_go_through(host: Host) -> None:
    arguments = {"modes": ["road", "rail"], "sizes": {"road": 3}}
    answer = await host.invoke("traveller.sort", arguments)
    assert answer.output == [["rail", 0], ["road", 3]]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, '"start" is a required property'),
        ({"start": {"name": ""}}, "plan/start/name"),
        ({"start": {"name": "ulm"}}, "plan/start/name.*does not match"),
        ({"start": {"name": "Ulm", "at": [1, 2, 3]}}, "plan/start/at"),
        ({"start": {"name": "Ulm"}, "options": {"quiet": True, "seats": 10}}, "plan/options"),
        (
            {"start": {"name": "Ulm"}, "stops": [{"name": "Ulm"}]},
            "traveller.plan: plan: Ulm is where it starts",
        ),
    ],
)
async def test_wrong_arguments_are_refused_alike(
    host: Host, plan: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArguments, match=message):
        await host.invoke("traveller.plan", {"plan": plan})


async def test_instances_go_out_as_items_and_arguments(host: Host) -> None:
    ulm = {"name": "Ulm", "at": [48.4, 10.0]}
    items = [item.output async for item in host.stream("traveller.stages", {"how": "emit"})]
    assert items == [{"at": [ulm]}, {"wrong": ulm}]
    with pytest.raises(QuotaExceeded, match="waits for itself"):  # the broker took the arguments
        await host.invoke("traveller.stages", {"how": "invoke"})


async def test_an_answer_without_json_form_is_told_alike(host: Host) -> None:
    with pytest.raises(
        ActionFailed, match="traveller.stages returned wrong: object has no JSON form"
    ) as caught:
        await host.invoke("traveller.stages", {"how": "wrong"})
    assert caught.value.code == "NOT_JSON"
