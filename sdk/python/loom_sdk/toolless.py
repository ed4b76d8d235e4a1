"""`llm.chat` with tools, for a language model that was never trained to call them.

A provider first asks such a model to choose by constrained JSON (`choice`, made of
`loom_sdk.toolchoice`), and where it chose none, or the results are there, to answer a conversation
that knows no tools (`flattened`). What its callers see has the shape of native tool calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import toolchoice
from .engines import Message, ToolCall, ToolSpec
from .errors import ActionFailed, InvalidArguments
from .events import new_id

BAD_CHOICE = "LLM_TOOL_CHOICE"
"""Code of the error where the model's choice of a tool cannot be read."""
ASK = "Answer the question in one short sentence with this data."
"""Stands behind the results of tools: a small model otherwise goes on with the data."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ask the model in order to learn which tool it wants."""

    tools: tuple[toolchoice.Tool, ...]
    messages: list[Message]
    response_schema: dict[str, Any]

    def calls(self, text: str) -> list[ToolCall]:
        """The call that the model's answer asks for; empty where it chose none.

        Raises:
            ActionFailed: LLM_TOOL_CHOICE, it broke off or is not of the agreed form.
        """
        try:
            chosen = toolchoice.parse(self.tools, text)
        except InvalidArguments as error:
            raise ActionFailed(
                f"{error.message}: raise tool_tokens where it broke off", code=BAD_CHOICE
            ) from error
        if chosen is None:
            return []
        return [{"id": f"call_{new_id()}", "name": chosen.tool, "arguments": chosen.arguments}]


def choice(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] | None,
    tool_choice: str | None = None,
    rounds: int = 1,
) -> Choice | None:
    """What to ask first; None where the model is to answer in words at once.

    Args:
        tool_choice: `auto` (or None), `none`, `required`, or the name of the tool to choose.
        rounds: so often since the last question it may choose; small models repeat themselves.

    Raises:
        InvalidArguments: `tool_choice` names a tool that is not among `tools`.
    """
    if not tools or tool_choice == "none" or _rounds(messages) >= rounds:
        return None
    offered = toolchoice.tools_of(_plain(tools))
    if tool_choice not in (None, "auto", "required"):
        offered = [tool for tool in offered if tool.name == tool_choice]
        if not offered:
            raise InvalidArguments(f"tool_choice {tool_choice!r} is not among the tools")
    question = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    required = tool_choice not in (None, "auto")
    return Choice(
        tuple(offered),
        toolchoice.messages(offered, question),
        toolchoice.response_schema(offered, question, required=required),
    )


def flattened(messages: Sequence[Message]) -> list[Message]:
    """The conversation without calls: results stand behind the question that they are for."""
    flat: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            _append(flat, message["content"])
        elif message["content"] or not message.get("tool_calls"):
            flat.append({"role": message["role"], "content": message["content"]})
    if messages and messages[-1]["role"] == "tool":
        _append(flat, ASK)
    return flat


def _append(flat: list[Message], text: str) -> None:
    if not flat or flat[-1]["role"] != "user":
        flat.append({"role": "user", "content": text})
        return
    flat[-1] = {"role": "user", "content": f"{flat[-1]['content']}\n\n{text}"}


def _plain(tools: Sequence[ToolSpec]) -> list[Mapping[str, Any]]:
    return [dict(tool) for tool in tools]


def _rounds(messages: Sequence[Message]) -> int:
    """How often tools were called since the last question."""
    count = 0
    for message in reversed(messages):
        if message["role"] == "user":
            break
        count += bool(message.get("tool_calls"))
    return count
