"""`loom plugin stubs`: the client it writes is typed, laid out as ruff does, and calls rightly."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints, is_typeddict

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy import api

from loom_host.cli.main import main
from loom_host.manifest import parse_manifest
from loom_host.stubs import Offered, known_offers, module_of, wanted_by
from loom_sdk import AsyncContext, Context, Plugin, capability
from loom_sdk.plugin import CapabilitySpec
from loom_sdk.testing import FakeHost, real_host

from .docs_runner import blocks_of
from .support import ROOT

FIRST = ("calculator.*", "weather.*", "notes.*", "units.*")
SHOP = r'''
[[capability]]
name = "shop.order"
description = 'Order "things" from C:\new, as in """this""".'
input = { type = "object", properties = { note = { type = "string" }, lines = { type = "array", items = { "$ref" = "#/$defs/line" } }, size = { enum = ["s", "m", "l", 1, true] }, colour = { enum = ["aquamarine", "burlywood", "chartreuse", "darkolivegreen"] }, to = { type = ["string", "null"] } }, required = ["lines", "size"], additionalProperties = false, "$defs" = { line = { type = "object", properties = { item = { type = "string" }, count = { type = "integer" }, inner = { "$ref" = "#/$defs/line" } }, required = ["item"] } } }
output = { type = "object", properties = { total = { type = "number" }, state = { const = "ordered" }, by = { anyOf = [ { type = "object", properties = { name = { type = "string" } } }, { type = "null" } ] }, "due-date" = { type = "string" }, pair = { type = "array", prefixItems = [ { type = "string" }, { type = "integer" } ] }, prices = { type = "object", additionalProperties = { type = "number" } } }, required = ["total", "state"] }

[[capability]]
name = "shop.re-order"
input = { type = "object", properties = { from = { type = "string" }, self = { type = "integer" } }, required = ["from"] }
output = { type = "array", items = { type = "boolean" } }

[[capability]]
name = "shop.anything"

[[capability]]
name = "shop.open"
input = { type = "object", properties = {}, additionalProperties = false }
output = { type = ["boolean", "null"] }
'''  # noqa: E501  # schemas as authors write them
RIGHT = """\
from client import AsyncCapabilities, Capabilities
from shop import Capabilities as Shop
from loom_sdk import AsyncContext, Context


def plain(ctx: Context) -> str:
    Capabilities(ctx, timeout_ms=500).notes_add(text="buy milk", tags=["home"])
    Capabilities(ctx).weather_get(city="Berlin", units="celsius", days=2)
    Capabilities(ctx).notes_list()
    return str(Capabilities(ctx).calculator_evaluate(expression="1 + 1"))


async def waiting(ctx: AsyncContext) -> object:
    return await AsyncCapabilities(ctx).units_convert(question="5 miles in km")


def shopping(ctx: Context) -> float:
    shop = Shop(ctx)
    shop.shop_re_order({"from": "me", "self": 1})
    shop.shop_anything({"x": 1})
    opened: bool | None = shop.shop_open()
    line = {"item": "nail"}
    answer = shop.shop_order(lines=[{"item": "nail", "inner": {"item": "tip"}}], size="m", to=None)
    by = answer.get("by")
    name = by.get("name", "") if by else ""
    due: str = answer.get("due-date", name)
    return answer["total"] + answer.get("prices", {}).get(due, 0.0) + len(line) + bool(opened)
"""
WRONG = """\
from client import AsyncCapabilities, Capabilities
from shop import Capabilities as Shop
from loom_sdk import AsyncContext, Context


def plain(ctx: Context, other: AsyncContext) -> None:
    Capabilities(ctx).notes_add()
    Capabilities(ctx).notes_add(text=3)
    Capabilities(ctx).notes_add(text="a", tag="home")
    Capabilities(ctx).notes_add("a")
    Capabilities(ctx).weather_get(city="Berlin", units="kelvin")
    Capabilities(other).notes_list()
    Capabilities(ctx).notes_forget(id=1)
    Shop(ctx).shop_order(lines=[{"count": 1}], size="m")
    Shop(ctx).shop_order(lines=[], size="xl")
    Shop(ctx).shop_order(lines=[], size="s")["totals"]
    text: str = Shop(ctx).shop_order(lines=[], size="s")["total"]
    Shop(ctx).shop_re_order({"self": 1})
    Shop(ctx).shop_open(now=True)


