"""When a request has taken too long, and when it is worth another try."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

from loom_sdk.errors import ActionFailed, LoomError

RETRIED_STATUSES = (408, 409, 425, 429, 500, 502, 503, 504, 529)
MAX_RETRY_AFTER_S = 20.0
"""A server that asks for more waiting is given up instead: the speaker is gone by then."""
HINTS = {
    401: "check the key that api_key_secret names",
    403: "check the key's rights",
    404: "check base_url and model",
    429: "the account's limit is reached, or the server is busy",
}


class Retryable(Exception):
    """A try that failed before its first piece, with the wait that the server asked for."""

    def __init__(self, error: LoomError, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.wait_s = error, wait_s


class Phases(AbstractAsyncContextManager["Phases"]):
    """The clock of one request: `async with` it, and tell it of each sign of life.

    Ends its body with TimeoutError; `late` then says which limit that was.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._limits = {
            phase: config[f"{phase}_timeout_ms"] / 1000 for phase in ("first_token", "token_gap")
        }
        self.phase = "first_token"
        self._timer = asyncio.timeout(self._limits["first_token"])

    async def __aenter__(self) -> Phases:
        await self._timer.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._timer.__aexit__(kind, error, trace)

    def alive(self, speaks: bool) -> None:
        """An event came; the first one that holds something the model wrote begins `token_gap`."""
        if speaks:
            self.phase = "token_gap"
        if self.phase == "token_gap":
            now = asyncio.get_running_loop().time()
            self._timer.reschedule(now + self._limits["token_gap"])

    @property
    def late(self) -> str:
        """The setting whose time was over; empty where it was not one of these."""
        return f"{self.phase}_timeout_ms" if self._timer.expired() else ""


def backoff_s(done: int, asked: float | None, first_ms: float) -> float:
    """The wait before the next try, of which `done` were made already: what the server asked for,
    else doubled each time from `first_ms`, less up to half of it by chance."""
    if asked is not None:
        return asked
    return first_ms / 1000 * 2.0**done * random.uniform(0.5, 1)


def retry_after_s(text: str, now_s: float | None = None) -> float | None:
    """Seconds that a `Retry-After` asks for (RFC 9110, 10.2.3: seconds or an HTTP date).

    None where it says nothing that can be read.
    """
    text = text.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, until - (time.time() if now_s is None else now_s))


def status_error(status: int, headers: Mapping[str, str], text: str, url: str) -> Exception:
    """What an answer with this status, which is none of success, is raised as."""
    hint = HINTS.get(status, "see the server's log")
    message = f"{url} answered {status}: {text[:300].strip()}: {hint}"
    error = ActionFailed(message, code="LLM_HTTP_STATUS", data={"status": status})
    if status not in RETRIED_STATUSES:
        return error
    return Retryable(error, retry_after_s(headers.get("retry-after", "")))
