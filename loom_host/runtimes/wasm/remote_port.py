"""The host API as a guest in a worker process sees it: every method is a frame to the host.

No call id is sent: the host knows which call this worker serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from loom_sdk import Call, Event, Item, Result
from loom_sdk.errors import ActionFailed
from loom_sdk.port import HttpResponse, SpanRecord

from . import messages
from .frames import OVERHEAD
from .host_imports import event_record
from .ticket import TELLS_AHEAD, Ticket


class Line(Protocol):
    """What carries frames to the host."""

    limit: int
    """Longest frame that the host reads."""

    def ask(self, name: str, fields: list[bytes], ticket: Ticket) -> list[bytes]: ...
    def tell(self, name: str, fields: list[bytes]) -> None: ...


class RemotePort:
    """Serves one guest; `ticket` is that of the call that runs."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._told = 0
        self.ticket = Ticket("")

    def _ask(self, name: str, *values: Any) -> list[Any]:
        takes, gives = messages.IMPORTS[name]
        fields = self._fitting(name, takes.pack(*values))
        return gives.unpack(self._line.ask(name, fields, self.ticket))

    def _fitting(self, name: str, fields: list[bytes]) -> list[bytes]:
        size = sum(map(len, fields))
        if size > self._line.limit - OVERHEAD:
            raise ActionFailed(
                f"{name}: {size} bytes are more than the {self._line.limit - OVERHEAD} that pass "
                "to the host at once: send it in pieces",
                code="TOO_LARGE",
            )
        return fields

    def _tell(self, name: str, *values: Any) -> None:
        self._told += 1
        if self._told % TELLS_AHEAD == 0:
            self._ask("sync")
        self._line.tell(name, self._fitting(name, messages.TELLS[name].pack(*values)))

    def publish(self, event: Event, call_id: str) -> int:
        record = event_record(event)
        return int(self._ask("publish", *(record[name] for name in messages.EVENT.names))[0])

    def invoke(self, call: Call) -> Result:
        answer = self._ask(
            "invoke",
            call.capability,
            call.arguments,
            call.payload,
            call.content_type,
            call.id,
            call.version,
            call.remaining_ms,
            call.traceparent,
        )
        return Result(*answer)

    def stream(self, call: Call) -> Iterator[Item]:
        raise NotImplementedError("plugin.wit has no import that streams")

    def emit(self, call_id: str, item: Item) -> None:
        self._ask("emit", item.output, item.payload, item.content_type)

    def kv_get(self, key: str) -> bytes | None:
        found, value = self._ask("kv-get", key)
        return bytes(value) if found else None

    def kv_put(self, key: str, value: bytes) -> None:
        self._ask("kv-put", key, value)

    def kv_delete(self, key: str) -> None:
        self._ask("kv-delete", key)

    def kv_list(self, prefix: str) -> list[str]:
        return list(self._ask("kv-list", prefix)[0])

    def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        pairs = list(headers.items())
        status, back, reply = self._ask("http-request", method, url, pairs, body, timeout_ms)
        return HttpResponse(status, dict(back), reply)

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        try:
            self._tell("log", level, message, list(attributes.items()))
        except ActionFailed as error:
            self._tell("log", level, f"a log line was lost: {error.message}", [])

    def span(self, span: SpanRecord, call_id: str) -> None:
        self._tell(
            "span",
            span.name,
            span.start_offset_us,
            span.duration_us,
            list(span.attributes.items()),
            span.error,
        )

    def get_secret(self, name: str) -> str:
        return str(self._ask("get-secret", name)[0])