async def waiting(ctx: AsyncContext) -> int:
    return AsyncCapabilities(ctx).units_convert(question="5 miles in km")
"""
FIRST_WRONG, LAST_WRONG = 7, 23
"""Lines of WRONG from the first to the last mistake; the four between that are none are below."""
HARMLESS = {20, 21, 22}


def shop() -> list[Offered]:
    head = {"id": "acme/shop", "version": "1.0.0", "api": "1", "type": "tool", "tier": "grpc",
            "entry": "shop:Shop"}  # fmt: skip
    manifest = parse_manifest({"plugin": head, **tomllib.loads(SHOP)}, Path("plugin.toml"))
    return [Offered(spec, manifest.id) for spec in manifest.capabilities]


def written(folder: Path) -> Path:
    """`client.py` of first-party tools, by the command, and `shop.py` of the manifest above."""
    assert main(["plugin", "stubs", *FIRST, "-o", str(folder / "client.py")]) == 0
    (folder / "shop.py").write_text(module_of(shop()))
    return folder


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stubs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_types_hold_what_is_right_and_find_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYPYPATH", str(ROOT / "sdk" / "python"))
    files = ["client.py", "shop.py", "right.py", "wrong.py"]
    told, trouble, _ = api.run(["--strict", "--config-file=", "--no-pretty", *files])
    assert not trouble
    errors = [line for line in told.splitlines() if ": error:" in line]
    assert {line.partition(":")[0] for line in errors} == {"wrong.py"}, told
    found = {int(line.split(":")[1]) for line in errors}
    assert found == set(range(FIRST_WRONG, LAST_WRONG + 1)) - HARMLESS, told


@pytest.mark.parametrize("width", ["88", "100"])
def test_ruff_has_nothing_to_say_and_nothing_to_move(width: str, tmp_path: Path) -> None:
    written(tmp_path)
    assert main(["plugin", "stubs", "*", "-o", str(tmp_path / "all.py")]) == 0
    ruff = str(Path(sys.executable).with_name("ruff"))
    own = ["--config", str(ROOT / "pyproject.toml"), "--line-length", width]
    for verb in (["check", "--select", "E,F,I,UP,B,SIM,RUF,RET,PIE"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *verb, *own, "--no-cache", str(tmp_path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_manifests_give_the_same_text_in_whatever_order() -> None:
    texts = {module_of(order) for order in itertools.permutations(shop())}
    assert len(texts) == 1


class Asker(Plugin):
    """Calls what the stubs offer, in both forms."""

    client: Any
    shop: Any

    @capability("asker.plain")
    def plain(self, ctx: Context) -> Any:
        tools = self.client.Capabilities(ctx)
        tools.notes_add(text="buy milk")
        tools.notes_list(limit=2)
        self.shop.Capabilities(ctx).shop_re_order({"from": "me"})
        return tools.calculator_evaluate(expression="12 * 9")

    @capability("asker.waiting")
    async def waiting(self, ctx: AsyncContext) -> Any:
        tools = self.client.AsyncCapabilities(ctx, payload=b"x", content_type="text/plain")
        return await tools.weather_get(city="Berlin", units=None, days=0)


@pytest.fixture
def asker(tmp_path: Path) -> FakeHost:
    written(tmp_path)
    plugin = Asker()
    plugin.client = imported(tmp_path / "client.py")
    plugin.shop = imported(tmp_path / "shop.py")
    return FakeHost(plugin)


def test_a_call_sends_what_was_given_and_leaves_out_what_was_not(asker: FakeHost) -> None:
    asker.answers = {
        "notes.add": {}, "notes.list": {}, "shop.re-order": [True],
        "calculator.evaluate": {"result": "108"},
    }  # fmt: skip
    assert asker.call("asker.plain").output == {"result": "108"}
    assert [(call.capability, call.arguments) for call in asker.calls] == [
        ("notes.add", {"text": "buy milk"}),
        ("notes.list", {"limit": 2}),
        ("shop.re-order", {"from": "me"}),
        ("calculator.evaluate", {"expression": "12 * 9"}),
    ]


def test_an_async_method_waits_for_its_calls(asker: FakeHost) -> None:
    asker.answer("weather.get", {"temperature": 7})
    assert asker.call("asker.waiting").output == {"temperature": 7}
    [call] = asker.calls
    assert call.arguments == {"city": "Berlin", "days": 0}
    assert (call.payload, call.content_type) == (b"x", "text/plain")


def test_the_docstring_has_the_manifests_words(asker: FakeHost) -> None:
    plugin: Any = asker.plugin
    told = plugin.client.Capabilities.weather_get.__doc__
    assert told.startswith("Current weather for a place.")
    assert "`weather.get` of loom/weather" in told
    assert "units: of the temperature" in told
    told = plugin.shop.Capabilities.shop_order.__doc__
    assert told.startswith("Order \"things\" from C:\\new, as in '''this'''.")


def test_of_two_providers_the_one_that_says_more_is_taken() -> None:
    schema = {"type": "object"}
    little = Offered(CapabilitySpec("x.y", "little", input_schema=schema), "a/a")
    much = Offered(CapabilitySpec("x.y", "much", input_schema=schema, output_schema=schema), "b/b")
    manifests = [
        parse_manifest(
            {
                "plugin": {"id": item.by, "version": "1.0.0", "api": "1", "type": "tool",
                           "tier": "grpc", "entry": "x:Y"},
                "capability": [{"name": "x.y", "description": item.spec.description,
                                "input": schema}
                               | ({"output": schema} if item is much else {})],
            },
            Path("plugin.toml"),
        )
        for item in (little, much)
    ]  # fmt: skip
    assert known_offers(manifests)["x.y"].by == "b/b"
    assert known_offers(reversed(manifests))["x.y"].by == "b/b"


WORDS = st.sampled_from(["a", "b-c", "from", "self", "arguments", "Ä", "1x", "", 'q"', "items"])
SCHEMAS = st.recursive(
    st.sampled_from(
        [{}, True, {"type": "string"}, {"type": ["integer", "null"]}, {"type": "odd"},
         {"enum": ["a", 'b"', 1, None, "\\"]}, {"enum": [1.5, "a", [1]]}, {"const": "x"},
         {"$ref": "#/properties/a"}, {"$ref": "#"}, {"$ref": "other.json"}, {"type": "object"}]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, max_size=4)),
        st.builds(
            lambda fields, need: {"type": "object", "properties": fields, "required": need,
                                  "description": 'said "so" \\N{x} """'},
            st.dictionaries(WORDS, inner, max_size=4), st.lists(WORDS, max_size=2),
        ),
        st.builds(lambda more: {"type": "object", "additionalProperties": more}, inner),
    ),
    max_leaves=8,
)  # fmt: skip


