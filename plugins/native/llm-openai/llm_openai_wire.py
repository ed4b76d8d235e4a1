"""The two dialects of an OpenAI-compatible server, as pure functions: `/responses` and
`/chat/completions`, requests out and server-sent events in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Dialect = Literal["responses", "chat"]
PATHS: dict[Dialect, str] = {"responses": "/responses", "chat": "/chat/completions"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of `llm.chat` with the plugin's defaults filled in."""

    messages: list[dict[str, str]]
    model: str
    max_tokens: int
    temperature: float
    stop: tuple[str, ...] = ()
    response_schema: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Piece:
    """What one event of the stream says."""

    delta: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    model: str = ""
    error: str = ""
    done: bool = False


def request_body(ask: Ask, dialect: Dialect) -> dict[str, Any]:
    """JSON of the request. `/responses` knows no stop texts: the caller cuts there itself."""
    body: dict[str, Any] = {"temperature": ask.temperature, "stream": True}
    if ask.model:
        body["model"] = ask.model
    if dialect == "responses":
        body |= {"input": ask.messages, "max_output_tokens": ask.max_tokens}
        if ask.response_schema is not None:
            body["text"] = {"format": {"type": "json_schema", **_named(ask.response_schema)}}
        return body
    body |= {"messages": ask.messages, "max_tokens": ask.max_tokens}
    body["stream_options"] = {"include_usage": True}
    if ask.stop:
        body["stop"] = list(ask.stop)
    if ask.response_schema is not None:
        schema = _named(ask.response_schema)
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _named(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "answer", "schema": schema, "strict": True}


def parse_event(data: str, dialect: Dialect) -> Piece:
    """One `data:` payload. Raises ValueError when it is not the JSON of this dialect."""
    if data.strip() == "[DONE]":
        return Piece(done=True)
    event = json.loads(data)
    if not isinstance(event, dict):
        raise ValueError("an event must be a JSON object")
    if failure := _error_text(event.get("error")):
        return Piece(error=failure)
    return _responses_piece(event) if dialect == "responses" else _chat_piece(event)


def _chat_piece(event: Mapping[str, Any]) -> Piece:
    choices = event.get("choices") or [{}]
    choice = choices[0] if isinstance(choices[0], Mapping) else {}
    said = choice.get("delta") or choice.get("message") or {}
    piece = Piece(str(said.get("content") or ""), model=str(event.get("model") or ""))
    usage = event.get("usage") or {}
    piece.usage = _usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
    return piece


def _responses_piece(event: Mapping[str, Any]) -> Piece:
    kind = event.get("type", "")
    if kind == "response.output_text.delta":
        return Piece(str(event.get("delta") or ""))
    if kind in ("response.completed", "response.incomplete"):
        response = event.get("response") or {}
        usage = response.get("usage") or {}
        counted = _usage(usage.get("input_tokens"), usage.get("output_tokens"))
        return Piece(usage=counted, model=str(response.get("model") or ""), done=True)
    if kind in ("response.failed", "error"):
        response = event.get("response") or event
        text = _error_text(response.get("error")) or str(response.get("message") or kind)
        return Piece(error=text)
    return Piece()


def parse_document(text: str, dialect: Dialect) -> Piece:
    """A whole answer from a server that did not stream. Raises ValueError as `parse_event`."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("the answer must be a JSON object")
    if failure := _error_text(document.get("error")):
        return Piece(error=failure)
    if dialect == "chat":
        return _chat_piece(document)
    piece = _responses_piece({"type": "response.completed", "response": document})
    for output in document.get("output") or ():
        for part in output.get("content") or ():
            piece.delta += str(part.get("text") or "")
    return piece


def _usage(prompt: Any, completion: Any) -> dict[str, int]:
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return {}
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def _error_text(error: Any) -> str:
    if isinstance(error, Mapping):
        return str(error.get("message") or json.dumps(error))
    return str(error or "")
