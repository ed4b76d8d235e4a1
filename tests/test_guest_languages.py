"""One plugin in four languages, each built from its source and run in a real host."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.runtimes.wasm import build_js
from loom_host.runtimes.wasm.build import ensure_component, inputs_hash, wit_dir
from loom_host.runtimes.wasm.cache import default_folder
from loom_sdk import Event
from loom_sdk.errors import ActionFailed, DeadlineExceeded, PermissionDenied, PluginLoadError

from .hosting import host_tables, next_of
from .support import ROOT

POLYGLOT = Path(__file__).parent / "polyglot"
LANGUAGES = {"c": "main.c", "zig": "main.zig", "js": "main.js", "python": "poly_plugin:Poly"}
MARKS = {"zig": pytest.mark.soak, "js": pytest.mark.soak, "python": pytest.mark.slow}
"""Those compilers take minutes from nothing; their guests are built and run by `make soak`."""
ALLOW = {
    "provide": ["poly.*"],
    "subscribe": ["room.*"],
    "publish": ["notes"],
    "invoke": ["poly.echo"],
    "storage": True,
}


def _js_missing() -> str:
    """Why JavaScript guests cannot be built here; empty when they can."""
    try:
        build_js.js_tools(POLYGLOT / "js")
    except PluginLoadError as error:
        return error.message
    return ""


# Where nothing is built yet the others take a minute or more to build and compile.
@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=MARKS.get(name, ())) for name in LANGUAGES],
)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "js" and (why := _js_missing()):
        pytest.skip(why)
    return name


@pytest.fixture(scope="session")
def built(language: str) -> Path:
    return ensure_component(POLYGLOT / language, LANGUAGES[language], default_folder())


@asynccontextmanager
async def hosted(folder: Path, language: str, **table: Any) -> AsyncIterator[Host]:
    """A host with the plugin in one language; what is built is kept for the next test."""
    name = f"poly-{language}"
    tables = host_tables(folder)
    tables["host"] |= {
        "plugin_paths": [str(POLYGLOT)],
        "cache_dir": str(default_folder().parent),
    }
    tables["plugins"] = {name: {"allow": ALLOW} | table}
    async with Host(load_settings(None, tables)) as host:
        assert host.plugins[name].state == "ready", host.plugins[name].reason
        yield host


@pytest.fixture
async def host(language: str, built: Path, tmp_path: Path) -> AsyncIterator[Host]:
    async with hosted(tmp_path, language) as running:
        yield running


@pytest.mark.parametrize(
    "value", [None, 1.5, 'ä"\\\n\0 \U0001f600 \x7f', [1, [2, {"three": []}]], {"": {"a": "}]"}}]
)
async def test_json_comes_back_as_it_was(host: Host, value: Any) -> None:
    assert (await host.invoke("poly.echo", {"value": value})).output == {"value": value}


@pytest.mark.parametrize("size", [0, 1, 640, 100_000])
async def test_binary_comes_back_as_it_was(host: Host, size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    for _ in range(3):
        result = await host.invoke("poly.echo", {}, payload=payload, content_type="audio/pcm")
        assert (result.payload, result.content_type) == (payload, "audio/pcm")


async def test_time_inside_is_measured_by_the_guest(host: Host) -> None:
    result = await host.invoke("poly.stream", {"items": 50})
    assert 0 < result.elapsed_us < 5_000_000


async def test_state_is_kept_between_calls(host: Host) -> None:
    assert [(await host.invoke("poly.count")).output for _ in range(3)] == [1, 2, 3]


async def test_settings_arrive(language: str, built: Path, tmp_path: Path) -> None:
    async with hosted(tmp_path, language, config={"greeting": "moin"}) as host:
        assert (await host.invoke("poly.config")).output == {"greeting": "moin"}


async def test_an_error_keeps_its_code_and_message(host: Host) -> None:
    with pytest.raises(ActionFailed, match='so ä it "is"') as raised:
        await host.invoke("poly.fail", {"code": "MY_CODE", "message": 'so ä it "is"'})
    assert raised.value.code == "MY_CODE"
    assert (await host.invoke("poly.count")).output == 1


async def test_storage(host: Host) -> None:
    for _ in range(2):
        output = (await host.invoke("poly.store", {"key": "k/ö", "value": "välue"})).output
        assert output == {"had": False, "after": "välue", "keys": ["k/ö"], "left": 0}


async def test_items_of_a_stream(host: Host) -> None:
    items = [item async for item in host.stream("poly.stream", {"items": 3})]
    assert [item.output for item in items] == [{"index": 0}, {"index": 1}, {"index": 2}, "done"]
    assert [item.payload for item in items[:3]] == [b"xxx"] * 3
    assert items[0].content_type == "text/plain"


async def test_log(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="loom.plugin"):
        await host.invoke("poly.log", {"message": "Grüße"})
    lines = next(iter(host.plugins.values())).log_lines
    assert list(lines) == ["Grüße"]


async def test_an_event_is_heard_and_answered(host: Host) -> None:
    async with host.bus.subscribe("notes") as notes:
        for number in ("1", "2"):
            event = Event("word", b"\x00\xff" * 320, {"x": "y", "n": number})
            await host.bus.publish("room.a", event)
            note = await next_of(notes)
            assert (note.type, note.payload) == ("heard", event.payload)
            assert note.metadata == {"n": number, "topic": "room.a"}


async def test_an_event_that_is_refused_is_dead_lettered(host: Host) -> None:
    async with host.bus.subscribe("loom.dead_letter") as dead:
        await host.bus.publish("room.a", Event("word", b"poison"))
        letter = await next_of(dead)
    assert "will not eat that" in str(letter.metadata)


async def test_a_call_of_a_call_that_is_not_granted_is_refused(host: Host) -> None:
    line = r'invoke = \["poly.echo", "poly.count"\]'
    with pytest.raises(PermissionDenied, match=rf"may not invoke 'poly.count'[\s\S]*{line}"):
        await host.invoke("poly.nested", {"name": "poly.count"})


async def test_a_capability_of_another_plugin_is_invoked(
    language: str, built: Path, tmp_path: Path
) -> None:
    async with hosted(tmp_path, language, allow=ALLOW | {"invoke": ["loom.tools"]}) as host:
        answer = await host.invoke("poly.nested", {"name": "loom.tools"})
    assert answer.output == {"tools": []}


async def test_a_deadline_ends_a_loop_without_end(
    language: str, built: Path, tmp_path: Path
) -> None:
    async with hosted(tmp_path, language, quotas={"deadline_ms": 200}) as host:
        with pytest.raises(DeadlineExceeded):
            await host.invoke("poly.spin")
        assert (await host.invoke("poly.count")).output == 1


async def test_many_calls_leave_the_memory_as_it_was(language: str, tmp_path: Path) -> None:
    if language in ("python", "js"):
        pytest.skip("it has a collector of its own; the host renews it at its memory mark")
    async with hosted(tmp_path, language, isolation="thread") as host:
        (plugin,) = host.plugins.values()
        assert plugin.instance is not None
        sizes = []
        for _ in range(2):
            for _ in range(40):
                payload = bytes(50_000)
                await host.invoke("poly.echo", {"value": "x" * 10_000}, payload=payload)
            sizes.append(plugin.instance.usage().memory_bytes)
        assert 0 < sizes[0] == sizes[1]


@pytest.mark.skip(reason="no SDK for Rust: rustc and cargo here come without a wasm32 target")
def test_rust_guest() -> None:
    """Holds a place: sdk/wit/plugin.wit with wit-bindgen is how one would be written."""


# ---- Building ------------------------------------------------------------------------------


def test_a_change_of_source_or_sdk_is_another_build(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    shutil.copytree(POLYGLOT / "c", folder)
    before = inputs_hash(folder, "main.c", wit_dir())
    assert before == inputs_hash(POLYGLOT / "c", "main.c", wit_dir())
    (folder / "more.h").write_text("#define X 1\n")
    assert inputs_hash(folder, "main.c", wit_dir()) != before


def test_an_error_in_c_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include "loom.h"\n\nint wrong(void) { return nothing; }\n')
    with pytest.raises(PluginLoadError, match=r"main\.c:3:\d+: error: .*nothing"):
        ensure_component(tmp_path, "main.c", tmp_path / "cache")


def test_exports_that_clash_with_the_sdks_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(
        "void *cabi_realloc(void *old, unsigned a, unsigned b, unsigned c) { return old; }\n"
        "void after_init(void *answer) {}\n"
    )
    with pytest.raises(PluginLoadError, match=r"cabi_realloc.*after_init.*entry = \"NAME\.wasm"):
        ensure_component(tmp_path, "main.c", tmp_path / "cache")


def test_stdio_in_c_is_refused_with_what_to_use(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "loom.h"\n\n'
        "bool loom_init(const loom_start *start) {\n"
        '    return printf("%zu", start->config.size) > 0;\n}\n'
    )
    with pytest.raises(PluginLoadError, match=r"wasi_snapshot_preview1.*loom_log"):
        ensure_component(tmp_path, "main.c", tmp_path / "cache")


def test_missing_compilers_name_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    for name in ("main.c", "main.js"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(PluginLoadError, match=r"pip install \"loom-host\[build\]\""):
        ensure_component(tmp_path, "main.c", tmp_path / "cache")
    if shutil.which("node"):
        with pytest.raises(PluginLoadError, match=r"npm install --prefix .*componentize-js@"):
            ensure_component(tmp_path, "main.js", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginLoadError, match=r"Node\.js 20"):
        ensure_component(tmp_path, "main.js", tmp_path / "cache")


def test_the_headers_and_the_wit_name_the_same_imports() -> None:
    wit = (ROOT / "sdk" / "wit" / "plugin.wit").read_text()
    interface = wit.split("interface host {")[1].split("\n}")[0]
    names = {line.split(":")[0].strip() for line in interface.splitlines() if ": func(" in line}
    source = (ROOT / "sdk" / "c" / "loom.c").read_text()
    assert {name for name in names if f'HOST("{name}")' not in source} == {"span"}


@pytest.mark.parametrize(
    "ending",
    ["c", pytest.param("zig", marks=pytest.mark.soak), pytest.param("js", marks=pytest.mark.soak)],
)
async def test_the_templates_greet_and_the_documents_show_them(ending: str, tmp_path: Path) -> None:
    if ending == "js" and (why := _js_missing()):
        pytest.skip(why)
    folder = ROOT / "sdk" / "templates" / f"wasm-{ending}"
    shown = (ROOT / "docs" / "LANGUAGES.md").read_text()
    assert f"```{ending}\n{(folder / f'main.{ending}').read_text()}```" in shown
    tables = host_tables(tmp_path)
    tables["host"] |= {"plugin_paths": [str(folder)], "cache_dir": str(default_folder().parent)}
    tables["plugins"] = {"greeter": {"allow": {"provide": ["greeter.greet"]}}}
    async with Host(load_settings(None, tables)) as host:
        answer = await host.invoke("greeter.greet", {"name": 'A"da'})
    assert answer.output == {"greeting": 'A"da'}
