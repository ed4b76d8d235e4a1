"""What engines that stand in for one another must agree on: the limits of `stt.transcribe` and
`tts.synthesize`, and a message of `llm.chat`. The schemas are made from each plugin's own methods.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from .errors import InvalidArguments

SPEECH_RATE = 16_000
"""Samples per second that `stt.transcribe` takes."""
SHORTEST_SPEECH_MS = 100
"""Nothing shorter holds a word."""
MAX_CHARS = 10_000
"""Of one text for `tts.synthesize`."""

Factor = Annotated[float, {"minimum": 0.5, "maximum": 2.0}]
"""Speed or loudness of speech; 1 is the voice's own."""


class Message(TypedDict):
    """One message of a conversation for `llm.chat`."""

    role: Literal["system", "user", "assistant"]
    content: str


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
