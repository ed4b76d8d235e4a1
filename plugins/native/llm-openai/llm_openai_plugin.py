"""`llm.chat` by any OpenAI-compatible server: `/responses` where it has it, else
`/chat/completions`. It opens sockets itself, so in the native tier it counts as `cloud`.

The Rust project's variables VLLM_BASE_URL, VLLM_MODEL and VLLM_API_KEY become the settings
`base_url`, `model` and the secret that `api_key_secret` names.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from llm_openai_wire import PATHS, Ask, Dialect, Piece, parse_document, parse_event, request_body

from loom_sdk import AsyncContext, Plugin, Result, capability
from loom_sdk.engines import Message
from loom_sdk.errors import ActionFailed, InvalidArguments, LoomError

if TYPE_CHECKING:
    import httpx

RETRIED_STATUSES = (408, 429, 500, 502, 503, 504)
ABSENT_STATUSES = (404, 405, 501)
MAX_RETRY_AFTER_S = 20.0
"""A server that asks for more waiting is given up instead: the speaker is gone by then."""


class _Retryable(Exception):
    """A try that failed before its first piece, with the wait that the server asked for."""

    def __init__(self, error: LoomError, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.wait_s = error, wait_s


class OpenAiLlm(Plugin):
    """One HTTP client for the plugin's life; answers run beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self._client: httpx.AsyncClient | None = None
        self._lacks_responses = False

    async def start(self, ctx: AsyncContext) -> None:
        import httpx

        key = self.config["api_key_secret"]
        headers = {"Authorization": f"Bearer {await ctx.secret(key)}"} if key else {}
        timeout = httpx.Timeout(
            self.config["request_timeout_ms"] / 1000,
            connect=self.config["connect_timeout_ms"] / 1000,
        )
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False)

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
    ) -> Result:
        """Answer a conversation, streaming text as it is written.

        Args:
            messages: the conversation so far; role is system, user or assistant
            max_tokens: limit of the answer
            temperature: 0 always takes the likeliest token
            stop: texts that end the answer
            response_schema: JSON Schema that the answer must fit

        Returns:
            {text, model, usage: {prompt_tokens, completion_tokens}}; items before it are {delta}.

        Raises:
            InvalidArguments: no messages.
            ActionFailed: LLM_HTTP_STATUS, LLM_TIMEOUT, LLM_UNREACHABLE or LLM_BAD_RESPONSE.
        """
        if not messages:
            raise InvalidArguments("llm.chat needs at least one message")
        ask = Ask(
            [dict(message) for message in messages],  # type: ignore[arg-type]  # all values are str
            self.config["model"],
            max_tokens or self.config["max_output_tokens"],
            self.config["temperature"] if temperature is None else temperature,
            tuple(stop or ()),
            response_schema,
        )
        answer = _Answer(ctx, ask)
        await self._with_retries(ctx, ask, answer)
        return answer.result()

    async def _with_retries(self, ctx: AsyncContext, ask: Ask, answer: _Answer) -> None:
        for tries_left in range(self.config["retries"], -1, -1):
            try:
                await self._try(ctx, ask, answer)
                return
            except _Retryable as failed:
                done = self.config["retries"] - tries_left
                wait = self._wait_s(done, failed.wait_s)
                late = wait * 1000 >= ctx.remaining_ms() or wait > MAX_RETRY_AFTER_S
                if not tries_left or late:
                    raise failed.error from failed
                ctx.log("trying the model again", "warning", after_s=f"{wait:.2f}", why=failed)
                await asyncio.sleep(wait)

    def _wait_s(self, done: int, asked: float | None) -> float:
        if asked is not None:
            return asked
        ceiling: float = self.config["retry_backoff_ms"] / 1000 * 2.0**done
        return ceiling * random.uniform(0.5, 1)

    async def _try(self, ctx: AsyncContext, ask: Ask, answer: _Answer) -> None:
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

    async def _request(self, ask: Ask, dialect: Dialect, answer: _Answer) -> bool:
        """False where this endpoint has no answer and the other is left to try."""
        import httpx

        if self._client is None:
            raise ActionFailed("llm-openai is stopped: restart it", code="LLM_UNREACHABLE")
        url = self.config["base_url"].rstrip("/") + PATHS[dialect]
        has_other = dialect != self._dialects(ask)[-1]
        try:
            async with self._client.stream(
                "POST", url, json=request_body(ask, dialect)
            ) as response:
                if has_other and self._unfit(dialect, response.status_code):
                    return False
                await _check_status(response, url)
                async with aclosing(_pieces(response, dialect, url)) as pieces:
                    async for piece in pieces:
                        if await answer.take(piece, url):
                            break
        except httpx.TimeoutException as error:
            raise answer.failure("LLM_TIMEOUT", f"{url} did not answer in time", error) from error
        except httpx.HTTPError as error:
            what = f"{url}: {error or type(error).__name__}"
            raise answer.failure("LLM_UNREACHABLE", what, error) from error
        if has_other and not answer.text:
            return False
        answer.finish(url)
        return True

    def _unfit(self, dialect: Dialect, status: int) -> bool:
        """A server without `/responses` is remembered; one that dislikes a request is not."""
        if dialect == "responses" and status in ABSENT_STATUSES:
            self._lacks_responses = True
        return status >= 400 and status not in (401, 403, *RETRIED_STATUSES)


