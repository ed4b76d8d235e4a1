"""`loom demo --five`: five spoken questions, five tools, by the quick path and by the model's."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loom_host.config import load_settings
from loom_host.host import Host
from loom_host.turn import settle, speak_file
from loom_sdk.errors import ActionFailed

from .common import print_json, print_table
from .demo_weather import weather_server

FOLDER = Path(__file__).parent.parent / "data" / "five"
WARM_TIMEOUT_S = 180.0
LLM_TIMEOUT_MS = 60_000
"""The score is of answers, not of time: a cold model reads the tools for some seconds."""
PATHS = {"quick": "auto", "model": "off"}
"""The two ways to an answer, and the voice agent's `intent` for each."""


def questions() -> list[dict[str, str]]:
    """file, text, tool, and what the answer must contain."""
    rows: list[dict[str, str]] = json.loads((FOLDER / "index.json").read_text())
    return rows


async def ask_all(path: str, pace: str, out: Path) -> dict[str, Any]:
    """The five questions to one host of the profile `assistant`, which keeps its files in `out`.

    Args:
        path: `quick` or `model`.
        pace: `realtime` or `fast`.

    Returns:
        {path, right, of, p50_ms, answers}: the median from transcript to answer, and a row for
        each question.
    """
    with weather_server() as url:
        settings = load_settings(None, _tables(url, out, PATHS[path]))
        async with Host(settings) as host:
            await host.settled()
            await settle(host, time.monotonic() + WARM_TIMEOUT_S)
            for name, handle in host.plugins.items():
                if handle.state == "failed":
                    print(f"loom: {name}: {handle.explain()}", file=sys.stderr)
            rows = [await _ask(host, row, pace) for row in questions()]
    times = [row["answer_ms"] for row in rows if row["answer_ms"]]
    return {
        "path": path,
        "right": sum(row["right"] for row in rows),
        "of": len(rows),
        "p50_ms": round(statistics.median(times), 1) if times else None,
        "answers": rows,
    }


def _tables(url: str, out: Path, intent: str) -> dict[str, Any]:
    """A weather server of this machine, and storage that is gone afterwards."""
    return {
        "extends": "assistant",
        "host": {"data_dir": str(out / "data"), "runtime_dir": str(out / "run"), "control": False},
        "plugins": {
            "audio-io": {"config": {"sink": "wav", "sink_path": str(out / "answer.wav")}},
            "weather": {
                "config": {"geocoding_url": url, "forecast_url": url},
                "allow": {"network": [url]},
            },
            "voice-agent": {"config": {"intent": intent, "llm_timeout_ms": LLM_TIMEOUT_MS}},
        },
    }


async def _ask(host: Host, row: Mapping[str, str], pace: str) -> dict[str, Any]:
    """One question, and whether its answer is right."""
    spoken = asyncio.create_task(_first_words(host))
    try:
        turn = await speak_file(host, FOLDER / row["file"], pace)
        answered = await asyncio.wait_for(spoken, 1.0)
    except (ActionFailed, TimeoutError) as error:
        return _row(row) | {"error": str(error) or "no answer"}
    finally:
        spoken.cancel()
        await asyncio.gather(spoken, return_exceptions=True)
    report, heard = turn.report(), turn.answered()
    tool = report["tool"] or {}
    right = tool.get("name") == row["tool"] and row["answer"] in report["answer"]
    return _row(row) | {
        "heard": report["transcript"],
        "path": turn.result.get("path"),
        "route": report["route"],
        "tool": tool.get("name"),
        "arguments": tool.get("arguments"),
        "answer": report["answer"],
        "right": right,
        "answer_ms": round(answered - heard.transcript_ms, 1),
    }


def _row(row: Mapping[str, str]) -> dict[str, Any]:
    return {"asked": row["text"], "right": False, "answer_ms": None}


async def _first_words(host: Host) -> float:
    """When the first words of the next answer were published, in Unix ms."""
    async with host.bus.subscribe("assistant", name="demo:assistant") as events:
        async for event in events:
            if event.type in ("assistant.token", "assistant.message"):
                return event.timestamp_ms
    return 0.0


async def run_five(pace: str, as_json: bool) -> int:
    """Both paths, one after the other. Returns the exit code: 1 unless the quick one is right."""
    found = []
    for path in PATHS:
        print(f"starting a host; the {path} path", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="loom-five-") as folder:
            found.append(await ask_all(path, pace, Path(folder)))
        if not as_json:
            _print(found[-1])
    if as_json:
        print_json(found)
    return 0 if found[0]["right"] == found[0]["of"] else 1


def _print(score: Mapping[str, Any]) -> None:
    rows: Sequence[Mapping[str, Any]] = score["answers"]
    print(f"{score['path']} path: {score['right']} of {score['of']} right; transcript to answer "
          f"p50 {score['p50_ms']} ms")  # fmt: skip
    print_table(
        ("HEARD", "ROUTE", "PATH", "TOOL", "ANSWER", "MS", "RIGHT"),
        [
            (
                row.get("heard", row["asked"]),
                (row.get("route") or {}).get("route", "-"),
                row.get("path") or "-",
                row.get("tool") or "-",
                row.get("answer") or row.get("error", "-"),
                row["answer_ms"] or "-",
                "yes" if row["right"] else "no",
            )
            for row in rows
        ],
    )
    print()
