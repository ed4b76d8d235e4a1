"""What `loom plugin run` shows as it comes: lines for people, or JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from loom_host.telemetry.logs import visible
from loom_sdk.errors import with_code
from loom_sdk.topics import matches

INTERRUPTED = "INTERRUPTED"
"""Code of a command that the author broke off."""
OF_THE_HOST = "loom.>"
"""Shown only where a pattern for them is asked for."""


class Console:
    """Prints what happens; which events is the author's choice."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.pattern = ">"
        """Of topics whose events are shown; empty: none."""
        self.last = time.monotonic()
        """When something was shown or hidden last."""

    def show(self, kind: str, data: Mapping[str, Any]) -> None:
        """One thing that happened."""
        self.last = time.monotonic()
        if kind == "event" and not self._wanted(str(data["topic"])):
            return
        if self.as_json:
            print(json.dumps({"kind": kind, **data}, ensure_ascii=False, default=str), flush=True)
            return
        for line in _LINES[kind](data):
            print(line, flush=True)

    def _wanted(self, topic: str) -> bool:
        if not self.pattern or not matches(self.pattern, topic):
            return False
        return self.pattern.startswith("loom.") or not matches(OF_THE_HOST, topic)


def _pairs(data: Mapping[str, Any]) -> str:
    return "".join(f" {key}={value}" for key, value in data.items())


def _event(data: Mapping[str, Any]) -> Iterator[str]:
    text = f" {data['text']}" if data["text"] else ""
    size = "" if data["text"] else f" {data['payload_bytes']} B"
    who = f"from {data['source']}"
    yield visible(
        f"event  {data['topic']} {data['type']} {who}{_pairs(data['metadata'])}{size}{text}"
    )


def _log(data: Mapping[str, Any]) -> Iterator[str]:
    yield visible(f"{data['level']:6} {data['message']}{_pairs(data.get('fields', {}))}")


def _denied(data: Mapping[str, Any]) -> Iterator[str]:
    yield visible(f"denied {data['permission']}; a host would allow it with, in loom.toml:")
    yield from (f"       {visible(line)}" for line in data["line"].splitlines())


def _building(data: Mapping[str, Any]) -> Iterator[str]:
    yield f"building: {data['seconds']} s" if data["seconds"] else "building"


def _built(data: Mapping[str, Any]) -> Iterator[str]:
    yield f"built {data['path']} in {data['seconds']} s"


def _ready(data: Mapping[str, Any]) -> Iterator[str]:
    yield f"{data['plugin']} runs ({data['tier']}, {data['seconds']} s)"


def _reloaded(data: Mapping[str, Any]) -> Iterator[str]:
    why = f": {', '.join(data['changed'])}" if data["changed"] else ""
    yield f"reloaded ({data['tier']}, {data['seconds']} s){visible(why)}"


def _kept(data: Mapping[str, Any]) -> Iterator[str]:
    first, *rest = data["message"].splitlines()
    yield visible(f"not reloaded: {first}")
    yield from (f"       {visible(line)}" for line in rest)


def _message(data: Mapping[str, Any]) -> Iterator[str]:
    yield from map(visible, str(data["message"]).splitlines())


def _error(data: Mapping[str, Any]) -> Iterator[str]:
    code = str(data.get("code", ""))
    text = with_code("" if code == INTERRUPTED else code, str(data["message"]))
    first, *rest = text.splitlines() or [""]
    yield visible(f"error  {first}")
    yield from (f"       {visible(line)}" for line in rest)


def _answer(data: Mapping[str, Any]) -> Iterator[str]:
    for item in data["items"]:
        yield json.dumps(item, ensure_ascii=False)
    yield json.dumps(data["output"], ensure_ascii=False, indent=2)
    if data["payload_bytes"]:
        yield f"and {data['payload_bytes']} B of {data['content_type'] or 'binary data'}"


def _sent(data: Mapping[str, Any]) -> Iterator[str]:
    yield f"delivered to {data['delivered']} subscription(s)"


def _state(data: Mapping[str, Any]) -> Iterator[str]:
    for key, value in data.items():
        if value not in ("", {}, []):
            yield visible(f"{key:12} {value}")


def _grants(data: Mapping[str, Any]) -> Iterator[str]:
    for kind, values in data["granted"].items():
        yield f"may {kind}: {', '.join(values)}"
    if data["withheld"]:
        yield f"may not network: {', '.join(data['withheld'])} (--allow-network grants it)"
    if not data["granted"] and not data["withheld"]:
        yield "it asks for nothing"


_LINES = {
    "event": _event,
    "log": _log,
    "denied": _denied,
    "building": _building,
    "built": _built,
    "ready": _ready,
    "reloaded": _reloaded,
    "kept": _kept,
    "ended": _error,
    "error": _error,
    "debugger": _message,
    "help": _message,
    "answer": _answer,
    "sent": _sent,
    "state": _state,
    "grants": _grants,
}