class _Answer:
    """Collects one answer and passes its pieces on."""

    def __init__(self, ctx: AsyncContext, ask: Ask) -> None:
        self._ctx, self._stop = ctx, ask.stop
        self.text, self._sent, self._model = "", 0, ask.model
        self._usage: dict[str, int] = {}
        self._ended = False

    async def take(self, piece: Piece, url: str) -> bool:
        """True once nothing more is wanted."""
        if piece.error:
            raise self.failure("LLM_BAD_RESPONSE", f"{url} broke off: {piece.error}")
        self._model = piece.model or self._model
        self._usage = piece.usage or self._usage
        self.text += piece.delta
        cut = min((at for text in self._stop if (at := self.text.find(text)) >= 0), default=-1)
        if cut >= 0:
            self.text = self.text[:cut]
        self._ended = piece.done or cut >= 0
        await self._send(0 if self._ended else self._held())
        return self._ended

    def _held(self) -> int:
        """Characters at the end that may be the begin of a stop text."""
        sizes = (size for text in self._stop for size in range(len(text) - 1, 0, -1)
                 if self.text.endswith(text[:size]))  # fmt: skip
        return max(sizes, default=0)

    async def _send(self, held: int) -> None:
        end = len(self.text) - held
        if end > self._sent:
            await self._ctx.emit({"delta": self.text[self._sent : end]})
            self._sent = end

    def failure(self, code: str, message: str, cause: Exception | None = None) -> Exception:
        """Retryable only before the first piece: afterwards the listener has heard a part."""
        hint = {"LLM_UNREACHABLE": "is the server running, is base_url right?",
                "LLM_TIMEOUT": "raise request_timeout_ms, or take a smaller model"}  # fmt: skip
        error = ActionFailed(f"{message}: {hint.get(code, 'see the server log')}", code=code)
        return error if self._sent or cause is None else _Retryable(error)

    def finish(self, url: str) -> None:
        if not self.text and not self._ended:
            raise self.failure("LLM_BAD_RESPONSE", f"{url} ended without an answer")

    def result(self) -> Result:
        usage = self._usage or {"prompt_tokens": 0, "completion_tokens": 0}
        return Result({"text": self.text, "model": self._model, "usage": usage})


async def _pieces(response: Any, dialect: Dialect, url: str) -> AsyncGenerator[Piece, None]:
    """The stream's pieces, or one for a server that answers with a whole document."""
    try:
        if "event-stream" not in response.headers.get("content-type", ""):
            piece = parse_document((await response.aread()).decode(), dialect)
            piece.done = True
            yield piece
            return
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                yield parse_event(line[5:], dialect)
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        raise ActionFailed(
            f"{url} sent what is not an answer of /{dialect}: {error}", code="LLM_BAD_RESPONSE"
        ) from error


async def _check_status(response: Any, url: str) -> None:
    status: int = response.status_code
    if status < 300:
        return
    text = (await response.aread()).decode(errors="replace")[:300]
    hint = {401: "check the key that api_key_secret names", 403: "check the key's rights",
            404: "check base_url and model"}.get(status, "see the server's log")  # fmt: skip
    error = ActionFailed(f"{url} answered {status}: {text.strip()}: {hint}", code="LLM_HTTP_STATUS")
    if status not in RETRIED_STATUSES:
        raise error
    after = response.headers.get("retry-after", "")
    raise _Retryable(error, float(after) if after.isdecimal() else None)
