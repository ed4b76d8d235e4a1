"""`llm.chat` by any OpenAI-compatible server: `/responses` where it has it, else
`/chat/completions`. It opens sockets itself, so in the native tier it counts as `cloud`.

The Rust project's variables VLLM_BASE_URL, VLLM_MODEL and VLLM_API_KEY become the settings
`base_url`, `model` and the secret that `api_key_secret` names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_openai_answer import Answer
from llm_openai_limits import (
    MAX_RETRY_AFTER_S,
    RETRIED_STATUSES,
    Phases,
    Retryable,
    backoff_s,
    status_error,
)
from llm_openai_parts import Ask, Names, Piece
from llm_openai_wire import PATHS, Dialect, parse_document, parse_event, request_body

from loom_sdk import AsyncContext, Plugin, Result, capability, toolless
from loom_sdk.context_builder import estimate
from loom_sdk.engines import Message, ToolSpec
from loom_sdk.errors import ActionFailed, InvalidArguments

if TYPE_CHECKING:
    import httpx

ABSENT_STATUSES = (404, 405, 501)
PARALLEL = {"server": None, "on": True, "off": False}


class OpenAiLlm(Plugin):
    """One HTTP client for the plugin's life; answers run beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self._client: httpx.AsyncClient | None = None
        self._lacks_responses = False

    async def start(self, ctx: AsyncContext) -> None:
        key = self.config["api_key_secret"]
        headers = {"Authorization": f"Bearer {await ctx.secret(key)}"} if key else {}
        # Library and certificates take a tenth of a second to load: not on the host's loop.
        self._client = await asyncio.to_thread(self._opened, headers)

    def _opened(self, headers: dict[str, str]) -> httpx.AsyncClient:
        import httpx

        # The other phases are timed by `Phases`, from what the stream says.
        timeout = httpx.Timeout(None, connect=self.config["connect_timeout_ms"] / 1000)
        return httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False)

    async def stop(self, ctx: AsyncContext) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @capability("llm.chat", effects="none")
    async def chat(
        self,
        ctx: AsyncContext,
        messages: list[Message],
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: list[str] | None = None,
        response_schema: dict[str, Any] | None = None,
        tools: list[ToolSpec] | None = None,
        tool_choice: str | None = None,
    ) -> Result:
        """Answer a conversation, streaming text as it is written, or ask for tools.

        Args:
            messages: the conversation so far
            max_tokens: limit of the answer
            temperature: 0 always takes the likeliest token
            stop: texts that end the answer
            response_schema: JSON Schema that the answer must fit
            tools: what the model may ask to be called
            tool_choice: auto, none, required, or the name of one of the tools

        Returns:
            {text, tool_calls, model, usage, finish_reason}; items before it are {delta}.

        Raises InvalidArguments (no messages, a strange tool_choice) or ActionFailed with one of the
        codes in docs/LLM.md.
        """
        if not messages:
            raise InvalidArguments("llm.chat needs at least one message")
        config, wanted = self.config, _checked(tool_choice, tools)
        limit, heat = max_tokens or config["max_output_tokens"], temperature
        ask = Ask(
            messages, config["model"], limit, config["temperature"] if heat is None else heat,
            tuple(stop or ()), response_schema, tools or (), wanted,
            PARALLEL[config["parallel_tool_calls"]],
        )  # fmt: skip
        if self.config["tool_calls"] == "constrained":
            return await self._constrained(ctx, ask)
        return self._priced(await self._in_time(ctx, ask))

    @capability("llm.count_tokens", effects="none")
    async def count_tokens(self, ctx: AsyncContext, texts: list[str]) -> dict[str, Any]:
        """About how many tokens each text has, rather too many than too few: these servers have no
        tokenizer to ask.

        Args:
            texts: what to count; empty texts have none
        """
        return {"counts": [estimate(text) for text in texts]}

    async def _constrained(self, ctx: AsyncContext, ask: Ask) -> Result:
        """For a model that was never trained to call tools: choice first, then words."""
        rounds = self.config["tool_rounds"]
        choice = toolless.choice(ask.messages, list(ask.tools), ask.tool_choice, rounds)
        plain = replace(ask, messages=toolless.flattened(ask.messages), tools=())
        if choice is None:
            return self._priced(await self._in_time(ctx, plain))
        chosen = await self._in_time(ctx, replace(
            plain, messages=choice.messages, max_tokens=self.config["tool_tokens"],
            temperature=0.0, stop=(), response_schema=choice.response_schema, quiet=True,
        ))  # fmt: skip
        if calls := choice.calls(chosen.text):
            result = self._priced(chosen)
            result.output |= {"text": "", "tool_calls": calls, "finish_reason": "tool_calls"}
            return result
        answer = await self._in_time(ctx, plain)
        answer.tokens = (
            answer.tokens[0] + chosen.tokens[0],
            answer.tokens[1] + chosen.tokens[1],
        )
        return self._priced(answer)

    def _priced(self, answer: Answer) -> Result:
        return answer.result(self.config["price_input"], self.config["price_output"])

    async def _in_time(self, ctx: AsyncContext, ask: Ask) -> Answer:
        limit_ms = self.config["request_timeout_ms"]
        answer = Answer(ctx, ask, Names.of(ask))
        try:
            async with asyncio.timeout(limit_ms / 1000):
                await self._with_retries(ctx, ask, answer)
        except TimeoutError as error:
            raise ActionFailed(
                f"{self.config['base_url']} took longer than request_timeout_ms ({limit_ms} ms) "
                "for an answer: raise that limit, or take a smaller model",
                code="LLM_TIMEOUT",
            ) from error
        return answer

    async def _with_retries(self, ctx: AsyncContext, ask: Ask, answer: Answer) -> None:
        for done in range(self.config["retries"] + 1):
            try:
                await self._try(ctx, ask, answer)
                return
            except Retryable as failed:
                wait = backoff_s(done, failed.wait_s, self.config["retry_backoff_ms"])
                late = wait * 1000 >= ctx.remaining_ms() or wait > MAX_RETRY_AFTER_S
                if done == self.config["retries"] or late:
                    raise failed.error from failed
                ctx.log("trying the model again", "warning", after_s=f"{wait:.2f}", why=failed)
                await asyncio.sleep(wait)

    async def _try(self, ctx: AsyncContext, ask: Ask, answer: Answer) -> None:
        for dialect in self._dialects(ask):
            with ctx.span("llm.request", path=PATHS[dialect]):
                if await self._request(ask, dialect, answer):
                    return

    def _dialects(self, ask: Ask) -> tuple[Dialect, ...]:
        """In the order of trying. With a schema chat goes first: llama.cpp's `/responses` takes
        `text.format` and silently ignores it."""
        chosen: str = self.config["api"]
        if chosen == "responses":
            return ("responses",)
        if chosen == "chat" or self._lacks_responses:
            return ("chat",)
        return ("responses", "chat") if ask.response_schema is None else ("chat", "responses")

    async def _request(self, ask: Ask, dialect: Dialect, answer: Answer) -> bool:
        """False where this endpoint has no answer and the other is left to try."""
        import httpx

        url = self.config["base_url"].rstrip("/") + PATHS[dialect]
        has_other = dialect != self._dialects(ask)[-1]
        answer.begin()
        phases = Phases(self.config)
        try:
            async with phases:
                if not await self._stream(ask, dialect, answer, phases, url, has_other):
                    return False
        except TimeoutError as error:
            if not phases.late:
                raise  # another's clock
            what = f"{url} did not go on within {phases.late}"
            raise answer.failure("LLM_TIMEOUT", what, error) from error
        except httpx.ConnectTimeout as error:
            what = f"{url} took no connection within connect_timeout_ms"
            raise answer.failure("LLM_TIMEOUT", what, error) from error
        except httpx.HTTPError as error:
            what = f"{url}: {error or type(error).__name__}"
            raise answer.failure("LLM_UNREACHABLE", what, error) from error
        return not (has_other and answer.empty)

    async def _stream(
        self, ask: Ask, dialect: Dialect, answer: Answer, phases: Phases, url: str, has_other: bool
    ) -> bool:
        """Leaving it closes the connection, unless the answer was read to its end."""
        if self._client is None:
            raise ActionFailed("llm-openai is stopped: restart it", code="LLM_UNREACHABLE")
        body = request_body(ask, dialect, Names.of(ask))
        async with self._client.stream("POST", url, json=body) as response:
            if has_other and self._unfit(dialect, response.status_code):
                return False
            if response.status_code >= 300:
                text = (await response.aread()).decode(errors="replace")
                raise status_error(response.status_code, response.headers, text, url)
            async with aclosing(_pieces(response, dialect, url)) as pieces:
                async for piece in pieces:
                    phases.alive(piece.speaks)
                    if await answer.take(piece, url):
                        break
        if not (has_other and answer.empty):
            await answer.close(url)
        return True

    def _unfit(self, dialect: Dialect, status: int) -> bool:
        """A server without `/responses` is remembered; one that dislikes a request is not."""
        if dialect == "responses" and status in ABSENT_STATUSES:
            self._lacks_responses = True
        return status >= 400 and status not in (401, 403, *RETRIED_STATUSES)


def _checked(tool_choice: str | None, tools: list[ToolSpec] | None) -> str:
    names = [tool["name"] for tool in tools or ()]
    if tool_choice in (None, "auto", "none", "required") or tool_choice in names:
        return tool_choice or "auto"
    raise InvalidArguments(f"tool_choice {tool_choice!r} is not among the tools")


async def _pieces(response: Any, dialect: Dialect, url: str) -> AsyncGenerator[Piece, None]:
    """The stream's pieces, or one for a server that answers with a whole document."""
    try:
        if "event-stream" not in response.headers.get("content-type", ""):
            yield parse_document((await response.aread()).decode(), dialect)
            return
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                yield parse_event(line[5:], dialect)
    except (ValueError, AttributeError, TypeError, IndexError, KeyError) as error:
        raise ActionFailed(
            f"{url} sent what is not an answer of /{dialect}: {error}", code="LLM_BAD_RESPONSE"
        ) from error
