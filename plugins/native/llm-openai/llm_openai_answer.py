"""Collects one answer from its pieces and passes its text on."""

from __future__ import annotations

from typing import Any

from llm_openai_limits import Retryable
from llm_openai_parts import Ask, Calls, Names, Piece

from loom_sdk import AsyncContext, Result
from loom_sdk.errors import ActionFailed

HINTS = {
    "LLM_UNREACHABLE": "is the server running, is base_url right?",
    "LLM_TIMEOUT": "raise that limit, or take a smaller model",
}


class Answer:
    """One answer, over all tries: what was passed on once cannot be taken back."""

    def __init__(self, ctx: AsyncContext, ask: Ask, names: Names) -> None:
        self._ctx, self._ask, self._names = ctx, ask, names
        self.sent = 0
        """Characters passed on."""
        self.begin()

    def begin(self) -> None:
        """Another try: nothing of a former one is kept."""
        self.text, self.model, self.finish = "", self._ask.model, ""
        self.calls = Calls()
        self.tokens = (0, 0)
        self._ended = False

    async def take(self, piece: Piece, url: str) -> bool:
        """True once nothing more is wanted."""
        if piece.error:
            raise self.failure("LLM_BAD_RESPONSE", f"{url} broke off: {piece.error}")
        self.model = piece.model or self.model
        self.tokens = piece.usage or self.tokens
        self.finish = piece.finish or self.finish
        self.calls.take(piece.calls)
        self.text += piece.delta
        stops = self._ask.stop
        cut = min((at for text in stops if (at := self.text.find(text)) >= 0), default=-1)
        if cut >= 0:
            self.text, self.finish = self.text[:cut], "stop"
        self._ended = piece.done or cut >= 0
        await self._send(0 if self._ended else self._held())
        return self._ended

    def _held(self) -> int:
        """Characters at the end that may be the begin of a stop text."""
        sizes = (size for text in self._ask.stop for size in range(len(text) - 1, 0, -1)
                 if self.text.endswith(text[:size]))  # fmt: skip
        return max(sizes, default=0)

    async def _send(self, held: int) -> None:
        end = len(self.text) - held
        if end > self.sent and not self._ask.quiet:
            delta, self.sent = self.text[self.sent : end], end
            await self._ctx.emit({"delta": delta})

    def failure(self, code: str, message: str, cause: Exception | None = None) -> Exception:
        """Retryable only before the first piece: afterwards the listener has heard a part."""
        error = ActionFailed(f"{message}: {HINTS.get(code, 'see the server log')}", code=code)
        return error if self.sent or cause is None else Retryable(error)

    async def close(self, url: str) -> None:
        """The stream is over. Raises what `failure` makes of one that did not come to an end."""
        if not self._ended and not self.finish:
            if self.empty:
                raise self.failure("LLM_BAD_RESPONSE", f"{url} ended without an answer")
            cut = EOFError("the stream ended before its answer did")
            raise self.failure("LLM_BAD_RESPONSE", f"{url} broke off", cut)
        await self._send(0)

    @property
    def empty(self) -> bool:
        return not self.text and not self.calls

    def result(self, price_in: float, price_out: float) -> Result:
        """Prices are for a million tokens."""
        given, written = self.tokens
        cost = (given * price_in + written * price_out) / 1e6
        output: dict[str, Any] = {
            "text": self.text,
            "tool_calls": self.calls.complete(self._names),
            "model": self.model,
            "usage": {"input_tokens": given, "output_tokens": written, "cost": round(cost, 9)},
            "finish_reason": self._finish(),
        }
        return Result(output)

    def _finish(self) -> str:
        if self.calls and self.finish not in ("length", "content_filter"):
            return "tool_calls"
        return self.finish or "stop"
