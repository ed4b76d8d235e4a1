"""The synchronous port over an asynchronous one, for plugin threads beside an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from .calls import Call, Item, Result
from .events import Event
from .port import AsyncPort, HttpResponse, SpanRecord

T = TypeVar("T")


class Bridge:
    """Every call waits, in the plugin's thread, for the loop to do it."""

    def __init__(self, port: AsyncPort, loop: asyncio.AbstractEventLoop) -> None:
        self._port, self._loop = port, loop

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed: the host went on without this thread
            work.close()
            raise
        return future.result()

    def _close(self, items: AsyncIterator[Item]) -> None:
        """End a stream that was left early; does not wait, the loop's own thread may be here."""
        if isinstance(items, AsyncGenerator) and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(items.aclose(), self._loop)

    def publish(self, event: Event, call_id: str) -> int:
        return self._wait(self._port.publish(event, call_id))

    def invoke(self, call: Call) -> Result:
        return self._wait(self._port.invoke(call))

    def stream(self, call: Call) -> Iterator[Item]:
        items = self._port.stream(call)

        async def following() -> Item | None:
            return await anext(items, None)

        try:
            while (item := self._wait(following())) is not None:
                yield item
        finally:
            self._close(items)

    def emit(self, call_id: str, item: Item) -> None:
        self._wait(self._port.emit(call_id, item))

    def kv_get(self, key: str) -> bytes | None:
        return self._wait(self._port.kv_get(key))

    def kv_put(self, key: str, value: bytes) -> None:
        self._wait(self._port.kv_put(key, value))

    def kv_delete(self, key: str) -> None:
        self._wait(self._port.kv_delete(key))

    def kv_list(self, prefix: str) -> list[str]:
        return self._wait(self._port.kv_list(prefix))

    def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        return self._wait(self._port.http_request(method, url, headers, body, timeout_ms))

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        self._loop.call_soon_threadsafe(self._port.log, level, message, attributes, call_id)

    def span(self, span: SpanRecord, call_id: str) -> None:
        self._loop.call_soon_threadsafe(self._port.span, span, call_id)

    def get_secret(self, name: str) -> str:
        return self._wait(self._port.get_secret(name))
