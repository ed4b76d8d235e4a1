"""Scores the choice of a tool with its arguments: `python -m bench.intents [--no-llm] [FILE]`.

Each utterance of the file goes to `intent.match` with eight tools, and to `llm-local` with the same
tools. An answer counts when the tool is right and its arguments mean what is expected: a sum has
the expected result, a conversion that of the expected amount and units, a place, note or search the
same words. Prints JSON; latencies in ms, as the caller sees them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import tomllib
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loom_host import Host, load_settings
from loom_sdk.errors import LoomError
from tests.hosting import host_tables
from tests.support import ROOT

HELD_OUT = ROOT / "tests" / "data" / "heldout_intents.json"
SOURCES = {
    "wasm/calculator": ("calculator.evaluate",),
    "wasm/weather": ("weather.get",),
    "wasm/notes": ("notes.add", "notes.list"),
    "native/clock": ("clock.now", "clock.timer"),
    "grpc/unit-converter": ("units.convert",),
    "wasm/web-search": ("web.search",),
}
PLUGINS: dict[str, dict[str, Any]] = {
    "embed-minilm": {"allow": {"provide": ["embed.text"]}},
    "intent-minilm": {"allow": {"provide": ["intent.match"], "invoke": ["embed.text"]}},
    "calculator": {"tier": "native", "allow": {"provide": ["calculator.evaluate"]}},
    "unit-converter": {"allow": {"provide": ["units.convert"]}},
}
LLM = {"llm-local": {"tier": "native", "allow": {"provide": ["llm.chat"], "devices": ["loopback"]}}}
LEARN_TIMEOUT_MS = 120_000
SAME = 1e-6
"""Largest relative difference of two results that are the same."""
LEADING = ("to", "that", "the", "a", "an", "my")
"""Words that a note, a place or a search may begin with or not: the sense is the same."""

Choice = tuple[str | None, Mapping[str, Any]]
"""Name of the tool, None for none, and its arguments."""


def entries() -> list[dict[str, Any]]:
    """The eight tools, as `loom.tools` lists them."""
    found = []
    for source, names in SOURCES.items():
        manifest = tomllib.loads((ROOT / "plugins" / source / "plugin.toml").read_text())
        for table in manifest["capability"]:
            if table["name"] in names:
                fields = {k: table[k] for k in ("name", "description", "examples")}
                found.append(fields | {"input_schema": table["input"]})
    return found


async def matched(host: Host, tools: Sequence[Mapping[str, Any]], text: str) -> Choice:
    arguments = {"text": text, "tools": tools}
    output = (await host.invoke("intent.match", arguments, timeout_ms=LEARN_TIMEOUT_MS)).output
    return output["tool"], output["arguments"]


async def chosen(host: Host, tools: Sequence[Mapping[str, Any]], text: str) -> Choice:
    """What the language model chooses; a choice that it breaks off is none."""
    asked = {
        "messages": [{"role": "user", "content": text}],
        "tools": tools,
        "max_tokens": 1,
        "temperature": 0.0,
    }
    try:
        result = await host.invoke("llm.chat", asked, timeout_ms=60_000)
    except LoomError as error:
        return f"{type(error).__name__}: {error.message[:80]}", {}
    calls = result.output["tool_calls"]
    return (calls[0]["name"], calls[0]["arguments"]) if calls else (None, {})


async def is_right(host: Host, row: Mapping[str, Any], choice: Choice) -> bool:
    """Whether an answer means what the row of the file expects."""
    tool, given = choice
    expected = row["arguments"]
    if tool != row["tool"]:
        return False
    if tool == "calculator.evaluate":
        result = await _output(host, tool, given)
        return result is not None and _close(result["result"], expected["value"])
    if tool == "units.convert":
        asked = f"{expected['value']} {expected['from']} in {expected['to']}"
        want, got = await _output(host, tool, {"question": asked}), await _output(host, tool, given)
        if want is None:
            raise ValueError(f"the expected conversion is not understood: {asked}")
        return got is not None and (
            got["unit"] == want["unit"] and _close(got["value"], want["value"])
        )
    if tool == "clock.timer":
        return _close(given.get("seconds", 0), expected["seconds"])
    names = {"location": "city"}
    return all(
        _plain(given.get(names.get(key, key), "")) == _plain(expected.get(key, ""))
        for key in _WORDS.get(tool or "", ())
    )


_WORDS = {
    "weather.get": ("location",),
    "clock.now": ("place",),
    "notes.add": ("text",),
    "web.search": ("query",),
}


async def _output(host: Host, tool: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return (await host.invoke(tool, dict(arguments))).output
    except LoomError:
        return None


def _close(one: Any, other: Any) -> bool:
    try:
        return abs(float(one) - float(other)) <= SAME * max(1.0, abs(float(other)))
    except ValueError:
        return False


def _plain(text: Any) -> str:
    """Lower case without accents, marks and leading small words."""
    letters = unicodedata.normalize("NFKD", str(text).lower().replace("'", "").replace("’", ""))
    kept = "".join(c if c.isalnum() else " " for c in letters if not unicodedata.combining(c))
    words = kept.split()
    while len(words) > 1 and words[0] in LEADING:
        words.pop(0)
    return " ".join(words)


Chooser = Callable[[Host, Sequence[Mapping[str, Any]], str], Awaitable[Choice]]


async def score(host: Host, rows: Sequence[Mapping[str, Any]], choose: Chooser) -> dict[str, Any]:
    """Counts, latencies and the misses of one way to choose."""
    tools = entries()
    await choose(host, tools, "Hello")  # learns the tools, or fills the prompt cache
    took, misses = [], []
    right_tool = 0
    for row in rows:
        began = time.perf_counter()
        choice = await choose(host, tools, row["text"])
        took.append((time.perf_counter() - began) * 1000)
        right_tool += choice[0] == row["tool"]
        if not await is_right(host, row, choice):
            misses.append({**row, "got": choice})
    return {
        "right": len(rows) - len(misses),
        "of": len(rows),
        "right_tool": right_tool,
        "rejects_right": sum(not r["tool"] for r in rows) - sum(not m["tool"] for m in misses),
        "rejects": sum(not row["tool"] for row in rows),
        "latency_ms_p50": round(statistics.median(took), 1),
        "latency_ms_max": round(max(took), 1),
        "misses": misses,
    }


async def report(rows: Sequence[Mapping[str, Any]], *, llm: bool) -> dict[str, Any]:
    """The scores of the matcher and, with `llm`, of the small language model."""
    with tempfile.TemporaryDirectory() as folder:
        tables = host_tables(Path(folder))
        tables["plugins"] = PLUGINS | (LLM if llm else {})
        async with Host(load_settings(None, tables)) as host:
            await host.settled()
            found = {"intent-minilm": await score(host, rows, matched)}
            if llm:
                found["llm-local"] = await score(host, rows, chosen)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.intents", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=HELD_OUT)
    parser.add_argument("--no-llm", action="store_true", help="the matcher alone")
    arguments = parser.parse_args()
    found = asyncio.run(report(json.loads(arguments.file.read_text()), llm=not arguments.no_llm))
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
