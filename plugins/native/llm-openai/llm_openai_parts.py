"""What both dialects speak of: a question to the server, and what an event of its stream says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loom_sdk.engines import Message, ToolCall, ToolSpec
from loom_sdk.events import new_id

MAX_NAME = 64
"""Characters of a function's name: the clouds take `^[a-zA-Z0-9_-]{1,64}$`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of `llm.chat` with the plugin's defaults filled in."""

    messages: Sequence[Message]
    model: str
    max_tokens: int
    temperature: float
    stop: tuple[str, ...] = ()
    response_schema: Mapping[str, Any] | None = None
    tools: Sequence[ToolSpec] = ()
    tool_choice: str = "auto"
    parallel: bool | None = None
    """Whether several calls at once are wanted; None leaves it to the server."""
    quiet: bool = False
    """The text is not for the caller's listener."""


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of a tool call; those of one key belong together."""

    key: str
    id: str = ""
    name: str = ""
    arguments: str = ""
    whole: bool = False
    """It holds all, and replaces what came before."""


@dataclass(slots=True)
class Piece:
    """What one event of the stream says."""

    delta: str = ""
    calls: list[CallPart] = field(default_factory=list)
    usage: tuple[int, int] | None = None
    """Tokens in and out."""
    model: str = ""
    error: str = ""
    finish: str = ""
    """`stop`, `length`, `tool_calls` or `content_filter`, once the server has said it."""
    done: bool = False
    """Nothing follows."""
    thinks: bool = False
    """A part of its reasoning or of a call's arguments, of which nothing is kept."""

    @property
    def speaks(self) -> bool:
        """Whether the model has written something."""
        return bool(self.delta or self.calls) or self.thinks


class Names:
    """Capability names as function names and back: dots become underscores, twins get a number."""

    def __init__(self, names: Iterable[str]) -> None:
        self._wire: dict[str, str] = {}
        self._own: dict[str, str] = {}
        for name in names:
            self.wire(name)

    @classmethod
    def of(cls, ask: Ask) -> Names:
        said = (call["name"] for m in ask.messages for call in m.get("tool_calls", ()))
        return cls([*(tool["name"] for tool in ask.tools), *said])

    def wire(self, name: str) -> str:
        if name not in self._wire:
            base = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:MAX_NAME] or "_"
            short, number = base, 2
            while short in self._own:
                short = f"{base[: MAX_NAME - len(str(number)) - 1]}_{number}"
                number += 1
            self._wire[name], self._own[short] = short, name
        return self._wire[name]

    def own(self, wire: str) -> str:
        """A name that was never sent stays as it is, for the caller to refuse."""
        return self._own.get(wire, wire)


class Calls:
    """Tool calls that come in parts."""

    def __init__(self) -> None:
        self._parts: dict[str, list[CallPart]] = {}

    def take(self, parts: Iterable[CallPart]) -> None:
        for part in parts:
            if part.whole:
                self._parts[part.key] = []
            self._parts.setdefault(part.key, []).append(part)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def complete(self, names: Names) -> list[ToolCall]:
        return [self._whole(parts, names) for parts in self._parts.values()]

    def _whole(self, parts: Sequence[CallPart], names: Names) -> ToolCall:
        id = next((part.id for part in parts if part.id), "") or f"call_{new_id()}"
        name = names.own(next((part.name for part in parts if part.name), ""))
        text = "".join(part.arguments for part in parts)
        try:
            arguments = json.loads(text or "{}")
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return {"id": id, "name": name, "arguments": {}, "invalid": text}
        return {"id": id, "name": name, "arguments": arguments}


def tokens(given: Any, written: Any) -> tuple[int, int] | None:
    if isinstance(given, int) and isinstance(written, int):
        return given, written
    return None


def error_text(error: Any) -> str:
    if isinstance(error, Mapping):
        return str(error.get("message") or json.dumps(error))
    return str(error or "")


def schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "answer", "schema": dict(schema), "strict": True}
