"""`/chat/completions`: the request, its chunks, and the document of a server that does not stream.

Shapes by the public references of the OpenAI API, vLLM, Ollama and llama.cpp.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_openai_parts import Ask, CallPart, Names, Piece, schema_format, tokens

from loom_sdk.engines import Message

FINISHES = {"function_call": "tool_calls", "max_tokens": "length", "eos": "stop"}
"""Words of some servers for those of the contract."""


def body(ask: Ask, names: Names) -> dict[str, Any]:
    """The request but for what both dialects share."""
    request: dict[str, Any] = {
        "messages": [_message(message, names) for message in ask.messages],
        "max_tokens": ask.max_tokens,
        "stream_options": {"include_usage": True},
    }
    if ask.stop:
        request["stop"] = list(ask.stop)
    if ask.response_schema is not None:
        schema = schema_format(ask.response_schema)
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    if ask.tools:
        request["tools"] = [
            {"type": "function", "function": {
                "name": names.wire(tool["name"]), "description": tool.get("description", ""),
                "parameters": tool["input_schema"]}}
            for tool in ask.tools
        ]  # fmt: skip
        request["tool_choice"] = _tool_choice(ask.tool_choice, names)
    return request


def _tool_choice(choice: str, names: Names) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": names.wire(choice)}}


def _message(message: Message, names: Names) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if calls := message.get("tool_calls"):
        said["content"] = message["content"] or None
        said["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {
                "name": names.wire(call["name"]), "arguments": json.dumps(call["arguments"])}}
            for call in calls
        ]  # fmt: skip
    if message["role"] == "tool":
        said["tool_call_id"] = message.get("tool_call_id", "")
    return said


def piece(event: Mapping[str, Any]) -> Piece:
    """One chunk; a whole document has the same form, with `message` in place of `delta`."""
    choices = event.get("choices") or [{}]
    choice = choices[0]
    said = choice.get("delta") or choice.get("message") or {}
    usage = event.get("usage") or {}
    finish = str(choice.get("finish_reason") or "")
    return Piece(
        str(said.get("content") or said.get("refusal") or ""),
        [_part(place, call) for place, call in enumerate(said.get("tool_calls") or ())],
        tokens(usage.get("prompt_tokens"), usage.get("completion_tokens")),
        str(event.get("model") or ""),
        finish=FINISHES.get(finish, finish),
        thinks=bool(said.get("reasoning_content") or said.get("reasoning")),
    )


def _part(place: int, call: Mapping[str, Any]) -> CallPart:
    """Servers that send a call in one chunk may leave its index out; its id then keeps it apart."""
    function = call.get("function") or {}
    arguments = function.get("arguments") or ""
    if not isinstance(arguments, str):  # some local servers send the object itself
        arguments = json.dumps(arguments)
    id = str(call.get("id") or "")
    index = call.get("index")
    key = (id or f"at {place}") if index is None else str(index)
    return CallPart(key, id, str(function.get("name") or ""), arguments)