@hypothesis.settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(SCHEMAS, SCHEMAS), min_size=1, max_size=3))
def test_whatever_the_schemas_say_the_module_runs(pairs: list[tuple[Any, Any]]) -> None:
    offers = [
        Offered(
            CapabilitySpec(
                f"a.{n}",
                'Says "so" \\N{x} """',
                input_schema=one if isinstance(one, dict) else None,
                output_schema=other if isinstance(other, dict) else None,
            ),
            "a/a",
        )
        for n, (one, other) in enumerate(pairs)
    ]
    text = module_of(offers)
    assert text == module_of(offers)
    space: dict[str, Any] = {"__name__": "drawn"}
    exec(compile(text, "drawn.py", "exec", dont_inherit=True), space)  # what we have just made
    for made in [item for item in space.values() if is_typeddict(item)]:
        get_type_hints(made, space)
    for n in range(len(pairs)):
        assert callable(getattr(space["Capabilities"], f"a_{n}"))


def test_two_names_that_would_be_one_method_stay_two() -> None:
    offers = [Offered(CapabilitySpec(name), "a/a") for name in ("x.y-z", "x.y.z", "x.y_z", "1.in")]
    text = module_of(offers)
    for name in ("x_y_z(", "x_y_z_2(", "x_y_z_3(", "_1_in("):
        assert text.count(f"def {name}") == 2


