"""Asks aloud whether a tool may act, and understands the answer."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from voice_agent_speech import Speaker
from voice_agent_turn import Turn, unix_ms
from voice_agent_words import scalars, short

from loom_sdk import AsyncContext, Event
from loom_sdk.errors import InvalidArguments

YES = frozenset(["yes", "yeah", "yep", "yup", "sure", "ok", "okay", "certainly", "absolutely"])
YES_PHRASES = ("do it", "do that", "go ahead", "go on", "of course", "you may", "that is right")
NO = frozenset(["no", "nope", "nah", "never", "stop", "cancel", "dont", "not"])
FILLER = frozenset(
    ["please", "thanks", "thank", "you", "hey", "loom", "um", "uh", "well", "oh", "and", "so", "it"]
)
SPOKEN_ARGUMENTS = 120
"""Characters of the arguments that are read aloud."""


def consent(text: str) -> bool | None:
    """What a spoken answer means: yes, no, or None where it is neither.

    A single word of refusal is a no. A yes must say nothing else: "yes, but later" is none.
    """
    words = re.sub(r"[^\w\s]", " ", re.sub(r"['\u2019]", "", text.lower())).split()
    if any(word in NO for word in words):
        return False
    plain = " ".join(words)
    for phrase in YES_PHRASES:
        plain = re.sub(rf"\b{phrase}\b", "yes", plain)
    rest = [word for word in plain.split() if word not in FILLER]
    return True if rest and all(word in YES for word in rest) else None


def question(metadata: Mapping[str, str]) -> str:
    """An `approval.request` as a question to a person."""
    try:
        values = [text for _, text in scalars(json.loads(metadata.get("arguments", "{}")))]
    except ValueError:  # they were too long, and cut
        values = [metadata["arguments"]]
    what = re.sub(r"[._-]+", " ", metadata.get("capability", "a tool"))
    told = short(", ".join(values))[:SPOKEN_ARGUMENTS]
    return f"May I use {what}{f' with: {told}' if told else ''}? Please say yes or no."


class Consent:
    """The one question that is put to the person now; later ones wait until it is over."""

    def __init__(self) -> None:
        self._id, self._heard_unix_ms, self._expires_unix_ms = "", 0.0, 0.0
        self._later: deque[Event] = deque()

    @property
    def open(self) -> bool:
        return bool(self._id)

    async def ask(
        self, ctx: AsyncContext, event: Event, asking: Turn | None, config: Mapping[str, Any]
    ) -> None:
        """Put the question, after those that came before it and are neither answered nor late.

        Raises InvalidArguments for one without an id: nobody could answer it.
        """
        if "approval_id" not in event.metadata:
            raise InvalidArguments("an approval.request needs its approval_id")
        self._later.append(event)
        await self.go_on(ctx, asking, config)

    async def go_on(
        self, ctx: AsyncContext, asking: Turn | None, config: Mapping[str, Any]
    ) -> None:
        """Put the next question that waits, where none is put."""
        while self._later and (not self._id or unix_ms() > self._expires_unix_ms):
            self._id, event = "", self._later.popleft()
            if unix_ms() <= _expires(event):
                await self._put(ctx, event, asking, config)

    async def _put(
        self, ctx: AsyncContext, event: Event, asking: Turn | None, config: Mapping[str, Any]
    ) -> None:
        """Publish the question, and say it where the turn that it belongs to speaks.

        It is open once it is synthesised, and to speech once that audio can have been heard.
        """
        id = event.metadata["approval_id"]
        labels = dict(asking.labels) if asking is not None else {"utterance_id": event.id}
        labels["utterance_id"] += ".approval"  # speech of its own, beside the answer's
        turn = Turn(labels, speak=config["speak"] and (asking is None or asking.speak))
        text = question(event.metadata)
        metadata = {"text": text, "approval_id": id}
        await turn.publish(ctx, "assistant", "assistant.question", metadata)
        async with Speaker(ctx, turn, config) as speaker:
            speaker.feed(text)
            await speaker.finish()
        began = turn.first_audio_unix_ms or unix_ms()
        self._heard_unix_ms = max(unix_ms(), began + speaker.duration_ms)
        self._id, self._expires_unix_ms = id, _expires(event)

    def over(self, event: Event) -> None:
        """It was answered, here or elsewhere, or is too late."""
        id = event.metadata.get("approval_id")
        if id == self._id:
            self._id = ""
        self._later = deque(e for e in self._later if e.metadata["approval_id"] != id)

    async def take(self, ctx: AsyncContext, text: str, ended_unix_ms: str = "") -> bool:
        """Whether these words were the answer, which is then conveyed.

        Args:
            ended_unix_ms: when they had been said; before the question was heard nobody can
                answer it. Empty: they are typed, and count as now.
        """
        allow = consent(text) if self._id else None
        if allow is None or (ended_unix_ms and float(ended_unix_ms) < self._heard_unix_ms):
            return False
        id, self._id = self._id, ""
        try:
            await ctx.invoke("loom.approve", {"id": id, "allow": allow}, timeout_ms=2000)
        except InvalidArguments as error:
            ctx.log(f"the answer came too late: {error.message}", "warning")
        return True


def _expires(event: Event) -> float:
    return float(event.metadata.get("expires_unix_ms") or math.inf)
