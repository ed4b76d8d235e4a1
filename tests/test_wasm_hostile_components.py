"""Components made to break the host, in both isolations: lengths that lie, text that is none, code
that was cut or flipped. Each ends in its typed error, and another plugin still answers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from wasmtime import wat2wasm

from loom_host import Host, load_settings
from loom_host.quotas import Quotas
from loom_host.runtimes.base import PluginSpec
from loom_host.runtimes.wasm import WasmInstance, WasmRuntime
from loom_sdk import Call
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    LoomError,
    PluginCrashed,
    PluginLoadError,
    QuotaExceeded,
)

from .hosting import host_tables
from .support import AsyncFakePort, FakePort, within

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1024**2
GOOD = """(component
  (core module $M (func (export "twice") (param i32) (result i32)
    (i32.shl (local.get 0) (i32.const 1))))
  (core instance $i (instantiate $M))
  (func (export "twice") (param "n" s32) (result s32) (canon lift (core func $i "twice"))))"""


@dataclass
class Street:
    """A runtime with a good plugin, in which bad ones come and go."""

    runtime: WasmRuntime
    isolation: str
    folder: Path
    port: FakePort
    good: WasmInstance
    made: int = 0

    @asynccontextmanager
    async def plugin(self, component: str | bytes, **quotas: Any) -> AsyncIterator[WasmInstance]:
        """Start a component; `name` of it is `bad`."""
        self.made += 1
        path = self.folder / f"bad{self.made}.wasm"
        path.write_bytes(component if isinstance(component, bytes) else wat2wasm(component))
        instance = await self.start(path, "bad", **quotas)
        try:
            yield instance
        finally:
            await instance.aclose(0.2)

    async def start(self, path: Path, name: str, **quotas: Any) -> WasmInstance:
        limits: dict[str, Any] = {"memory": 64 * MIB, "output_bytes": MIB, "deadline_ms": 500}
        spec = PluginSpec(
            name=name, id=f"test/{name}", version="1", tier="wasm", entry=path.name,
            folder=path.parent, config={}, grants=(), quotas=Quotas(**(limits | quotas)),
            data_dir=path.parent, cache_dir=path.parent, isolation=self.isolation,
            start_timeout_s=1.0,
        )  # fmt: skip
        return await self.runtime.start(spec, AsyncFakePort(self.port))

    async def refuses(self, component: str | bytes, match: str, **quotas: Any) -> None:
        with pytest.raises(PluginLoadError, match=match):
            async with self.plugin(component, **quotas):
                pytest.fail("it was loaded")

    async def is_well(self) -> None:
        assert (await self.good.invoke(Call("good.twice", {"n": 21}))).output == 42


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["thread", "process"])
async def street(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    (folder / "good.wasm").write_bytes(wat2wasm(GOOD))
    runtime = WasmRuntime(folder / "cache")
    made = Street(runtime, request.param, folder, FakePort(), None)  # type: ignore[arg-type]  # next line
    made.good = await made.start(folder / "good.wasm", "good")
    yield made
    await made.good.aclose(0.2)
    await runtime.aclose()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _all_is_well_after_each(street: Street) -> AsyncIterator[None]:
    yield
    await street.is_well()


# ---- Answers that lie -----------------------------------------------------------------------


def answering(kind: str, *words: int, data: str = "", core: str = "i32") -> str:
    """`run` returns a pointer to these words, at 64; `data` lies at 128."""
    stores = "".join(
        f"(i32.store (i32.const {64 + 4 * index}) (i32.const {word}))"
        for index, word in enumerate(words)
    )
    return f"""(component
      (core module $M (memory (export "memory") 1) (data (i32.const 128) "{data}")
        (func (export "run") (result {core}) {stores} (i32.const 64)))
      (core instance $i (instantiate $M))
      (func (export "run") (result {kind})
        (canon lift (core func $i "run") (memory (core memory $i "memory")))))"""


LIES = [
    ("a string that begins behind the memory", answering("string", 0x7FFFFFF0, 4)),
    ("a string that ends behind the memory", answering("string", 128, 65_536)),
    ("a string as long as can be said", answering("string", 128, -1)),
    ("a string that wraps around", answering("string", -8, 16)),
    ("a list that wraps around", answering("(list u64)", 128, 0x20000001)),
    ("a list as long as can be said", answering("(list u8)", 0, -1)),
    ("a list of lists that lie", answering("(list string)", 128, 1, data="\\ff\\ff\\ff\\7f\\ff")),
    ("a list that is not aligned", answering("(list u32)", 129, 4)),
    ("bytes that are no UTF-8", answering("string", 128, 2, data="\\ff\\fe")),
    ("half a character", answering("string", 128, 1, data="\\c3")),
    ("a surrogate", answering("string", 128, 3, data="\\ed\\a0\\80")),
    ("an overlong slash", answering("string", 128, 2, data="\\c0\\af")),
    ("a variant that is not there", answering("(option string)", 7, 0, 0)),
    ("a result that is neither", answering("(result string (error string))", 2, 0, 0)),
]


@pytest.mark.parametrize("wat", [wat for _, wat in LIES], ids=[name for name, _ in LIES])
async def test_answers_that_lie(street: Street, wat: str) -> None:
    async with street.plugin(wat) as bad:
        with pytest.raises((PluginCrashed, QuotaExceeded, ActionFailed)) as caught:
            await bad.invoke(Call("bad.run", {}))
        assert isinstance(caught.value, LoomError)
        assert len(caught.value.message) < 2000


async def test_a_code_point_that_is_none(street: Street) -> None:
    wat = """(component
      (core module $M (func (export "run") (result i32) (i32.const 0xd800)))
      (core instance $i (instantiate $M))
      (func (export "run") (result char) (canon lift (core func $i "run"))))"""
    async with street.plugin(wat) as bad:
        with pytest.raises(PluginCrashed, match="trapped"):
            await bad.invoke(Call("bad.run", {}))


# ---- Arguments of host imports that lie -----------------------------------------------------

IMPORTS = """
  (import "loom:plugin/host@1.0.0" (instance $host
    (type $error' (record (field "code" string) (field "message" string) (field "details" string)))
    (export "action-error" (type $error (eq $error')))
    (export "kv-get" (func (param "key" string)
      (result (result (option (list u8)) (error $error)))))
    (export "kv-put" (func (param "key" string) (param "value" (list u8))
      (result (result (error $error)))))
    (export "log" (func (param "level" string) (param "message" string)
      (param "attributes" (list (tuple string string)))))))
  (core module $L (memory (export "memory") 1)
    (data (i32.const 16) "\\ff\\fe") (data (i32.const 32) "key")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
  (core instance $l (instantiate $L))
  (core func $get (canon lower (func $host "kv-get")
    (memory (core memory $l "memory")) (realloc (core func $l "realloc"))))
  (core func $put (canon lower (func $host "kv-put")
    (memory (core memory $l "memory")) (realloc (core func $l "realloc"))))
  (core func $log (canon lower (func $host "log") (memory (core memory $l "memory"))))
"""


def calling(body: str, realloc: str = "(i32.const 4096)") -> str:
    return f"""(component {IMPORTS.replace("{realloc}", realloc)}
      (core module $M
        (import "h" "get" (func $get (param i32 i32 i32)))
        (import "h" "put" (func $put (param i32 i32 i32 i32 i32)))
        (import "h" "log" (func $log (param i32 i32 i32 i32 i32 i32)))
        (func (export "run") {body}))
      (core instance $i (instantiate $M (with "h" (instance
        (export "get" (func $get)) (export "put" (func $put)) (export "log" (func $log))))))
      (func (export "run") (canon lift (core func $i "run"))))"""


def numbers(*values: int) -> str:
    return " ".join(f"(i32.const {value})" for value in values)


CALLS = [
    ("a key behind the memory", calling(f"(call $get {numbers(0x7FFFFFF0, 8, 64)})")),
    ("a key as long as can be said", calling(f"(call $get {numbers(0, -1, 64)})")),
    ("a key that is no UTF-8", calling(f"(call $get {numbers(16, 2, 64)})")),
    ("an answer to behind the memory", calling(f"(call $get {numbers(32, 3, 65_530)})")),
    ("an answer to where nothing aligns", calling(f"(call $get {numbers(32, 3, 65)})")),
    (
        "room behind the memory",
        calling(f"(call $get {numbers(32, 3, 64)})", realloc="(i32.const 0x7ffffff0)"),
    ),
    ("no room", calling(f"(call $get {numbers(32, 3, 64)})", realloc="(unreachable)")),
    ("a value as long as can be said", calling(f"(call $put {numbers(32, 3, 0, -1, 64)})")),
    ("a value that wraps around", calling(f"(call $put {numbers(32, 3, -8, 16, 64)})")),
    ("a line as long as can be said", calling(f"(call $log {numbers(0, 0, 0, -1, 0, 0)})")),
    ("more attributes than fit", calling(f"(call $log {numbers(0, 0, 0, 0, 0, 0x0FFFFFFF)})")),
    ("attributes out of nowhere", calling(f"(call $log {numbers(0, 0, 0, 0, 65_528, 4)})")),
    ("a level that is no UTF-8", calling(f"(call $log {numbers(16, 2, 0, 0, 0, 0)})")),
]


@pytest.mark.parametrize("wat", [wat for _, wat in CALLS], ids=[name for name, _ in CALLS])
async def test_arguments_that_lie(street: Street, wat: str) -> None:
    street.port.store["key"] = b"value"
    async with street.plugin(wat) as bad:
        with pytest.raises((PluginCrashed, QuotaExceeded)):
            await bad.invoke(Call("bad.run", {}))
    assert street.port.store == {"key": b"value"}


async def test_an_import_that_calls_back_into_the_host_without_end(street: Street) -> None:
    """The host's answer needs room, and whoever makes it asks the host again."""
    wat = calling(f"(loop $on (call $get {numbers(32, 3, 64)}) (br $on))")
    async with street.plugin(wat) as bad:
        with within(500), pytest.raises(DeadlineExceeded):
            await bad.invoke(Call("bad.run", {}))


# ---- Running away ---------------------------------------------------------------------------


def running(body: str, more: str = "") -> str:
    return f"""(component
      (core module $M (memory (export "memory") 1) {more} (func $run (export "run") {body}))
      (core instance $i (instantiate $M))
      (func (export "run") (canon lift (core func $i "run"))))"""


@pytest.mark.parametrize(
    ("wat", "error"),
    [
        (running("(loop $on (br $on))"), DeadlineExceeded),
        (running("(call $run)"), PluginCrashed),
        (running("(unreachable)"), PluginCrashed),
        (running("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), PluginCrashed),
        (running("(drop (i32.load (i32.const -4)))"), PluginCrashed),
        (running("(memory.fill (i32.const 0) (i32.const 1) (i32.const -1))"), PluginCrashed),
        (running("(call_indirect (i32.const 9))", "(table 1 funcref)"), PluginCrashed),
        (
            running(
                "(if (i32.eq (memory.grow (i32.const 4096)) (i32.const -1)) (then unreachable))"
            ),
            PluginCrashed,
        ),
        (
            running(
                "(if (i32.eq (table.grow $t (ref.null func) (i32.const 90000000)) (i32.const -1))"
                "(then unreachable))",
                "(table $t 1 funcref)",
            ),
            PluginCrashed,
        ),
    ],
)
async def test_running_away(street: Street, wat: str, error: type[LoomError]) -> None:
    async with street.plugin(wat) as bad:
        with within(500), pytest.raises(error):
            await bad.invoke(Call("bad.run", {}))


async def test_more_than_one_memory_or_table_than_allowed(street: Street) -> None:
    many = "".join(f"(core instance $m{number} (instantiate $N))" for number in range(40))
    wat = running("nop").replace(
        "(core instance $i", f"(core module $N (memory 900)) {many} (core instance $i", 1
    )
    await street.refuses(wat, "quota tables|Cannot allocate memory")
    await street.refuses(running("nop", "(table 2000000 funcref)"), "quota tables")
    await street.refuses(running("nop").replace('memory") 1', 'memory") 2000'), "quota memory")


async def test_a_start_that_does_not_end(street: Street) -> None:
    wat = running("nop", "(func $begin (loop $on (br $on))) (start $begin)")
    with within(1500):
        await street.refuses(wat, "was stopped after")


async def test_a_start_that_traps(street: Street) -> None:
    await street.refuses(running("nop", "(func $begin unreachable) (start $begin)"), "unreachable")


async def test_a_flood_of_calls_is_refused_and_another_plugin_is_not(
    street: Street, tmp_path: Path
) -> None:
    tables = host_tables(tmp_path)
    one = {"path": str(street.folder / "good.wasm"), "isolation": street.isolation}
    tables["plugins"] = {
        "calm": one | {"allow": {"provide": ["calm.*"]}},
        "flooded": one | {"allow": {"provide": ["flooded.*"]}, "quotas": {"rate": 3}},
    }
    async with Host(load_settings(None, tables)) as host:
        calls = (host.invoke("flooded.twice", {"n": n}) for n in range(50))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in answers if isinstance(one, QuotaExceeded)]
        assert {error.quota for error in refused} == {"rate"}
        assert 40 <= len(refused) <= 47
        assert (await host.invoke("calm.twice", {"n": 2})).output == 4
        assert host.plugins["flooded"].counters.quota_hits >= len(refused)


# ---- What may not be loaded -----------------------------------------------------------------

UNKNOWN = [
    ('(import "evil:door/open@1.0.0" (instance (export "f" (func))))', "evil:door/open@1.0.0"),
    ('(import "wasi:http/types@0.2.0" (instance))', "wasi:http/types@0.2.0"),
    ('(import "wasi:http/outgoing-handler@0.2.0" (instance (export "f" (func))))', "wasi:http/out"),
    ('(import "wasi:keyvalue/store@0.2.0" (instance (export "f" (func))))', "wasi:keyvalue/store"),
    ('(import "wasi:filesystem/types@0.3.0" (instance (export "f" (func))))', "types@0.3.0"),
    ('(import "wasi:sockets/raw@0.2.0" (instance (export "f" (func))))', "wasi:sockets/raw"),
    ('(import "loom:plugin/host@2.0.0" (instance (export "f" (func))))', "loom:plugin/host@2.0.0"),
    ('(import "loom:plugin/host@1.0.0" (instance (export "exec" (func))))', "no such function"),
    (
        '(import "loom:plugin/host@1.0.0" (instance (export "log" (func (param "x" u8)))))',
        "the host has",
    ),
    ('(import "run-me" (func))', "run-me"),
    ('(import "wasi:cli/environment@0.2.0" (instance (export "exec" (func))))', "cli/environment"),
]


@pytest.mark.parametrize(("imported", "name"), UNKNOWN)
async def test_unknown_imports_are_refused_by_name(
    street: Street, imported: str, name: str
) -> None:
    await street.refuses(running("nop").replace("(component", f"(component {imported}", 1), name)


@pytest.mark.parametrize("part", [0, 1, 4, 8, 9, 40, 100, -20, -1])
async def test_a_component_that_was_cut(street: Street, part: int) -> None:
    whole = bytes(wat2wasm(calling("nop")))
    await street.refuses(whole[:part], "no WebAssembly file|no component|does not export")


async def test_what_is_no_component(street: Street) -> None:
    await street.refuses(bytes(wat2wasm("(module)")), "core module")
    await street.refuses(b"\x7fELF" + bytes(100), "no WebAssembly file")
    await street.refuses(b"\0asm\x0d\0\x01\0" + random.Random(1).randbytes(500), "no component")
    nested = "(component " * 90 + ")" * 90
    await street.refuses(nested, r"\S")


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(s, marks=pytest.mark.slow) for s in range(3, 30))]
)
async def test_a_component_with_flipped_bits(street: Street, seed: int) -> None:
    """It is refused, or runs and ends in a typed error, or does what it did."""
    whole = bytes(wat2wasm(calling(f"(call $get {numbers(32, 3, 64)})")))
    chance = random.Random(seed)
    for _ in range(10):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(8, len(damaged))] ^= 1 << chance.randrange(8)
        try:
            async with street.plugin(bytes(damaged)) as bad:
                for capability in bad.declaration.capabilities:
                    await bad.invoke(Call(capability.name, {}))
        except LoomError as error:
            assert error.message


@pytest.mark.parametrize("what", ["code", "mac", "both", "cut", "empty", "foreign"])
async def test_damaged_cache_files_are_not_run(street: Street, what: str) -> None:
    """Compiled code runs as it stands: one that is not authentic is compiled again."""
    path = street.folder / f"cached-{what}.wasm"
    number = len(what) * 1000 + ord(what[0])
    path.write_bytes(bytes(wat2wasm(GOOD.replace("(i32.const 1)", f"(i32.const {number % 31})"))))
    cache = street.folder / "cache" / "wasm"
    before = set(cache.glob("*.cwasm"))
    other = max(before, key=lambda entry: entry.stat().st_mtime)  # the cache drops its oldest
    await (await street.start(path, "cached")).aclose(0.2)
    (code,) = set(cache.glob("*.cwasm")) - before
    mac, whole = code.with_suffix(".mac"), code.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    if what in ("code", "both"):
        code.write_bytes(flipped)
    if what in ("mac", "both"):
        mac.write_bytes(bytes(32))
    if what in ("cut", "empty"):
        code.write_bytes(whole[: len(whole) // 2] if what == "cut" else b"")
    if what == "foreign":
        code.write_bytes(other.read_bytes())
        mac.write_bytes(other.with_suffix(".mac").read_bytes())
    again = await street.start(path, "cached")
    answer = await again.invoke(Call("cached.twice", {"n": 1}))
    await again.aclose(0.2)
    assert answer.output == 1 << number % 31 or answer.output < 0
    assert code.read_bytes() == whole
