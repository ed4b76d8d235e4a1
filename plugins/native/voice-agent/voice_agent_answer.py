"""Finds the answer to one question: a tool's that is known at once, else what a tool loop finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from voice_agent_history import History
from voice_agent_speech import Speaker
from voice_agent_turn import Stage, Turn, spoken_apology
from voice_agent_words import holds, short, stated

from loom_sdk import AsyncContext
from loom_sdk.context_builder import estimate, fit
from loom_sdk.engines import Message, ToolCall
from loom_sdk.errors import (
    ActionFailed,
    CapabilityNotFound,
    InvalidArguments,
    LoomError,
    PermissionDenied,
)
from loom_sdk.toolless import BAD_CHOICE
from loom_sdk.toolloop import (
    Called,
    Calling,
    Delta,
    Finished,
    Limits,
    Outcome,
    ToolLoop,
    as_data,
    offered,
)

MATCH_TIMEOUT_MS = 2000
"""For the quick path: whoever is slower than this is no quick path."""
MAX_DATA_CHARS = 4000
"""Of a tool's result that the model reads: a third of a small model's window."""
OWN_FAULTS = (InvalidArguments, CapabilityNotFound)
"""What a model can mend by calling again, in other words."""

Tools = Sequence[Mapping[str, Any]]
"""The host's entries, as `loom.tools` lists them."""


