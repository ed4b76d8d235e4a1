"""A test plugin that stands for the whole voice loop."""

from __future__ import annotations

import json
import sys

from loom_sdk import AsyncContext, Event, Plugin, capability, on_event
from loom_sdk.errors import ActionFailed

SPOKE_MS, HEARD_MS, PLAYED_MS = 1000.0, 1200.0, 2000.0
TURN = {
    "transcript": "hey loom what is 12 times 9",
    "wake": {"phrase": "hey loom", "score": 0.9},
    "route": {"route": "Local", "reason": "No cloud provider is configured"},
    "tool": {
        "name": "calculator.evaluate", "arguments": {"expression": "12 * 9"},
        "result": {"result": "108"}, "tier": "wasm",
    },
    "answer": "12 times 9 is 108.",
    "inside_us": {"stt_us": 300_000, "llm_us": 200_000, "tts_us": 50_000},
}  # fmt: skip


class Studio(Plugin):
    async def start(self, ctx: AsyncContext) -> None:
        self.started = True

    async def stop(self, ctx: AsyncContext) -> None:
        if self.config["fail_at_stop"]:
            sys.exit(5)

    @capability("audio.stream_file", effects="none")
    async def stream_file(self, ctx: AsyncContext, path: str, pace: str) -> None:
        name = path.rpartition("/")[2].removesuffix(".wav")
        if name == "silence":
            return
        await ctx.publish(
            "utterance", "utterance", metadata={"end_of_speech_unix_ms": str(SPOKE_MS)}
        )
        said = "" if name == "mumble" else "what is 12 times 9"
        await ctx.publish("transcript", "transcript.final", metadata={"text": said})
        if name in ("answer", "failure"):
            await ctx.publish("wake", "wake_word_detected", metadata={"phrase": "x", "score": "1"})
            await self._answer(ctx, "ok" if name == "answer" else "error")

    async def _answer(self, ctx: AsyncContext, status: str) -> None:
        turn = {"turn": json.dumps(TURN), "status": status, "message": "no luck"}
        await ctx.publish("agent.voice", "action_result", metadata=turn)
        for moment in (PLAYED_MS, PLAYED_MS + 500):
            await ctx.publish("audio.out", "audio.first_sample", metadata={"unix_ms": str(moment)})
        await ctx.publish("audio.out", "audio.done", metadata={"path": "a.wav", "seconds": "1.5"})

    @on_event("query")
    async def asked(self, ctx: AsyncContext, event: Event) -> None:
        if "nothing" in event.metadata["text"]:
            raise ActionFailed("no idea", code="X")
        await ctx.publish("agent.voice", "routing_decision")
        turn = {"turn": json.dumps({"answer": event.metadata["text"]}), "status": "ok"}
        await ctx.publish("agent.voice", "action_result", metadata=turn)