def test_the_page_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands write a client with which its plugin works."""
    shell, code = (
        b for b in blocks_of(ROOT / "docs" / "CHECKS.md") if "test_plugin_stubs" in b.detail
    )
    (tmp_path / "my-agent").mkdir()
    folder(tmp_path / "my-agent", "notes.*")
    monkeypatch.chdir(tmp_path)
    for line in shell.text.splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0
    assert "notes_search" in (tmp_path / "my-agent" / "tools.py").read_text()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tools", raising=False)  # a folder of this project, too
    space: dict[str, Any] = {}
    exec(compile(code.text, "CHECKS.md", "exec", dont_inherit=True), space)  # our own page
    host = FakeHost(space["Diary"])
    host.answers = {"weather.get": {"speech": "Rain."}, "notes.add": {}}
    assert host.call("diary.today").output == "Rain."
    assert [call.capability for call in host.calls] == ["weather.get", "notes.add"]
    assert host.call("diary.tomorrow").output == {"speech": "Rain."}


PLUGIN = """\
[plugin]
id = "acme/asker"
version = "0.1.0"
api = "1"
type = "tool"
tier = "grpc"
entry = "asker:Asker"

[[capability]]
name = "notes.own"

[permissions]
invoke = [{invoke}]
"""


def folder(path: Path, *invoke: str) -> str:
    names = ", ".join(f'"{name}"' for name in invoke)
    (path / "plugin.toml").write_text(PLUGIN.format(invoke=names))
    return str(path)


def test_a_folder_gets_what_its_manifest_asks_to_invoke(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = folder(tmp_path, "notes.*", "loom.tools", "nowhere.at_all")
    assert main(["plugin", "stubs", named]) == 0
    told = capsys.readouterr()
    assert "nothing that this host finds offers nowhere.at_all" in told.err
    text = told.out
    assert "def notes_search(" in text
    assert "def loom_tools(" in text
    assert "weather" not in text
    assert "notes_own" not in text


def test_the_plugins_own_capabilities_are_in_only_by_name() -> None:
    head = {"id": "a/b", "version": "1.0.0", "api": "1", "type": "tool", "tier": "grpc",
            "entry": "b:B"}  # fmt: skip
    tables: dict[str, Any] = {"plugin": head, "capability": [{"name": "b.c"}]}
    for asked, expected in (("b.*", 0), ("b.c", 1)):
        tables["permissions"] = {"invoke": [asked]}
        manifest = parse_manifest(tables, Path("plugin.toml"))
        found, _ = wanted_by(manifest, known_offers([manifest]))
        assert len(found) == expected


def test_what_nobody_offers_is_an_error_with_a_suggestion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "stubs", "notes.ad"]) == 1
    assert "did you mean 'notes.add'?" in capsys.readouterr().err
    assert main(["plugin", "stubs", folder(tmp_path)]) == 1
    assert "asks to invoke nothing" in capsys.readouterr().err
    assert main(["plugin", "stubs", folder(tmp_path, "nowhere.at_all")]) == 1
    assert "is known here" in capsys.readouterr().err


GUEST = """\
[plugin]
id = "acme/diary"
version = "0.1.0"
api = "1"
type = "tool"
tier = "wasm"
tiers = ["wasm", "grpc"]
entry = "diary_plugin:Diary"

[[capability]]
name = "diary.sum"
effects = "none"

[permissions]
invoke = ["calculator.evaluate"]
"""
GUEST_CODE = """\
from diary_tools import Capabilities

from loom_sdk import Context, Plugin, capability


class Diary(Plugin):
    @capability("diary.sum", effects="none")
    def sum(self, ctx: Context) -> str:
        answer: dict[str, str] = Capabilities(ctx).calculator_evaluate(expression="12 * 9")
        return answer["result"]
"""


@pytest.mark.parametrize("tier", [pytest.param("wasm", marks=pytest.mark.soak), "grpc"])
async def test_the_client_works_in_a_guest_and_in_a_child(tier: str, tmp_path: Path) -> None:
    (tmp_path / "plugin.toml").write_text(GUEST)
    (tmp_path / "diary_plugin.py").write_text(GUEST_CODE)
    out = ["-o", str(tmp_path / "diary_tools.py")]
    assert await asyncio.to_thread(main, ["plugin", "stubs", str(tmp_path), *out]) == 0
    calculator = {"tier": "native", "allow": {"provide": ["calculator.evaluate"]}}
    settings = {"plugins": {"calculator": calculator}}
    async with real_host(tmp_path, tier=tier, settings=settings) as host:
        assert (await host.invoke("diary.sum")).output == "108"
