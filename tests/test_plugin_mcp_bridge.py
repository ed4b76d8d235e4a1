"""The bridge's mapping of an MCP server's tools and answers, whatever strangers say."""

from __future__ import annotations

import asyncio
import base64
import importlib
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_sdk.errors import ActionFailed

from .hosting import until
from .support import ROOT

FOLDER = ROOT / "plugins" / "grpc" / "mcp-bridge"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))
tools: Any = importlib.import_module("mcp_bridge_tools")


def tool(name: str, **fields: Any) -> Any:
    own = {"description": "", "title": "", "input_schema": {"type": "object"}}
    return SimpleNamespace(
        name=name, **(own | {"output_schema": None, "annotations": None} | fields)
    )


def answer(*content: Any, structured: Any = None, error: bool = False) -> Any:
    return SimpleNamespace(content=list(content), structured_content=structured, is_error=error)


def block(kind: str, **fields: Any) -> Any:
    return SimpleNamespace(type=kind, **fields)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("read_file", "read_file"),
        ("getThing", "get_thing"),
        ("a.b/c", "a_b_c"),
        ("Ünï Code", "n_code"),
        ("../../etc/passwd", "etc_passwd"),
        ("\x1b[31m", "31m"),
        ("", ""),
        ("日本", ""),
    ],
)
def test_a_tools_name_becomes_a_part_of_a_capabilitys(name: str, word: str) -> None:
    assert tools.word_of(name) == word


@given(st.text(max_size=300))
def test_whatever_a_tool_is_called_its_word_is_safe_and_stays(name: str) -> None:
    word = tools.word_of(name)
    assert re.fullmatch(r"[a-z0-9_-]{0,64}", word)
    assert tools.word_of(word).strip("_") == word.strip("_")


def test_names_that_meet_are_told_and_the_first_one_keeps_it() -> None:
    found, left_out = tools.capabilities("p", [tool("getA"), tool("get_a"), tool("")], 9)
    assert {name: own for name, (own, _) in found.items()} == {"p.get_a": "getA"}
    assert left_out == [
        "'get_a': 'getA' has the name p.get_a already", "'': no letter or digit in its name"
    ]  # fmt: skip


def test_no_more_tools_are_taken_than_may_be() -> None:
    found, left_out = tools.capabilities("p", [tool(f"t{n}") for n in range(10)], 3)
    assert sorted(found) == ["p.t0", "p.t1", "p.t2"]
    assert left_out == ["'t3' and all after it: more than 3 tools"]


def test_a_schema_that_no_model_could_read_is_left_out_with_its_tool() -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"properties": {"a": deep}}
    wide = {"enum": ["x" * 40_000]}
    found, left_out = tools.capabilities(
        "p", [tool("deep", input_schema=deep), tool("wide", input_schema=wide), tool("fine")], 9
    )
    assert list(found) == ["p.fine"]
    assert len(left_out) == 2


@pytest.mark.parametrize(
    ("hints", "effects"),
    [
        (None, "once"),
        ({}, "once"),
        ({"read_only_hint": True}, "none"),
        ({"idempotent_hint": True}, "idempotent"),
        ({"destructive_hint": False}, "once"),
        ({"read_only_hint": True, "destructive_hint": True}, "none"),
    ],
)
def test_hints_become_effects_and_without_them_a_tool_acts_once(hints: Any, effects: str) -> None:
    both = {"read_only_hint": None, "idempotent_hint": None}
    given_hints = None if hints is None else SimpleNamespace(**(both | hints))
    assert tools.effects_of(given_hints) == effects


def test_structured_content_is_the_output_and_text_where_there_is_none() -> None:
    said = block("text", text="one")
    assert tools.result_of("t", answer(said, structured={"a": 1}))[0].output == {"a": 1}
    assert tools.result_of("t", answer(said, said))[0].output == {"text": "one\none"}
    assert tools.result_of("t", answer())[0].output is None


def test_the_first_binary_is_the_payload_and_the_others_are_items() -> None:
    data = base64.b64encode(b"png").decode()
    blob = SimpleNamespace(uri="file:///x", blob=data, mime_type=None)
    result, items = tools.result_of(
        "t",
        answer(block("image", data=data, mime_type="image/png"), block("resource", resource=blob)),
    )
    assert (result.payload, result.content_type) == (b"png", "image/png")
    assert [(i.payload, i.content_type) for i in items] == [(b"png", "application/octet-stream")]
    assert result.output == {"links": ["file:///x"]}


def test_a_tool_that_says_that_it_failed_fails() -> None:
    with pytest.raises(ActionFailed, match="files.get failed: no such file") as raised:
        tools.result_of("files.get", answer(block("text", text="no such file"), error=True))
    assert raised.value.code == "MCP_TOOL_ERROR"


def test_an_error_as_long_as_a_book_is_cut() -> None:
    with pytest.raises(ActionFailed) as raised:
        tools.result_of("t", answer(block("text", text="x" * 1_000_000), error=True))
    assert len(raised.value.message) <= 16_000


def test_binary_that_is_none_is_told() -> None:
    with pytest.raises(ActionFailed, match="not base64"):
        tools.result_of("t", answer(block("image", data="%%%", mime_type="image/png")))


async def test_a_server_that_cannot_list_its_changed_tools_is_told_and_watched_on() -> None:
    plugin: Any = importlib.import_module("mcp_bridge_plugin")
    answers: list[Any] = [RuntimeError("no list"), []]

    async def listed() -> Any:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    bridge = plugin.McpBridge()
    bridge.config = {"name": "files", "tools": 9}
    bridge._tools, bridge._problem = {}, ""
    bridge._link = SimpleNamespace(tools=listed, changed=asyncio.Event())
    watching = asyncio.create_task(bridge._watch(SimpleNamespace(plugin_id="loom/files")))
    bridge._link.changed.set()
    await until(bridge.health)
    assert "no list" in bridge.health()
    assert not watching.done()
    watching.cancel()
    assert await bridge._changes(SimpleNamespace(plugin_id="loom/files")) == ""


async def test_a_server_that_never_lists_its_changed_tools_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin: Any = importlib.import_module("mcp_bridge_plugin")
    monkeypatch.setattr(plugin, "RELIST_S", 0.05)
    bridge = plugin.McpBridge()
    bridge.config = {"name": "files", "tools": 9}
    bridge._link = SimpleNamespace(tools=asyncio.Event().wait)
    told = await bridge._changes(SimpleNamespace(plugin_id="loom/files"))
    assert "did not list them within" in told
