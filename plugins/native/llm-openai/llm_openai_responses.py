"""`/responses`: the request, its events, and the document of a server that does not stream.

Shapes by the public reference of the OpenAI API, and as llama.cpp sends them. Calls are taken from
`response.output_item.done`, which holds them whole: not every server numbers its items.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llm_openai_parts import Ask, CallPart, Names, Piece, error_text, schema_format, tokens

from loom_sdk.engines import Message

TEXT = ("response.output_text.delta", "response.refusal.delta")
LAST = ("response.completed", "response.incomplete")
FAILED = ("response.failed", "error")
THINKING = ("response.reasoning", "response.function_call_arguments")
CUT = {"max_output_tokens": "length", "content_filter": "content_filter"}


def body(ask: Ask, names: Names) -> dict[str, Any]:
    """The request but for what both dialects share. It knows no stop texts: the caller cuts."""
    request: dict[str, Any] = {
        "input": [item for message in ask.messages for item in _items(message, names)],
        "max_output_tokens": ask.max_tokens,
    }
    if ask.response_schema is not None:
        schema = schema_format(ask.response_schema)
        request["text"] = {"format": {"type": "json_schema", **schema}}
    if ask.tools:
        # Strict schemas must require every property, which those of capabilities need not.
        request["tools"] = [
            {"type": "function", "name": names.wire(tool["name"]), "strict": False,
             "description": tool.get("description", ""), "parameters": tool["input_schema"]}
            for tool in ask.tools
        ]  # fmt: skip
        request["tool_choice"] = _tool_choice(ask.tool_choice, names)
    return request


def _tool_choice(choice: str, names: Names) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "name": names.wire(choice)}


def _items(message: Message, names: Names) -> Iterable[dict[str, Any]]:
    if message["role"] == "tool":
        id = message.get("tool_call_id", "")
        yield {"type": "function_call_output", "call_id": id, "output": message["content"]}
        return
    calls = message.get("tool_calls", ())
    if message["content"] or not calls:
        yield {"role": message["role"], "content": message["content"]}
    for call in calls:
        yield {
            "type": "function_call",
            "call_id": call["id"],
            "name": names.wire(call["name"]),
            "arguments": json.dumps(call["arguments"]),
        }


def piece(event: Mapping[str, Any]) -> Piece:
    """One event."""
    kind = event.get("type", "")
    if kind in TEXT:
        return Piece(str(event.get("delta") or ""))
    if kind == "response.output_item.done":
        return Piece(calls=_calls([event.get("item") or {}]))
    if kind in LAST:
        return _last(event.get("response") or {})
    if kind in FAILED:
        response = event.get("response") or event
        return Piece(error=error_text(response.get("error")) or str(event.get("message") or kind))
    return Piece(thinks=kind.startswith(THINKING))


def _last(response: Mapping[str, Any]) -> Piece:
    usage = response.get("usage") or {}
    why = (response.get("incomplete_details") or {}).get("reason", "")
    calls = _calls(response.get("output") or ())
    finish = "tool_calls" if calls else "stop"
    if response.get("status") == "incomplete":
        finish = CUT.get(why, "length")
    return Piece(
        calls=calls,
        usage=tokens(usage.get("input_tokens"), usage.get("output_tokens")),
        model=str(response.get("model") or ""),
        finish=finish,
        done=True,
    )


def document(answer: Mapping[str, Any]) -> Piece:
    """The whole answer of a server that did not stream."""
    if answer.get("status") == "failed":
        return Piece(error=error_text(answer.get("error")) or "the response failed")
    piece = _last(answer)
    for item in answer.get("output") or ():
        for part in item.get("content") or () if item.get("type", "message") == "message" else ():
            piece.delta += str(part.get("text") or part.get("refusal") or "")
    return piece


def _calls(items: Iterable[Mapping[str, Any]]) -> list[CallPart]:
    return [
        CallPart(
            str(item.get("call_id") or item.get("id")),
            str(item.get("call_id") or ""),
            str(item.get("name") or ""),
            str(item.get("arguments") or ""),
            whole=True,
        )
        for item in items
        if item.get("type") == "function_call"
    ]
