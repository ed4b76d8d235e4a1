"""`loom demo`: a recording of a question goes in, a spoken answer comes out."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from loom_host import status
from loom_host.host import Host
from loom_host.turn import Turn, ask_text, settle, speak_file
from loom_sdk.errors import ActionFailed

from .common import WrongUsage, add_json, print_json, print_table, settings_of, size
from .demo_five import run_five

QUESTION = Path(__file__).parent.parent / "data" / "question.wav"
WARM_TIMEOUT_S = 120.0
CONVERT = "convert it, for example: ffmpeg -i IN -ar 16000 -ac 1 -c:a pcm_s16le OUT.wav"
SHOWN = ("id", "tier", "state", "calls", "peak_memory", "restarts")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("demo", help="answer a recorded question, spoken")
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--wav", metavar="FILE", help="any recording; default a shipped one")
    parser.add_argument("--out", metavar="FILE", default="answer.wav", help="the spoken answer")
    question.add_argument(
        "--text",
        type=_question,
        nargs="?",
        const="What is 12 times 9?",
        metavar="QUESTION",
        help="a typed question instead of a recording",
    )
    question.add_argument(
        "--five", action="store_true", help="five spoken questions for five tools, with their score"
    )
    parser.add_argument(
        "--pace",
        choices=("realtime", "fast"),
        default="realtime",
        help="feed the recording as it was spoken, or as fast as possible",
    )
    add_json(parser)
    parser.set_defaults(handler=run)


def _question(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("empty: write a question, or leave --text out")
    return text


async def run(arguments: argparse.Namespace) -> int:
    if arguments.five:
        return await run_five(arguments.pace, arguments.json)
    wav = _recording(arguments)
    _check_out(Path(arguments.out))
    sink = {"sink": "wav", "sink_path": _absolute(arguments.out)}
    overrides = {"plugins": {"audio-io": {"config": sink}}}
    settings = settings_of(arguments.config, overrides)
    print("starting the host and its plugins", file=sys.stderr)
    async with Host(settings) as host:
        await _warm(host)
        if arguments.text:
            turn = await ask_text(host, arguments.text)
        else:
            print(f"listening to {wav}", file=sys.stderr)
            turn = await speak_file(host, wav, arguments.pace)
        report = turn.report()
        _name_tier(host, report["tool"])
        rows = [row for row in status.plugin_rows(host) if row["state"] != "stopped"]
        report["plugins"] = [{k: row[k] for k in SHOWN} for row in rows]
    if arguments.json:
        print_json(report)
    else:
        _print(report)
    return _exit_code(turn)


def _name_tier(host: Host, tool: dict[str, Any] | None) -> None:
    """An agent knows which plugin served its tool, the host knows where that runs."""
    if tool and (served := host.plugins.get(tool.get("provider", ""))):
        tool["tier"] = served.spec.tier


def _recording(arguments: argparse.Namespace) -> Path:
    """Told before any model is loaded, where it is no recording at all."""
    wav = Path(arguments.wav) if arguments.wav else QUESTION
    if arguments.text:
        return wav
    if wav.is_dir():
        raise ActionFailed(f"{wav}: a folder; name a WAV file in it", code="AUDIO_FILE_INVALID")
    if not wav.is_file():
        raise ActionFailed(f"{wav}: no such file", code="AUDIO_FILE_MISSING")
    with wav.open("rb") as file:
        head = file.read(12)
    if not head:
        raise ActionFailed(f"{wav}: empty (0 bytes); record it again", code="AUDIO_FILE_EMPTY")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise ActionFailed(f"{wav}: not a WAV file; {CONVERT}", code="AUDIO_FILE_INVALID")
    return wav


def _check_out(out: Path) -> None:
    """Told before any model is loaded, where an answer could not be written."""
    if not out.parent.is_dir():
        fix = f"make it with `mkdir -p {out.parent}`"
        raise WrongUsage(f"--out {out}: there is no folder {out.parent}; {fix}")
    if out.is_dir():
        raise WrongUsage(f"--out {out}: a folder; name a file in it, such as {out / 'answer.wav'}")


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


async def _warm(host: Host) -> None:
    """A demo is timed from the end of speech: wait until every plugin is ready or has failed."""
    await host.settled()
    await settle(host, time.monotonic() + WARM_TIMEOUT_S)
    for row in status.plugin_rows(host):
        if row["state"] == "failed":
            print(f"loom: {row['name']}: {row['reason']}", file=sys.stderr)


def _exit_code(turn: Turn) -> int:
    if turn.status in ("", "ok"):
        return 0
    print(f"loom: {turn.message or turn.status}", file=sys.stderr)
    return 1


def _print(report: dict[str, Any]) -> None:
    wake, tool, route = report["wake"], report["tool"], report["route"]
    rows = [
        ("wake", f"{wake['phrase']} ({float(wake['score']):.2f})" if wake else "-"),
        ("heard", report["transcript"]),
        ("route", f"{route['route']}: {route['reason']}" if route else "-"),
        ("tool", f"{tool['name']} {tool['arguments']} -> {tool['result']}" if tool else "-"),
        ("answer", report["answer"]),
    ]
    if report["audio_out"]:
        rows.append(
            ("audio", f"{report['audio_out']['path']} ({report['audio_out']['seconds']} s)")
        )
    for name, text in rows:
        print(f"{name:>8}  {text}")
    print(f"{'stages':>8}  " + "  ".join(f"{k} {v}" for k, v in report["stages"].items()))
    print()
    print_table(
        ("PLUGIN", "TIER", "STATE", "CALLS", "PEAK", "RESTARTS"),
        [
            (p["id"], p["tier"], p["state"], p["calls"], size(p["peak_memory"]), p["restarts"])
            for p in report["plugins"]
        ],
    )
