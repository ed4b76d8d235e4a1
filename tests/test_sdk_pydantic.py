"""pydantic models in the native and grpc tiers; for wasm a refusal that names what to use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pydantic
import pytest
import pytest_asyncio

from loom_host import Host
from loom_host.runtimes.wasm.build import ensure_component
from loom_sdk.errors import InvalidArguments, ManifestError, PluginLoadError
from loom_sdk.schema import schema_of

from .hosting import PLUGINS, host_tables


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["native", "grpc"])
async def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Host]:
    table = {"tier": request.param, "allow": {"provide": ["*"]}, "sandbox": "standard"}
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "loom.toml").touch()
    tables = host_tables(folder, modeller=table)
    async with Host.from_config(folder / "loom.toml", tables) as running:
        assert running.plugins["modeller"].state == "ready", running.plugins["modeller"].reason
        yield running


ORDER = {"items": [{"name": "tea", "unitPrice": 2}], "due": "2026-12-24", "tags": ["b", "a"]}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_comes_as_an_instance_and_goes_back_as_json(host: Host) -> None:
    more = [{"name": "cup", "unitPrice": 3.5, "size": "l"}]
    answer = (await host.invoke("modeller.order", {"order": ORDER, "more": more})).output
    assert answer["items"] == [
        {"name": "tea", "unitPrice": 2.0, "size": "s"},
        {"name": "cup", "unitPrice": 3.5, "size": "l"},
    ]
    assert answer["total"] == 5.5
    assert (answer["due"], sorted(answer["tags"])) == ("2026-12-24", ["a", "b"])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"items": [{"name": "", "unitPrice": 1}]}, "order/items/0/name"),
        ({"items": [{"name": "tea"}]}, 'order/items/0: "unitPrice" is a required property'),
        ({"items": []}, "modeller.order: order/items: Value error, an order without items"),
        ({"items": [], "due": "soon"}, "modeller.order: order/items: .*; due: Input should be"),
    ],
)
async def test_wrong_values_are_told_with_their_place(
    host: Host, order: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArguments, match=message):
        await host.invoke("modeller.order", {"order": order})


@pytest.mark.asyncio(loop_scope="module")
async def test_its_schema_is_pydantics_own(host: Host) -> None:
    instance = host.plugins["modeller"].instance
    assert instance is not None
    (spec,) = instance.declaration.capabilities
    schema = dict(spec.input_schema or {})
    jsonschema_rs.meta.validate(schema)
    assert set(schema["$defs"]) == {"Order", "Item"}
    assert schema["$defs"]["Order"]["description"] == "What somebody wants."
    name = schema["$defs"]["Item"]["properties"]["name"]
    assert (name["minLength"], name["description"]) == (1, "What it is.")
    assert schema["properties"]["more"]["maxItems"] == 2
    assert schema["properties"]["more"]["description"] == "What else."
    assert "total" in (spec.output_schema or {})["properties"]
    assert "total" not in schema["$defs"]["Order"]["properties"]


@pytest.mark.soak
def test_the_wasm_build_refuses_it_and_names_what_to_use(tmp_path: Path) -> None:
    with pytest.raises(
        PluginLoadError, match="pydantic does not run in the wasm tier.*dataclass.*grpc or native"
    ):
        ensure_component(PLUGINS / "modeller", "modeller_plugin:Modeller", tmp_path)


class Node(pydantic.BaseModel):
    below: list[Node] = []


def test_a_model_that_refers_to_itself_is_refused() -> None:
    with pytest.raises(ManifestError, match="Node refers to itself"):
        schema_of(Node)


def test_the_sdk_imports_nothing_of_pydantic() -> None:
    code = "import sys, loom_sdk; print([m for m in sys.modules if 'pydantic' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
