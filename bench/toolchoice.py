"""Scores the choice of a tool by the small local model: `python -m bench.toolchoice [FILE]`.

Each sum goes question -> llm-local -> constrained JSON -> calculator, as in the voice agent; it
counts when the calculator's result is the expected one. Other questions count when no tool is
chosen. Prints JSON; latencies are of `llm.chat` alone, in ms.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from loom_sdk import Plugin
from loom_sdk.errors import LoomError
from loom_sdk.toolchoice import Tool, messages, parse, response_schema, tools_of
from tests.support import ROOT, load_plugin, run_capability, start

HELD_OUT = ROOT / "tests" / "data" / "heldout_sums.json"
MAX_TOKENS = 64


def calculator_tools() -> list[Tool]:
    manifest = ROOT / "plugins" / "wasm" / "calculator" / "plugin.toml"
    return tools_of(tomllib.loads(manifest.read_text())["capability"])


def choose(llm: Plugin, tools: list[Tool], question: str) -> str:
    """The model's answer as it came."""
    arguments = {
        "messages": messages(tools, question),
        "response_schema": response_schema(tools, question),
        "max_tokens": MAX_TOKENS,
        "temperature": 0.0,
    }
    return str(run_capability(llm, "llm.chat", arguments).output["text"])


def result_of(calculator: Plugin, tools: list[Tool], text: str) -> str | None:
    """What the chosen tool answers, None without a tool, the error's class where it fails."""
    try:
        choice = parse(tools, text)
        if choice is None:
            return None
        return str(run_capability(calculator, choice.tool, choice.arguments).output["result"])
    except LoomError as error:
        return type(error).__name__


def score(llm: Plugin, calculator: Plugin, data: dict[str, Any]) -> dict[str, Any]:
    """Counts, latencies and the misses of one file of questions."""
    tools = calculator_tools()
    asked = [(row["question"], row["answer"]) for row in data["sums"]]
    asked += [(question, None) for question in data["other"]]
    choose(llm, tools, "Hello")  # fills the prompt cache, as the agent does at its start
    right, misses, took = {True: 0, False: 0}, [], []
    for question, expected in asked:
        began = time.perf_counter()
        text = choose(llm, tools, question)
        took.append((time.perf_counter() - began) * 1000)
        got = result_of(calculator, tools, text)
        right[expected is not None] += got == expected
        if got != expected:
            misses.append({"question": question, "expected": expected, "got": got, "model": text})
    return {
        "sums_right": right[True],
        "sums": len(data["sums"]),
        "other_right": right[False],
        "other": len(data["other"]),
        "latency_ms_p50": round(statistics.median(took)),
        "latency_ms_max": round(max(took)),
        "misses": misses,
    }


def main(arguments: list[str]) -> None:
    path = Path(arguments[0]) if arguments else HELD_OUT
    llm, calculator = load_plugin("grpc", "llm-local"), load_plugin("wasm", "calculator")
    start(llm)
    print(json.dumps(score(llm, calculator, json.loads(path.read_text())), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
