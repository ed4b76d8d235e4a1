"""Components that were not written for Loom are tools: in the tier, in a host, on the CLI."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import Engine, wat2wasm
from wasmtime.component import Component

from loom_host import Host, load_settings
from loom_host.cli.main import main
from loom_host.config import parse_settings
from loom_host.lineup import line_up
from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.wasm import WasmInstance, WasmRuntime
from loom_host.runtimes.wasm.build import ensure_component
from loom_host.runtimes.wasm.cache import default_folder
from loom_host.runtimes.wasm.component_exports import MAX_FUNCTIONS, exports_of, offered
from loom_host.runtimes.wasm.contract import Loaded, check_preamble, compile_component
from loom_sdk import Call, Event
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    ConfigError,
    DeadlineExceeded,
    InvalidArguments,
    PluginCrashed,
    PluginLoadError,
    QuotaExceeded,
)

from .support import AsyncFakePort, FakePort

ENGINE = Engine()
SHOP = Path(__file__).parent / "foreign"
ADD = """(func (export "add") (param "a" s32) (param "b" s32) (result s32)
    (canon lift (core func $i "add")))"""
CORE = """
  (core module $M
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
    (func (export "add") (param i32 i32) (result i32)
      (i32.add (local.get 0) (local.get 1)))
    (func (export "check") (param i32) (result i32)
      (i32.store8 (i32.const 64) (i32.gt_u (local.get 0) (i32.const 9)))
      (i32.store8 (i32.const 65) (i32.const 1))
      (i32.const 64))
    (func (export "huge") (result i32)
      (drop (memory.grow (i32.const 100)))
      (i32.store (i32.const 64) (i32.const 128))
      (i32.store (i32.const 68) (i32.const 4000000))
      (i32.const 64))
    (func (export "spin") (loop $l (br $l)))
    (func (export "trap") unreachable))
  (core instance $i (instantiate $M))"""
MEMORY = '(memory (core memory $i "memory"))'
CALC = f"""(component {CORE}
  {ADD}
  (type $level' (enum "low" "high")) (export $level "level" (type $level'))
  (func (export "check") (param "n" u8) (result (result (error $level)))
    (canon lift (core func $i "check") {MEMORY}))
  (func (export "huge") (result string) (canon lift (core func $i "huge") {MEMORY}))
  (func (export "spin") (canon lift (core func $i "spin")))
  (func (export "trap") (canon lift (core func $i "trap"))))"""


def plugin_of(folder: Path, wat: str, name: str = "calc") -> Path:
    path = folder / f"{name}.wasm"
    path.write_bytes(bytes(wat2wasm(wat)))
    return path


@asynccontextmanager
async def running(
    path: Path, isolation: str = "thread", **quotas: Any
) -> AsyncIterator[WasmInstance]:
    limits = Quotas(memory=64 * 1024**2, output_bytes=1024**2, deadline_ms=5000)
    spec = PluginSpec(
        name="calc", id="test/calc", version="1", tier="wasm", entry=path.name,
        folder=path.parent, config={}, grants=(), quotas=replace(limits, **quotas),
        data_dir=path.parent, cache_dir=path.parent, isolation=isolation,
    )  # fmt: skip
    runtime = WasmRuntime()
    instance = await runtime.start(spec, AsyncFakePort(FakePort()))
    try:
        yield instance
    finally:
        await instance.aclose(1.0)
        await runtime.aclose()


async def output(instance: WasmInstance, capability: str, **arguments: Any) -> Any:
    return (await instance.invoke(Call(capability, arguments))).output


# ---- In the tier ----------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_exported_functions_become_capabilities(tmp_path: Path, isolation: str) -> None:
    async with running(plugin_of(tmp_path, CALC), isolation) as calc:
        offers = {spec.name: spec for spec in calc.declaration.capabilities}
        assert set(offers) == {"calc.add", "calc.check", "calc.huge", "calc.spin", "calc.trap"}
        assert calc.declaration.inferred
        add = offers["calc.add"]
        assert (add.effects, add.tool) == ("once", True)
        assert add.description == "add: func(a: s32, b: s32) -> s32"
        assert add.input_schema is not None
        assert add.input_schema["required"] == ["a", "b"]
        assert await output(calc, "calc.add", a=-(2**31), b=5) == 5 - 2**31
        assert await output(calc, "calc.check", n=9) is None
        assert await calc.health() == ""
        assert await calc.handle_event(Event("t")) == 0
        with pytest.raises(ActionFailed, match="high") as caught:
            await output(calc, "calc.check", n=10)
        assert caught.value.data == "high"
        with pytest.raises(InvalidArguments, match="^b: must be a whole number from -2147483648"):
            await output(calc, "calc.add", a=1, b=2**31)
        with pytest.raises(CapabilityNotFound, match=r"exports no 'calc\.sub'"):
            await output(calc, "calc.sub")
        with pytest.raises(InvalidArguments, match="takes no payload"):
            await calc.invoke(Call("calc.add", {"a": 1, "b": 2}, b"audio"))


async def test_quotas_hold_a_stranger_as_they_hold_a_plugin(tmp_path: Path) -> None:
    async with running(plugin_of(tmp_path, CALC), deadline_ms=200) as calc:
        with pytest.raises(DeadlineExceeded):
            await output(calc, "calc.spin")
        with pytest.raises(QuotaExceeded) as caught:
            await output(calc, "calc.huge")
        assert caught.value.quota == "output_bytes"
        with pytest.raises(PluginCrashed, match="unreachable"):
            await output(calc, "calc.trap")
        assert await output(calc, "calc.add", a=1, b=2) == 3
        assert calc.usage().extra["renewals"] >= 2


BAD = {
    "imports acme:odd/sock": (
        f'(component (import "acme:odd/sock" (instance (export "f" (func)))) {CORE} {ADD})'
    ),
    "does not export .*, nor any function that a capability can be made of$": "(component)",
    "get: its type has a resource handle": """(component
        (type $r' (resource (rep i32))) (export $r "r" (type $r'))
        (core module $M (func (export "get") (result i32) unreachable))
        (core instance $i (instantiate $M))
        (func (export "get") (result (own $r)) (canon lift (core func $i "get"))))""",
}


@pytest.mark.parametrize("message", BAD)
async def test_what_cannot_be_a_tool_is_refused_with_the_reason(
    tmp_path: Path, message: str
) -> None:
    path = plugin_of(tmp_path, BAD[message])
    with pytest.raises(PluginLoadError, match=message):
        async with running(path):
            pass


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no WebAssembly file"),
        (b"not wasm at all", "is no WebAssembly file"),
        (b"\0asm", "is no WebAssembly file, or only the beginning of one"),
        (bytes(wat2wasm("(module)")), "is a core module, no component: wrap it with"),
        (bytes(wat2wasm(CALC))[:200], "is no component that wasmtime can compile"),
    ],
)
async def test_a_file_that_is_no_component_says_what_it_is(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "calc.wasm"
    path.write_bytes(data)
    with pytest.raises(PluginLoadError, match=message):
        async with running(path):
            pass


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_component_is_refused_or_still_one(data: st.DataObject) -> None:
    whole = bytearray(wat2wasm(CALC))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        check_preamble(bytes(whole), "calc.wasm")
        loaded = Loaded(compile_component(ENGINE, bytes(whole)), ENGINE, "calc.wasm")
    except PluginLoadError:
        return
    assert loaded.foreign is not None
    assert offered(loaded.foreign.exports, "calc")[0]


# ---- Names ----------------------------------------------------------------------------------


def names_of(wat: str) -> tuple[set[str], dict[str, str]]:
    component = Component(ENGINE, bytes(wat2wasm(wat)))
    found, refused = offered(exports_of(component.type, ENGINE), "calc")
    return set(found), {export.text: export.why_not for export in refused}


def exporting(*instances: str, extra: str = "") -> str:
    whole = '(instance $in (export "add" (func $add)))'
    add = ADD.replace('(export "add")', "$add")
    exports = "".join(f'(export "{name}" (instance $in))' for name in instances)
    return f"(component {CORE} {add} {whole} {exports} {extra})"


def test_an_interface_gives_its_name_and_its_version() -> None:
    names, _ = names_of(exporting("acme:math/arithmetic@1.2.3"))
    assert names == {"arithmetic.add"}


def test_interfaces_of_one_name_get_their_package_and_the_rest_is_told() -> None:
    names, refused = names_of(
        exporting("acme:one/api@1.0.0", "acme:two/api", "other:two/api", "plain")
    )
    assert names == {"one.api.add", "two.api.add", "plain.add"}
    assert refused == {"other:two/api#add": "two.api.add is the name of acme:two/api#add already"}


def test_nested_instances_and_upper_case_words() -> None:
    nested = '(instance $out (export "inner" (instance $in))) (export "outer" (instance $out))'
    names, _ = names_of(exporting("plain", extra=nested + '(export "to-XML" (func $add))'))
    assert names == {"plain.add", "outer.inner.add", "calc.to-xml"}


def test_a_component_offers_a_bounded_number_of_functions() -> None:
    extra = "".join(f'(export "f{index}" (func $add))' for index in range(MAX_FUNCTIONS))
    names, refused = names_of(exporting("plain", extra=extra))
    assert len(names) == MAX_FUNCTIONS
    assert list(refused.values()) == [f"it is beyond the first {MAX_FUNCTIONS}"]


def test_a_type_that_unfolds_without_end_is_not_spelled_out() -> None:
    types = ["(type $t0 (tuple u64 u64))"]
    types += [f"(type $t{n} (tuple $t{n - 1} $t{n - 1}))" for n in range(1, 16)]
    names, refused = names_of(
        f"""(component {CORE} {" ".join(types)}
      {ADD}
      (func (export "bomb") (param "x" $t15) (canon lift (core func $i "spin2")
        {MEMORY} (realloc (core func $i "realloc")))))""".replace(
            '(func (export "spin")', '(func (export "spin2") (param i32)) (func (export "spin")'
        )
    )
    assert names == {"calc.add"}
    assert refused == {"bomb": "its type is longer than 65536 characters"}


# ---- A real one, from a real toolchain ------------------------------------------------------


@pytest.fixture(scope="session")
def shop() -> Path:
    """A Python component that knows nothing of Loom, built once per change of its sources."""
    digest = hashlib.sha256()
    for path in sorted(SHOP.glob("shop*.*")):
        digest.update(path.read_bytes())
    out = default_folder() / f"test-shop-{digest.hexdigest()[:16]}.wasm"
    if not out.is_file():
        out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = out.with_suffix(".new")
        run = [sys.executable, "-c", "import componentize_py; componentize_py.script()"]
        where = ["-q", "-d", str(SHOP / "shop.wit"), "-w", "shop", "componentize"]
        subprocess.run([*run, *where, "-p", str(SHOP), "shop_app", "-o", str(made)], check=True)
        made.rename(out)
    return ensure_component(out.parent, out.name, out.parent)


ITEM = {"name": "tea", "count": 2, "size": "small"}
NUMBERS = [-128, 32767, -(2**31), -(2**63), 255, 65535, 2**32 - 1, 2**64 - 1, 0.1, "-Infinity"]
PASSED: list[tuple[str, dict[str, Any], Any]] = [
    ("calc.say-hello", {"name": "Zoë 🙂"}, "Hello Zoë 🙂"),
    (
        "orders.place",
        {"items": [ITEM, {**ITEM, "note": "hot"}], "paid": {"tag": "card", "val": "42"},
         "extras": ["express"]},
        ["2 tea SMALL None", "2 tea SMALL hot", "card 42", "Extras.EXPRESS"],
    ),
    (
        "orders.place",
        {"items": [ITEM], "paid": {"tag": "voucher", "val": [7, 2.5]}, "extras": []},
        ["2 tea SMALL None", "voucher 7 2.5", "Extras(0)"],
    ),
    ("orders.label", {"picture": "AAEC", "initial": "ß", "flag": True}, "w58BAgEA"),
    ("orders.widest", dict(zip("abcdefghij", NUMBERS, strict=True)), NUMBERS),
    ("orders.outcome", {"past": {"ok": 0}}, None),
    ("orders.outcome", {"past": {"err": ""}}, {"some": None}),
    ("orders.outcome", {"past": {"ok": 9}}, {"some": {"ok": 9}}),
    ("orders.outcome", {"past": {"err": "bad"}}, {"some": {"err": "bad"}}),
]  # fmt: skip


async def test_a_component_of_another_world_serves_every_type(shop: Path) -> None:
    async with running(shop) as instance:
        for capability, arguments, answer in PASSED:
            assert await output(instance, capability, **arguments) == answer
        with pytest.raises(ActionFailed) as caught:
            big = {**ITEM, "count": 100}
            paid = {"tag": "cash"}
            await output(instance, "orders.place", items=[big], paid=paid, extras=[])
        assert caught.value.data == {"tag": "sold-out", "val": "tea"}
        with pytest.raises(PluginCrashed):
            await output(instance, "orders.crash")
        assert await output(instance, "calc.say-hello", name="again") == "Hello again"
        offers = {spec.name: spec.version for spec in instance.declaration.capabilities}
        assert "orders.open-basket" not in offers
        assert (offers["orders.place"], offers["calc.say-hello"]) == ("1.2.0", "")


# ---- In a host ------------------------------------------------------------------------------


def settings_for(tmp_path: Path, table: dict[str, Any], **more: Any) -> Any:
    base = {
        "host": {
            "data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache"),
            "runtime_dir": str(tmp_path / "run"), **more,
        },
        "telemetry": {"log_level": "error"},
        "plugins": {"calc": table},
    }  # fmt: skip
    return load_settings(None, base)


async def test_a_path_in_the_settings_is_enough(tmp_path: Path) -> None:
    table = {
        "path": str(plugin_of(tmp_path, CALC, "any_name")),
        "isolation": "thread",
        "allow": {"provide": ["calc.add", "calc.check"]},
    }
    async with Host(settings_for(tmp_path, table)) as host:
        assert (await host.invoke("calc.add", {"a": 2, "b": 3})).output == 5
        with pytest.raises(InvalidArguments, match=r"calc\.add: .*is greater than the maximum"):
            await host.invoke("calc.add", {"a": 2, "b": 2**40})
        with pytest.raises(CapabilityNotFound, match=r"nobody offers 'calc\.trap'"):
            await host.invoke("calc.trap")


MANIFEST = """
[plugin]
id = "acme/calc"
version = "1.0.0"
api = "1"
type = "tool"
tier = "wasm"
entry = "calc.wasm"
"""


@pytest.mark.parametrize(
    ("listed", "provide", "there"),
    [
        ("", ["*"], {"calc.add", "calc.check", "calc.huge", "calc.spin", "calc.trap"}),
        ("", [], set()),
        ('[[capability]]\nname = "calc.add"\neffects = "none"', ["*"], {"calc.add"}),
    ],
)
async def test_a_manifest_may_list_nothing_or_a_part(
    tmp_path: Path, listed: str, provide: list[str], there: set[str]
) -> None:
    folder = tmp_path / "calc"
    folder.mkdir()
    plugin_of(folder, CALC)
    (folder / "plugin.toml").write_text(MANIFEST + listed)
    table = {"isolation": "thread", "allow": {"provide": provide}}
    async with Host(settings_for(tmp_path, table, plugin_paths=[str(tmp_path)])) as host:
        offers = host.broker.capabilities()
        assert {name for name in offers if name.startswith("calc.")} == there
        if listed:
            (offer,) = offers["calc.add"]
            assert (offer.spec.effects, offer.spec.tool) == ("none", False)
            assert offer.spec.input_schema
        denied = [refusal.line for refusal in host.audit.refusals]
        assert denied == ([] if provide else ['[plugins.calc]\nallow = { provide = ["*"] }'])


def test_a_wrong_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a .wasm component"):
        parse_settings({"plugins": {"calc": {"path": "calc"}}})
    settings = settings_for(tmp_path, {"path": str(tmp_path / "gone.wasm")})
    with pytest.raises(ConfigError, match=r"\[plugins.calc\] path: there is no file"):
        line_up(settings)


# ---- On the command line --------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_inspect_tells_a_stranger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plugin_of(tmp_path, CALC, "My_Calc")
    assert main(["plugin", "inspect", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["size"], report["loom_plugin"], report["problem"]) == (
        path.stat().st_size, False, ""
    )  # fmt: skip
    add = report["exports"][0]
    assert (add["capability"], add["type"]) == ("my-calc.add", "func(a: s32, b: s32) -> s32")
    assert add["output"] == {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
    assert main(["plugin", "inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "my-calc.check: func(n: u8) -> result<_, enum { low, high }>" in text
    assert "[plugins.my-calc]" in text


@pytest.mark.usefixtures("cache")
def test_inspect_tells_what_would_be_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plugin_of(tmp_path, BAD["imports acme:odd/sock"])
    assert main(["plugin", "inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "refused: calc.wasm imports acme:odd/sock" in text
    assert "to use it" not in text
    (tmp_path / "core.wasm").write_bytes(bytes(wat2wasm("(module)")))
    assert main(["plugin", "inspect", str(tmp_path / "core.wasm")]) == 1
    assert "is a core module, no component" in capsys.readouterr().err


def test_inspect_tells_granted_from_denied_imports(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "inspect", str(shop), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    status = {row["name"].partition("@")[0]: row["status"] for row in report["imports"]}
    assert status["acme:shop/types"] == "types"
    assert status["wasi:filesystem/preopens"] == status["wasi:sockets/tcp"] == "denied"
    assert status["wasi:clocks/monotonic-clock"] == "granted"
    why = {row["export"]: row["why"] for row in report["not_offered"]}
    assert why["exports#init"] == "componentize-py runs it while it builds"
    assert why["acme:shop/orders@1.2.0#[method]basket.add"].startswith("it belongs to a resource")
    assert "resource handle" in why["acme:shop/orders@1.2.0#open-basket"]
