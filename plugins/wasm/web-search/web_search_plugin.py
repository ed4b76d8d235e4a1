"""Searching the web, through a SearXNG server or DuckDuckGo's instant answers.

SearXNG's JSON must be switched on by its operator (`search.formats` in its settings.yml); see
https://docs.searxng.org/dev/search_api.html. DuckDuckGo's API needs no key, and knows topics
rather than pages: https://api.duckduckgo.com/api.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypedDict
from urllib.parse import urlencode, urlsplit

from loom_sdk import Context, Plugin, tool
from loom_sdk.errors import ActionFailed

SNIPPET_LENGTH = 400
"""Characters of a page's text that are kept."""


class Found(TypedDict):
    title: str
    url: str
    snippet: Annotated[str, "plain text from the page"]


class WebSearch(Plugin):
    """Needs a network grant for the server of its settings."""

    @tool("web.search", effects="none")
    def search(self, ctx: Context, query: str, limit: int = 5) -> dict[str, Any]:
        """Search the web.

        Args:
            query: what to look for
            limit: how many results at most

        Raises:
            ActionFailed: SEARCH_FAILED where the server refuses or answers what is not its format.
        """
        read = _searxng if self.config["engine"] == "searxng" else _duckduckgo
        path, extra = _REQUESTS[self.config["engine"]]
        body = self._get(ctx, path, {"q": query.strip(), "format": "json", **extra})
        try:
            results = list(_unique(read(body)))[: max(limit, 0)]
        except (KeyError, TypeError, AttributeError) as error:
            raise _failed(f"the answer of {self.config['base_url']} is not {error!r}") from error
        return {"query": query, "results": results, "speech": _speech(query, results)}

    def _get(self, ctx: Context, path: str, query: dict[str, str]) -> Any:
        url = f"{self.config['base_url'].rstrip('/')}{path}"
        response = ctx.http.request(
            "GET", f"{url}?{urlencode(query)}", headers={"Accept": "application/json"},
            timeout_ms=int(self.config["timeout_ms"]),
        )  # fmt: skip
        if response.status == 403 and self.config["engine"] == "searxng":
            raise _failed(f"{url} refuses JSON: add it to search.formats in its settings.yml")
        if not 200 <= response.status < 300:
            raise _failed(f"{url} answered {response.status}")
        try:
            return json.loads(response.body)
        except ValueError as error:
            raise _failed(f"{url} answered no JSON: is base_url right?") from error


_REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "searxng": ("/search", {}),
    "duckduckgo": ("/", {"no_html": "1", "no_redirect": "1", "skip_disambig": "1"}),
}


def _searxng(body: Any) -> Iterator[Found]:
    for result in body["results"]:
        yield _found(result.get("title"), result.get("url"), result.get("content"))


def _duckduckgo(body: Any) -> Iterator[Found]:
    yield _found(body.get("Heading"), body.get("AbstractURL"), body.get("AbstractText"))
    for topic in body.get("Results", []) + body["RelatedTopics"]:
        for item in topic.get("Topics", [topic]):
            text = item.get("Text") or ""
            yield _found(text.partition(" - ")[0], item.get("FirstURL"), text)


def _found(title: str | None, url: str | None, text: str | None) -> Found:
    return {"title": _plain(title), "url": url or "", "snippet": _plain(text)[:SNIPPET_LENGTH]}


def _plain(text: str | None) -> str:
    """Without tags, entities and line breaks: what comes from the web goes to a model as text."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text or "")).split())


def _unique(found: Iterable[Found]) -> Iterator[Found]:
    seen: set[str] = set()
    for result in found:
        url = result["url"]
        if urlsplit(url).scheme in ("http", "https") and url not in seen:
            seen.add(url)
            yield result


def _speech(query: str, results: list[Found]) -> str:
    if not results:
        return f"I found nothing about {query}."
    best = results[0]
    return f"{best['title']}: {best['snippet']}" if best["snippet"] else best["title"]


def _failed(message: str) -> ActionFailed:
    return ActionFailed(message, code="SEARCH_FAILED")
