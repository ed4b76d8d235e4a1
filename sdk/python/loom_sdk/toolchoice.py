"""Let a language model choose a tool and write its arguments, through constrained JSON.

Works with models that have no trained tool calling: the conversation shows each tool's own
manifest examples, and a JSON Schema leaves the model only two kinds of answer:
`{"tool": NAME, "arguments": {...}}` that fits that tool's input, or `{"tool": "none"}`.

A text argument whose schema says `"x-extract": true` must be words that stand together in the
question: a small model that copies badly ("six times eleven" became "sixteen times eleven") can
then only choose where they begin and end. Nothing here looks at what the question says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .engines import Message
from .errors import InvalidArguments
from .schema_refs import inlined

NONE = "none"
MAX_WORDS = 24
"""Words of a question from which an extracted argument may be taken."""
MAX_SPAN = 14
"""Words of an extracted argument."""
NO_TOOL_EXAMPLES = ("Tell me something nice.", "Who was Napoleon?")
"""Questions that need no tool, shown between those that do."""
MAX_EXAMPLES = 6
"""Of one tool: each costs about 45 tokens of prompt, which the model's prompt cache keeps."""
MAX_SHOWN = 24
"""Of all tools together: half of a small model's window."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A capability as it is offered to a model."""

    name: str
    description: str = ""
    input_schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    examples: Sequence[Mapping[str, Any]] = ()
    """From the manifest. Those with a `question` and `arguments` are shown to the model."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What the model chose."""

    tool: str
    arguments: dict[str, Any]


def tools_of(entries: Iterable[Mapping[str, Any]]) -> list[Tool]:
    """Tools from the host's own list of them, or from `[[capability]]` tables of manifests."""
    return [
        Tool(
            entry["name"],
            entry.get("description", ""),
            entry.get("input_schema") or entry.get("input") or {"type": "object"},
            entry.get("examples", ()),
        )
        for entry in entries
    ]


def messages(tools: Sequence[Tool], question: str) -> list[Message]:
    """The conversation for `llm.chat`. All but its last message is the same for every question,
    so that a server's prompt cache serves it."""
    offered = " ".join(f"{tool.name}: {tool.description.rstrip('.')}." for tool in tools)
    said = [_message("system", f"Choose the tool that answers the question. {offered} "
                               f"{NONE}: anything else.")]  # fmt: skip
    for asked, answer in _shown(tools):
        said += [_message("user", asked), _message("assistant", answer)]
    return [*said, _message("user", question)]


def response_schema(
    tools: Sequence[Tool], question: str, *, required: bool = False
) -> dict[str, Any]:
    """JSON Schema of the answer, for `llm.chat`'s `response_schema`.

    Args:
        required: leave the model no way to choose none.
    """
    options = [_option(tool, question) for tool in tools]
    return {"oneOf": options if required else [*options, _object({"tool": {"const": NONE}})]}


def parse(tools: Sequence[Tool], text: str) -> ToolChoice | None:
    """What the model's answer says; None where it chose no tool.

    Raises:
        InvalidArguments: it is not JSON of the agreed form, or names a tool that was not offered.
    """
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise InvalidArguments(f"the model's tool choice is not JSON: {text[:80]!r}") from error
    if answer == {"tool": NONE}:
        return None
    if not isinstance(answer, dict) or set(answer) != {"tool", "arguments"}:
        raise InvalidArguments(f"a tool choice has `tool` and `arguments`, not {text[:80]!r}")
    by_name = {tool.name: tool for tool in tools}
    name, arguments = answer["tool"], answer["arguments"]
    if not isinstance(name, str) or name not in by_name:
        raise InvalidArguments(f"the model chose {name!r}; offered: {', '.join(by_name)}")
    if not isinstance(arguments, dict):
        raise InvalidArguments(f"the arguments of {name} must be an object")
    schema = by_name[name].input_schema
    missing = [key for key in schema.get("required", ()) if key not in arguments]
    if missing:
        raise InvalidArguments(f"the model left out {', '.join(missing)} of {name}")
    return ToolChoice(name, arguments)


def _message(role: Literal["system", "user", "assistant"], content: str) -> Message:
    return {"role": role, "content": content}


def _shown(tools: Sequence[Tool]) -> list[tuple[str, str]]:
    """Examples of all tools in turn, the no-tool ones after the first and the third.

    The order was tuned on SmolLM2-135M: it answers like the last few examples, so the last ones
    are of tools.
    """
    rows = [_of_tool(tool) for tool in tools]
    most = min(MAX_EXAMPLES, max(1, MAX_SHOWN // max(1, len(tools))))
    found = [row[i] for i in range(most) for row in rows if i < len(row)]
    nothing = _json({"tool": NONE})
    for place, asked in zip((1, 4), NO_TOOL_EXAMPLES, strict=True):
        found.insert(place, (asked, nothing))
    return found


def _of_tool(tool: Tool) -> list[tuple[str, str]]:
    return [
        (example["question"], _json({"tool": tool.name, "arguments": example["arguments"]}))
        for example in tool.examples
        if "question" in example and "arguments" in example
    ]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _option(tool: Tool, question: str) -> dict[str, Any]:
    arguments = inlined(
        tool.input_schema, finite=False
    )  # its $defs would not be found where it goes
    arguments["properties"] = {
        name: _argument(schema, question)
        for name, schema in arguments.get("properties", {}).items()
    }
    return _object({"tool": {"const": tool.name}, "arguments": arguments})


def _argument(schema: Any, question: str) -> Any:
    if isinstance(schema, Mapping) and schema.get("x-extract") is True:
        return {"enum": spans(question)}
    return schema


def spans(question: str) -> list[str]:
    """Every run of up to MAX_SPAN neighbouring words, without the question's end mark."""
    words = question.rstrip("?.! ").split()[:MAX_WORDS] or [""]
    return list(dict.fromkeys(
        " ".join(words[begin:end])
        for begin in range(len(words))
        for end in range(begin + 1, min(len(words), begin + MAX_SPAN) + 1)
    ))  # fmt: skip
