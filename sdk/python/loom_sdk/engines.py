"""What engines that stand in for one another must agree on: the limits of `stt.transcribe` and
`tts.synthesize`, and the messages and tools of `llm.chat`. The schemas are made from each plugin's
own methods.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from .errors import InvalidArguments

SPEECH_RATE = 16_000
"""Samples per second that `stt.transcribe` takes."""
SHORTEST_SPEECH_MS = 100
"""Nothing shorter holds a word."""
MAX_CHARS = 10_000
"""Of one text for `tts.synthesize`."""

Factor = Annotated[float, {"minimum": 0.5, "maximum": 2.0}]
"""Speed or loudness of speech; 1 is the voice's own."""


class _Call(TypedDict):
    id: str
    name: str
    arguments: dict[str, Any]


class ToolCall(_Call, total=False):
    """A call that the model asks for; `id` is what its result names as `tool_call_id`."""

    invalid: str
    """What the model wrote instead of a JSON object; `arguments` is then empty."""


class _Message(TypedDict):
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Message(_Message, total=False):
    """One message of a conversation for `llm.chat`."""

    tool_calls: list[ToolCall]
    """Of the assistant: what it asked for."""
    tool_call_id: str
    """Of a tool: which call its content is the result of."""


class _ToolSpec(TypedDict):
    name: str
    input_schema: dict[str, Any]


class ToolSpec(_ToolSpec, total=False):
    """A tool that the model may ask for: a capability, as `loom.tools` lists it."""

    description: str
    examples: list[dict[str, Any]]
    """From the manifest; shown to models that were never trained to call tools."""


class Usage(TypedDict):
    """What one answer took."""

    input_tokens: int
    output_tokens: int
    cost: float
    """In the currency of the provider's prices; 0 where it has none."""


def checked_pcm(payload: bytes, content_type: str) -> bytes:
    """Whole samples of 16 bit mono PCM at SPEECH_RATE, as `stt.transcribe` takes them.

    Raises:
        InvalidArguments: the content type names another format, or half a sample is left over.
    """
    kind, _, parameters = content_type.partition(";")
    fields = dict(part.strip().partition("=")[::2] for part in parameters.split(";") if part)
    rate = fields.get("rate", str(SPEECH_RATE))
    if kind.strip() not in ("", "audio/pcm") or rate != str(SPEECH_RATE):
        raise InvalidArguments(
            f"content type {content_type!r}: stt.transcribe takes audio/pcm;rate={SPEECH_RATE}, "
            "16 bit mono; convert it first"
        )
    if len(payload) % 2:
        raise InvalidArguments(f"{len(payload)} bytes are no whole number of 16 bit samples")
    return payload


def check_text(text: str) -> None:
    """Raises InvalidArguments where `tts.synthesize` is given more than MAX_CHARS."""
    if len(text) > MAX_CHARS:
        raise InvalidArguments(f"{len(text)} letters, at most {MAX_CHARS}: split the text")