class Answerer:
    """One question's way. Text goes to the speaker as it comes."""

    def __init__(
        self,
        ctx: AsyncContext,
        turn: Turn,
        config: Mapping[str, Any],
        history: History,
        speaker: Speaker,
    ) -> None:
        self._ctx, self._turn, self._config = ctx, turn, config
        self._history, self._speaker = history, speaker
        self._outcomes: list[Outcome] = []
        self._clock = Stage()

    async def run(self) -> None:
        """Sets the turn's answer. What fails is said, and is the turn's outcome."""
        try:
            tools, known = await self._tools_and_match()
            if known is None or not await self._at_once(known):
                await self._converse(tools)
        except LoomError as error:
            self._turn.failed(error)
            if isinstance(error, ActionFailed) and error.code == BAD_CHOICE:
                await self._say("Sorry, I could not work out what to do.")
            else:
                await self._say(spoken_apology(error, "the language model"))
        await self._speaker.finish()

    async def _tools_and_match(self) -> tuple[Tools, ToolCall | None]:
        """What may be called in this turn, and the call that is known without the model."""
        if not self._config["max_tools"]:
            return [], None
        tools = await self._tools()
        if not tools or self._config["intent"] == "off":
            return tools, None
        return tools, await self._match(tools)

    async def _tools(self) -> Tools:
        try:
            with self._turn.stage("tools") as stage:
                tools = await offered(self._ctx, self._config["max_tools"])
                stage.end(0)
        except CapabilityNotFound:
            return []
        return tools

    async def _match(self, tools: Tools) -> ToolCall | None:
        """A matcher that is absent, not granted, not ready or not sure leaves it to the model."""
        question = {"text": self._turn.question, "tools": tools}
        try:
            with self._turn.stage("intent") as stage:
                result = await self._ctx.invoke(
                    "intent.match", question, timeout_ms=MATCH_TIMEOUT_MS
                )
                stage.end(result.elapsed_us)
        except LoomError as error:
            self._ctx.log(f"no quick path: {error.message}", "debug")
            return None
        found, names = result.output, {tool["name"] for tool in tools}
        if (
            found.get("tool") not in names
            or found.get("score", 0) < self._config["intent_threshold"]
        ):
            return None
        return {"id": "quick", "name": found["tool"], "arguments": found.get("arguments") or {}}

    async def _at_once(self, call: ToolCall) -> bool:
        """The quick path. False where the arguments do not fit: then the model is asked."""
        await self._turn.go_ahead()
        self._clock, limit = Stage(), self._config["tool_timeout_ms"]
        try:
            result = await self._ctx.invoke(call["name"], call["arguments"], timeout_ms=limit)
        except OWN_FAULTS as error:
            self._ctx.log(f"the quick path leads nowhere: {error.message}", "debug")
            return False
        except LoomError as error:
            outcome = Outcome(call, error=error)
        else:
            outcome = Outcome(call, result.output, None, result.provider, result.elapsed_us)
        self._turn.path = "quick"
        if await self._called([outcome]):
            return True
        return await self._phrased(outcome)

    async def _phrased(self, outcome: Outcome) -> bool:
        """The model puts a result of the quick path into words."""
        data = as_data(outcome, MAX_DATA_CHARS)
        limits = Limits(llm_timeout_ms=self._config["llm_timeout_ms"])
        asked = (
            f"{self._turn.question}\n\n{data}\n\n"
            "Answer the question in one short sentence with this data."
        )
        await self._follow(self._loop([], limits), asked)
        return True

    async def _converse(self, tools: Tools) -> None:
        limits = Limits(
            rounds=self._config["tool_rounds"],
            tool_timeout_ms=self._config["tool_timeout_ms"],
            llm_timeout_ms=self._config["llm_timeout_ms"],
            result_chars=MAX_DATA_CHARS,
        )
        await self._follow(self._loop(tools, limits), self._turn.question)

    def _loop(self, tools: Tools, limits: Limits) -> ToolLoop:
        """Each round reads what fits the model: the oldest of the conversation goes first."""
        options = {key: self._config[key] for key in ("max_tokens", "temperature")}
        budget = self._config["context_tokens"]
        return ToolLoop(
            self._ctx, tools, limits=limits, options=options,
            fit=lambda messages: fit(messages, budget, estimate),
        )  # fmt: skip

    async def _follow(self, loop: ToolLoop, request: str) -> None:
        """Speak what the model writes while it writes it; behind a tool only once it is checked."""
        self._clock = Stage()
        try:
            async with aclosing(loop.run(self._messages(request))) as steps:
                async for step in steps:
                    if isinstance(step, Delta) and not self._outcomes:
                        await self._write(step)
                    elif isinstance(step, Calling):
                        self._keep("llm_tool", step.elapsed_us)
                        await self._calling(step.calls)
                    elif isinstance(step, Called) and await self._called(step.outcomes):
                        return
                    elif isinstance(step, Finished):
                        await self._finished(step)
        except LoomError as error:
            if not self._outputs():
                raise
            self._ctx.log(f"a result is stated as it is: {error.message}", "warning")
            await self._say(stated(self._outputs()[-1]))

    async def _write(self, step: Delta) -> None:
        if await self._add(step.text) and "llm_answer" not in self._turn.stages:
            self._keep("llm_answer", step.elapsed_us)

    async def _calling(self, calls: Sequence[ToolCall]) -> None:
        """Nothing is done before the speaker has ended the question."""
        self._turn.called(calls[-1])
        await self._turn.go_ahead()
        self._clock = Stage()

    async def _called(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether all is said with this: tools that speak for themselves, or failed for good."""
        self._keep("tool", max(outcome.elapsed_us for outcome in outcomes))
        self._outcomes += outcomes
        self._turn.called(outcomes[-1].call, outcomes[-1])
        speeches = [_speech(outcome) for outcome in outcomes]
        if all(speeches):
            await self._say(" ".join(speeches))
            return True
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if len(errors) < len(outcomes) or any(isinstance(error, OWN_FAULTS) for error in errors):
            return False
        await self._refuse(errors[0])
        return True

    async def _finished(self, step: Finished) -> None:
        if not self._outcomes:
            if "llm_answer" not in self._turn.stages:
                self._keep("llm_answer", step.elapsed_us)
            if not self._turn.answer.strip():
                await self._say("Sorry, I have no answer to that.")
            return
        self._keep("llm_answer", step.elapsed_us)
        outputs, text = self._outputs(), step.text.strip()
        if not outputs:
            await self._refuse(self._outcomes[-1].error or ActionFailed("nothing came of it"))
            return
        known = outputs[0] if len(outputs) == 1 else outputs
        right = text and holds(text, known, self._turn.question)
        await self._say(text if right else stated(outputs[-1]))

    async def _refuse(self, error: LoomError) -> None:
        self._turn.failed(error)
        if self._turn.tool is not None:
            self._turn.tool["error"] = dict(self._turn.outcome)
        asked = isinstance(error, PermissionDenied) and error.permission.startswith("approval:")
        could_not = f"I could not do that: {short(error.message)}"
        await self._say("Then I will not do that." if asked else could_not)

    def _outputs(self) -> list[Any]:
        return [outcome.output for outcome in self._outcomes if outcome.error is None]

    def _keep(self, name: str, inside_us: int) -> None:
        """The stage that ends now; the next one begins. Those of several rounds are added up."""
        self._clock.end(inside_us)
        former = self._turn.stages.get(name)
        if former is not None:
            self._clock.wall_us += former.wall_us
            self._clock.inside_us += former.inside_us
        self._turn.stages[name], self._clock = self._clock, Stage()

    def _messages(self, request: str) -> list[Message]:
        system: Message = {"role": "system", "content": self._config["system_prompt"]}
        past = self._history.messages(self._turn.labels["session_id"])
        return [system, *past, {"role": "user", "content": request}]

    async def _say(self, text: str) -> None:
        """A text that is complete; set off from what was said before."""
        await self._add(f" {text}" if self._turn.answer else text)

    async def _add(self, delta: str) -> bool:
        self._turn.answer += delta
        speaking = self._speaker.feed(delta)
        await self._turn.publish(self._ctx, "assistant", "assistant.token", {"delta": delta})
        return speaking


def _speech(outcome: Outcome) -> str:
    """What a tool wants said, empty where it leaves that to the model."""
    output = outcome.output
    speech = output.get("speech") if isinstance(output, dict) else None
    return speech if outcome.error is None and isinstance(speech, str) else ""
