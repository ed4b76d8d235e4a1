"""The two dialects of an OpenAI-compatible server, as pure functions: requests out and server-sent
events in."""

from __future__ import annotations

import json
from typing import Any, Literal

import llm_openai_chat as chat
import llm_openai_responses as responses
from llm_openai_parts import Ask, Names, Piece, error_text

Dialect = Literal["responses", "chat"]
PATHS: dict[Dialect, str] = {"responses": "/responses", "chat": "/chat/completions"}


def request_body(ask: Ask, dialect: Dialect, names: Names) -> dict[str, Any]:
    """JSON of the request."""
    body: dict[str, Any] = {"temperature": ask.temperature, "stream": True}
    if ask.model:
        body["model"] = ask.model
    if ask.tools and ask.parallel is not None:
        body["parallel_tool_calls"] = ask.parallel
    if dialect == "responses":
        return body | responses.body(ask, names)
    return body | chat.body(ask, names)


def parse_event(data: str, dialect: Dialect) -> Piece:
    """One `data:` payload. Raises ValueError, or what a wrong type raises, where it is not the
    JSON of this dialect."""
    if data.strip() == "[DONE]":
        return Piece(done=True)
    event = json.loads(data)
    if not isinstance(event, dict):
        raise ValueError("an event must be a JSON object")
    if failure := error_text(event.get("error")):
        return Piece(error=failure)
    return responses.piece(event) if dialect == "responses" else chat.piece(event)


def parse_document(text: str, dialect: Dialect) -> Piece:
    """A whole answer from a server that did not stream. Raises as `parse_event`."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("the answer must be a JSON object")
    if failure := error_text(document.get("error")):
        return Piece(error=failure)
    if dialect == "responses":
        return responses.document(document)
    piece = chat.piece(document)
    piece.done, piece.finish = True, piece.finish or "stop"
    return piece
