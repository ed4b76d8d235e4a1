"""The voice agent: `utterance` to `transcript`, `query` to a spoken answer.

It holds no engine. Recogniser, model, tools and voice are capabilities of other plugins, so that
swap, failover and quotas hold for them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from functools import partial

from voice_agent_answer import Answerer
from voice_agent_consent import Consent
from voice_agent_floor import QUERY_HOLDS_S, Floor, joined
from voice_agent_history import History
from voice_agent_speech import Speaker, stopped
from voice_agent_split import speakable
from voice_agent_turn import AGENT_TOPIC, Turn, spoken_apology, status_of, unix_ms
from voice_agent_warm import warm_up

from loom_sdk import AsyncContext, Event, Plugin, Result, on_event
from loom_sdk.errors import LoomError, encode, mapping_of

MAX_SEEN = 256
"""Questions remembered, so that two wake plugins do not get one answered twice."""
RETRY_S = (0.25, 2.0)
"""First and longest pause before a failed recogniser is tried again."""
SPEECH_TYPE = "audio/pcm;rate=16000"

Running = tuple[Turn, asyncio.Task[None]]
"""A question and the task that makes its answer."""


class VoiceAgent(Plugin):
    """Serves one listener: a new question interrupts the answer to the one before."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[str, Turn] = OrderedDict()
        self._floor = Floor(0)
        self._former: Event | None = None
        """The last utterance, with those that it continued."""
        self._current: Running | None = None
        self._history = History(0)
        self._consent = Consent()
        self._warming: asyncio.Task[bool] | None = None
        self._deaf = False
        """The recogniser failed the last time; that is said once, not at every noise."""

    async def start(self, ctx: AsyncContext) -> None:
        self._history = History(self.config["history_turns"])
        self._floor = Floor(self.config["join_ms"])
        if self.config["warm_up"] and self.config["max_tools"]:
            self._warming = asyncio.create_task(warm_up(ctx, self.config))

    async def stop(self, ctx: AsyncContext) -> None:
        if self._warming is not None:
            await stopped(self._warming)
        if self._current is not None:
            await stopped(self._current[1])

    @on_event("vad", types=("vad.speech_start", "vad.speech_end"))
    async def voiced(self, ctx: AsyncContext, event: Event) -> None:
        """Somebody speaks: perhaps the rest of a question that is being answered."""
        if event.type == "vad.speech_start":
            self._floor.begin(event.metadata)
        elif event.metadata.get("dropped"):
            self._floor.end(event.metadata.get("utterance_id", ""))

    @on_event(AGENT_TOPIC, types=("approval.request", "approval.result"))
    async def approval(self, ctx: AsyncContext, event: Event) -> None:
        """A tool that acts waits to be allowed: that is asked aloud."""
        asking = self._current[0] if self._current is not None else None
        if event.type == "approval.result":
            self._consent.over(event)
            await self._consent.go_on(ctx, asking, self.config)
            return
        await self._consent.ask(ctx, event, asking, self.config)

    @on_event("utterance", types=("utterance",))
    async def heard(self, ctx: AsyncContext, event: Event) -> None:
        """Speech in, `transcript.final` out; without words an `action_result` no_speech.

        Where it goes on with what was said before, both are transcribed as one.
        """
        if not self._consent.open:  # an answer continues nothing
            event = self._joined(event)
        self._former = event
        utterance_id, going_on = event.metadata.get("utterance_id", ""), False
        if "continues" in event.metadata:
            self._floor.keep(utterance_id, self.config["stt_timeout_ms"] / 1000)
        try:
            going_on = await self._understand(ctx, event) and "continues" in event.metadata
        finally:
            if going_on:
                self._floor.keep(utterance_id, QUERY_HOLDS_S)
            else:
                self._floor.end(utterance_id)

    def _joined(self, event: Event) -> Event:
        former = self._former
        if former is not None:
            turn = self._seen.get(former.metadata.get("utterance_id") or former.id)
            if turn is not None and turn.first_audio_unix_ms is not None:
                former = None  # its answer is heard already
        return joined(former, event, self.config["join_ms"])

    async def _understand(self, ctx: AsyncContext, event: Event) -> bool:
        """Whether a transcript came of it."""
        turn, began, heard = Turn.of(event, self.config["speak"]), time.perf_counter_ns(), unix_ms()
        try:
            result = await self._transcribe(ctx, event.payload)
        except LoomError as error:
            await self._not_understood(ctx, turn, error)
            return False
        self._deaf = False
        text = str(result.output.get("text", "")).strip()
        if not speakable(text):
            nothing = {"status": "no_speech", "action_type": "utterance"}
            await turn.publish(ctx, AGENT_TOPIC, "action_result", nothing)
            return False
        ended = event.metadata.get("end_of_speech_unix_ms", "")
        if await self._consent.take(ctx, text, ended):
            answered = {"status": "ok", "action_type": "approval", "text": text}
            await turn.publish(ctx, AGENT_TOPIC, "action_result", answered)
            return False
        labels = {
            "text": text,
            "transcript": text,
            "language": str(result.output.get("language", "")),
            "provider": result.provider,
            "stt_us": str(result.elapsed_us),
            "stt_wall_us": str((time.perf_counter_ns() - began) // 1000),
            "heard_unix_ms": f"{heard:.3f}",
            "transcript_unix_ms": f"{unix_ms():.3f}",
            "utterance_id": turn.id,
        }
        if "continues" not in event.metadata and (duration := result.output.get("duration_ms")):
            labels["duration_ms"] = str(duration)
        metadata = {**event.metadata, **labels}
        await ctx.publish("transcript", "transcript.final", metadata=metadata, priority=70)
        return True

    async def _transcribe(self, ctx: AsyncContext, pcm: bytes) -> Result:
        """A recogniser that is being restarted gets the same utterance again, within the limit."""
        language = self.config["language"]
        arguments = {"language": language} if language else {}
        until = time.monotonic() + self.config["stt_timeout_ms"] / 1000
        pause, longest = RETRY_S
        while True:
            left = max(1, int((until - time.monotonic()) * 1000))
            try:
                return await ctx.invoke(
                    "stt.transcribe",
                    arguments,
                    payload=pcm,
                    content_type=SPEECH_TYPE,
                    timeout_ms=left,
                )
            except LoomError as error:
                if not mapping_of(error).retryable or until - time.monotonic() < pause:
                    raise
                ctx.log(f"speech is recognised again: {error.message}", "warning")
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    async def _not_understood(self, ctx: AsyncContext, turn: Turn, error: LoomError) -> None:
        turn.failed(error)
        ctx.log(f"utterance {turn.id} was not recognised: {error.message}", "error")
        silent, self._deaf = self._deaf, True
        if not silent and self._current is None:
            turn.answer = spoken_apology(error, "the speech recogniser")
            async with Speaker(ctx, turn, self.config) as speaker:
                speaker.feed(turn.answer)
                await speaker.finish()
        await turn.close(ctx)

    @on_event("query", types=("user.query",), concurrency=4)
    async def asked(self, ctx: AsyncContext, event: Event) -> None:
        """A question in, its answer out as `assistant` and `tts` events, `action_result` last."""
        turn = Turn.of(event, self.config["speak"])
        if not speakable(turn.question) or self._is_known(turn, event):
            return
        ended = event.metadata.get("end_of_speech_unix_ms", "")
        if await self._consent.take(ctx, turn.question, ended):
            return
        turn.go_ahead = partial(self._floor.wait, turn.heard)
        former = self._current
        task = asyncio.create_task(self._answer(ctx, turn, former))
        self._current = turn, task
        try:
            await asyncio.wait([task])
        finally:
            if self._current == (turn, task):
                self._current = None
            done = task.done()
            await stopped(task)
        if done and not task.cancelled():
            task.result()

    def _is_known(self, turn: Turn, event: Event) -> bool:
        if turn.id in self._seen and event.delivery_attempt == 1:
            return True
        self._seen[turn.id] = turn
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return False

    @on_event("clock", types=("timer.done",))
    async def rang(self, ctx: AsyncContext, event: Event) -> None:
        """A timer is over: that is said, after the answer that is being made."""
        if self._current is not None:
            await asyncio.wait([self._current[1]])
        turn = Turn.of(event, self.config["speak"])
        turn.answer = turn.question
        async with Speaker(ctx, turn, self.config) as speaker:
            speaker.feed(turn.answer)
            await speaker.finish()
        message = {"text": turn.answer}
        await turn.publish(ctx, "assistant", "assistant.message", message)

    async def _interrupt(self, ctx: AsyncContext, former: Running, turn: Turn) -> None:
        """Stop the answer that is being made, then what of it is being played."""
        interrupted, task = former
        await stopped(task)
        continued = turn.heard.get("continues") == interrupted.id
        reason = {"by": turn.id, "reason": "continued" if continued else "new_question"}
        await interrupted.publish(ctx, "assistant", "assistant.interrupt", reason, priority=90)

    async def _answer(self, ctx: AsyncContext, turn: Turn, former: Running | None) -> None:
        route = asyncio.create_task(self._route(ctx, turn))
        try:
            if former is not None:
                await self._interrupt(ctx, former, turn)
            async with Speaker(ctx, turn, self.config) as speaker:
                await Answerer(ctx, turn, self.config, self._history, speaker).run()
            await turn.go_ahead()
            await route
        except asyncio.CancelledError:
            turn.outcome = {
                "status": "error",
                "code": "INTERRUPTED",
                "message": "a new question or the plugin's end stopped the answer",
            }
            await turn.close(ctx)
            raise
        except Exception as error:  # a fault of this plugin must still end the turn
            turn.outcome = status_of(error)
            ctx.log(f"turn {turn.id}: {encode(error).message}", "error")
        finally:
            await stopped(route)
        await self._finish(ctx, turn)

    async def _finish(self, ctx: AsyncContext, turn: Turn) -> None:
        if turn.outcome["status"] == "ok":
            self._history.add(turn.labels["session_id"], turn.question, turn.answer.strip())
        message = {
            "text": turn.answer.strip(),
            "tool": json.dumps(turn.tool),
            "timings": json.dumps(turn.stages_ms()),
        }
        await turn.publish(ctx, "assistant", "assistant.message", message)
        await turn.close(ctx)

    async def _route(self, ctx: AsyncContext, turn: Turn) -> None:
        """Publish what the router decides for the model; a host without a router decides none."""
        try:
            result = await ctx.invoke("loom.route", {"capability": "llm.chat"}, timeout_ms=2000)
        except LoomError as error:
            ctx.log(f"no routing decision: {error.message}", "debug")
            return
        decision = turn.route = dict(result.output)
        metadata = {
            "route": str(decision["route"]),
            "reason": str(decision["reason"]),
            "confidence": f"{decision['confidence']:.3f}",
            "provider": next(iter(decision["providers"]), ""),
            "est_latency_ms": f"{decision['estimated_ms']:.0f}",
            "est_cost": f"{decision['estimated_cost']:.4f}",
        }
        await turn.publish(ctx, AGENT_TOPIC, "routing_decision", metadata)
