"""`intent.match`: from a question to a tool and its arguments, in milliseconds and without a model
that writes.

All it knows of a tool is its manifest: the examples' questions say what is meant, the JSON Schema
what to take out of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from intent_index import Array, Index, shares
from intent_rejects import REJECTED
from intent_slots import Slots, ordinary_words
from intent_variety import varied

from loom_sdk import AsyncContext, Plugin, capability
from loom_sdk.environment import kept
from loom_sdk.errors import PluginLoadError

TEXTS_AT_ONCE = 64
"""Of one call to embed.text."""
LEARN_TIMEOUT_MS = 120_000
"""For each such call; alone on two cores it takes a quarter of a second."""

Entry = Mapping[str, Any]
"""A tool as `loom.tools` lists it."""


class ToolSet:
    """What was learned of some tools."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.names = [str(entry["name"]) for entry in entries]
        asked = [_asked(entry) for entry in entries]
        places = [
            name
            for entry, rows in zip(entries, asked, strict=True)
            for name in _places(entry, rows)
        ]
        questions = [str(example["question"]) for rows in asked for example in rows]
        ordinary = ordinary_words([*REJECTED, *questions], places)
        self._slots = [
            Slots(entry.get("input_schema") or {}, rows, ordinary)
            for entry, rows in zip(entries, asked, strict=True)
        ]
        self.questions, self._classes = list(REJECTED), [len(entries)] * len(REJECTED)
        for number, entry in enumerate(entries):
            lessons = [*_lessons(entry), *((q, True) for q in varied(entry, asked[number]))]
            self.questions += [question for question, _ in lessons]
            self._classes += [number if meant else len(entries) for _, meant in lessons]
        self._index: Index | None = None

    def learn(self, vectors: Array) -> None:
        """`vectors`: a row of length 1 for each of `questions`."""
        self._index = Index(self.questions, self._classes, vectors)

    def match(self, text: str, vector: Array, min_score: float) -> dict[str, Any]:
        """The output of `intent.match`."""
        assert self._index is not None, "learn was not called"
        values = self._index.values(text, vector)
        best = int(values[:-1].argmax())
        score = float(shares(values)[best])
        found, missing = self._slots[best].fill(text)
        name = self.names[best]
        if missing or score < min_score:
            return _answer("", {}, score, name, missing)
        return _answer(name, found, score, name, [])


class IntentMiniLm(Plugin):
    """Learns a set of tools at its first use and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self._sets: OrderedDict[str, asyncio.Task[ToolSet]] = OrderedDict()
        self._ctx: AsyncContext | None = None
        self._threads: Any = None

    async def start(self, ctx: AsyncContext) -> None:
        """Raises PluginLoadError where threadpoolctl is not installed."""
        try:
            with kept():  # it sets a variable that is for others
                from threadpoolctl import ThreadpoolController
        except ImportError as error:
            raise PluginLoadError(
                f"{error.name} is not installed: run `pip install 'loom-host[voice]'`"
            ) from error
        self._threads = ThreadpoolController()
        self._ctx = ctx

    async def stop(self, ctx: AsyncContext) -> None:
        for task in self._sets.values():
            task.cancel()
        await asyncio.gather(*self._sets.values(), return_exceptions=True)
        self._sets.clear()

    @capability("intent.match", effects="none")
    async def match(
        self, ctx: AsyncContext, text: str, tools: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """The tool that a question is for and its arguments; no tool where none is meant.

        Args:
            text: what was said
            tools: tools to choose from, as loom.tools lists them; those this plugin may invoke
                where absent
        """
        if tools is None:
            tools = (await ctx.invoke("loom.tools")).output["tools"]
        if not tools or not text.strip():
            return _answer("", {}, 0.0, "", [])
        # Who asks may give up; what is being learned then is there for the next question.
        known = await asyncio.shield(self._learned(sorted(tools, key=lambda t: str(t["name"]))))
        vectors = await _embedded(ctx, [text])
        return await asyncio.to_thread(self._match, known, text, vectors[0])

    def _match(self, known: ToolSet, text: str, vector: Array) -> dict[str, Any]:
        # Threads of so small a product wait for each other longer than they work.
        with self._threads.limit(limits=1, user_api="blas"):
            return known.match(text, vector, self.config["min_score"])

    def _learned(self, entries: Sequence[Entry]) -> asyncio.Task[ToolSet]:
        key = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
        task = self._sets.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._sets[key] = asyncio.create_task(self._learn(entries))
        self._sets.move_to_end(key)
        if len(self._sets) > self.config["max_sets"]:
            self._sets.popitem(last=False)  # whoever waits for it still gets it
        return task

    async def _learn(self, entries: Sequence[Entry]) -> ToolSet:
        """Outside of any call: it may last longer than the one that began it."""
        assert self._ctx is not None, "start was not called"
        tools = ToolSet(entries)
        vectors = await _embedded(self._ctx, tools.questions, timeout_ms=LEARN_TIMEOUT_MS)
        await asyncio.to_thread(tools.learn, vectors)
        return tools


def _answer(
    tool: str, arguments: dict[str, Any], score: float, candidate: str, missing: list[str]
) -> dict[str, Any]:
    return {
        "tool": tool or None,
        "arguments": arguments,
        "score": round(score, 4),
        "candidate": candidate or None,
        "missing": missing,
    }


def _asked(entry: Entry) -> list[Entry]:
    """The examples that say which arguments a question gives."""
    return [e for e in entry.get("examples", ()) if "question" in e and "arguments" in e]


def _places(entry: Entry, examples: Sequence[Entry]) -> list[str]:
    """The names of places in a tool's examples."""
    properties = (entry.get("input_schema") or {}).get("properties", {})
    slots = [name for name, schema in properties.items() if schema.get("x-slot") == "place"]
    return [str(e["arguments"][name]) for e in examples for name in slots if name in e["arguments"]]


def _lessons(entry: Entry) -> list[tuple[str, bool]]:
    """What a tool is learned from: each text, and whether the tool is meant by it."""
    rows = [
        (str(example["question"]), "arguments" in example)
        for example in entry.get("examples", ())
        if "question" in example
    ]
    # A tool without examples is found by its description, or not at all.
    return [*rows, (str(entry["description"]), True)] if entry.get("description") else rows


async def _embedded(
    ctx: AsyncContext, texts: Sequence[str], timeout_ms: int | None = None
) -> Array:
    """One row of length 1 for each text."""
    import numpy as np

    rows = []
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        part = list(texts[first : first + TEXTS_AT_ONCE])
        result = await ctx.invoke("embed.text", {"texts": part}, timeout_ms=timeout_ms)
        rows.append(np.frombuffer(result.payload, "<f4").reshape(len(part), -1))
    return np.concatenate(rows)
