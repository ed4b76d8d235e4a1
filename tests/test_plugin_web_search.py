"""web-search, in the sandbox, against a loopback server in the formats of both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host
from loom_sdk.errors import ActionFailed, PermissionDenied

from .wasm_plugins import Loopback, loopback, wasm_host

SEARXNG = {
    "query": "loom", "number_of_results": 0,
    "results": [
        {"url": "https://a.example/", "title": "The <b>Loom</b>", "content": "Weaves &amp;\n more",
         "engine": "bing", "score": 1.0, "category": "general"},
        {"url": "https://a.example/", "title": "Again", "content": "the same page"},
        {"url": "javascript:alert(1)", "title": "No page", "content": ""},
        {"url": "https://b.example/", "title": "Second", "content": None},
    ],
    "answers": [], "infoboxes": [], "suggestions": [], "unresponsive_engines": [],
}  # fmt: skip
DUCKDUCKGO = {
    "Heading": "Loom", "AbstractText": "A device to weave cloth.", "Abstract": "",
    "AbstractURL": "https://en.example/Loom", "Type": "A", "Results": [],
    "RelatedTopics": [
        {"FirstURL": "https://duck.example/Power", "Text": "Power loom - A mechanised loom."},
        {"Name": "Other", "Topics": [
            {"FirstURL": "https://duck.example/Jacquard", "Text": "Jacquard - With punched cards."},
        ]},
    ],
}  # fmt: skip


@asynccontextmanager
async def search(
    folder: Path, status: int, body: Any, engine: str
) -> AsyncIterator[tuple[Host, Loopback]]:
    with loopback(lambda path, query: (status, body)) as server:
        config = {"engine": engine, "base_url": server.url}
        allow = {"provide": ["web.search"], "network": [server.url]}
        async with wasm_host(folder, "web-search", allow=allow, config=config) as host:
            yield host, server


async def ask(host: Host, query: str = "loom & weft", **arguments: Any) -> Any:
    return (await host.invoke("web.search", {"query": query, **arguments})).output


async def test_searxng(tmp_path: Path) -> None:
    async with search(tmp_path, 200, SEARXNG, "searxng") as (host, server):
        output = await ask(host)
    assert server.asked == [("/search", {"q": "loom & weft", "format": "json"})]
    assert output["results"] == [
        {"title": "The Loom", "url": "https://a.example/", "snippet": "Weaves & more"},
        {"title": "Second", "url": "https://b.example/", "snippet": ""},
    ]
    assert output["speech"] == "The Loom: Weaves & more"


async def test_duckduckgo(tmp_path: Path) -> None:
    async with search(tmp_path, 200, DUCKDUCKGO, "duckduckgo") as (host, server):
        output = await ask(host)
        assert [result["title"] for result in output["results"]] == [
            "Loom", "Power loom", "Jacquard",
        ]  # fmt: skip
        assert output["results"][0]["snippet"] == "A device to weave cloth."
        assert len((await ask(host, limit=2))["results"]) == 2
    path, query = server.asked[0]
    assert (path, query["q"], query["no_html"]) == ("/", "loom & weft", "1")


@pytest.mark.parametrize(
    ("engine", "body"),
    [("searxng", {"results": []}), ("duckduckgo", {"Heading": "", "RelatedTopics": []})],
)
async def test_nothing_found(tmp_path: Path, engine: str, body: Any) -> None:
    async with search(tmp_path, 200, body, engine) as (host, _):
        output = await ask(host, "xyzzy")
    assert (output["results"], output["speech"]) == ([], "I found nothing about xyzzy.")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, b"", "search.formats"),
        (500, b"", "answered 500"),
        (200, b"<html>", "is base_url right"),
        (200, {"results": [1]}, "the answer of"),
        (200, {"no": "results"}, "the answer of"),
    ],
)
async def test_a_server_that_refuses_is_told_of(
    tmp_path: Path, status: int, body: Any, words: str
) -> None:
    async with search(tmp_path, status, body, "searxng") as (host, _):
        with pytest.raises(ActionFailed, match=words) as raised:
            await ask(host)
    assert raised.value.code == "SEARCH_FAILED"


async def test_a_server_that_is_not_granted_is_not_reached(tmp_path: Path) -> None:
    with loopback(lambda path, query: (200, DUCKDUCKGO)) as server:
        allow = {"provide": ["web.search"], "network": ["https://api.duckduckgo.com"]}
        config = {"base_url": server.url}
        async with wasm_host(tmp_path, "web-search", allow=allow, config=config) as host:
            with pytest.raises(PermissionDenied, match=server.url):
                await ask(host)
    assert server.asked == []
