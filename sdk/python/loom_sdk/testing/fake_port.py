"""The host as a plugin under test sees it: scripted answers, and a record of all it asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from loom_sdk.calls import Call, Item, Result
from loom_sdk.errors import CapabilityNotFound, PermissionDenied
from loom_sdk.events import Event
from loom_sdk.port import HttpResponse, SpanRecord
from loom_sdk.topics import matches

Answer = Result | Exception | Callable[..., Any] | Any


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that the plugin logged."""

    level: str
    message: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request that the plugin made."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class FakePort:
    """What a `Context` speaks to in a test."""

    granted: Iterable[str] | None = None
    """Permissions as `kind:pattern`; None grants everything."""
    published: list[Event] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    """What the plugin emitted."""
    calls: list[Call] = field(default_factory=list)
    """What the plugin invoked."""
    requests: list[HttpCall] = field(default_factory=list)
    logs: list[LogLine] = field(default_factory=list)
    spans: list[SpanRecord] = field(default_factory=list)
    storage: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    """Capability to its answer: a value, a `Result`, an error, or a function of the arguments."""
    pages: dict[tuple[str, str], Answer] = field(default_factory=dict)
    """(method, URL pattern with `*`) to `HttpResponse`, an error, or a function of the request."""

    def _check(self, kind: str, value: str) -> None:
        if self.granted is None:
            return
        for permission in self.granted:
            own, _, pattern = permission.partition(":")
            fits = matches if kind in ("publish", "subscribe") else _fits
            if own == kind and fits(pattern, value):
                return
        raise PermissionDenied(
            f"the test grants no {kind}:{value}; granted: {', '.join(self.granted) or 'nothing'}",
            permission=f"{kind}:{value}",
        )

    def publish(self, event: Event, call_id: str) -> int:
        self._check("publish", event.topic)
        self.published.append(event)
        return 1

    def invoke(self, call: Call) -> Result:
        self._check("invoke", call.capability)
        self.calls.append(call)
        if call.capability not in self.answers:
            known = ", ".join(sorted(self.answers)) or "none"
            raise CapabilityNotFound(
                f"the test has no answer for {call.capability}; it has: {known}; "
                f"write host.answers[{call.capability!r}] = ..."
            )
        answer = _given(self.answers[call.capability], call.arguments)
        return answer if isinstance(answer, Result) else Result(answer)

    def stream(self, call: Call) -> Iterator[Item]:
        answer = self.invoke(call)
        yield from answer.items
        if answer.output is not None or answer.payload:
            yield Item(answer.output, answer.payload, answer.content_type)

    def emit(self, call_id: str, item: Item) -> None:
        self.items.append(item)

    def kv_get(self, key: str) -> bytes | None:
        self._check("storage", "own")
        return self.storage.get(key)

    def kv_put(self, key: str, value: bytes) -> None:
        self._check("storage", "own")
        self.storage[key] = bytes(value)

    def kv_delete(self, key: str) -> None:
        self._check("storage", "own")
        self.storage.pop(key, None)

    def kv_list(self, prefix: str) -> list[str]:
        self._check("storage", "own")
        return sorted(key for key in self.storage if key.startswith(prefix))

    def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        self._check("network", url)
        request = HttpCall(method, url, dict(headers), body)
        self.requests.append(request)
        for (wanted, pattern), answer in self.pages.items():
            if wanted == method and fnmatchcase(url, pattern):
                response = _given(answer, request)
                assert isinstance(response, HttpResponse)
                return response
        known = ", ".join(f"{m} {u}" for m, u in self.pages) or "none"
        raise PermissionDenied(
            f"the test has no page for {method} {url}; it has: {known}; write host.page(...)",
            permission=f"network:{url}",
        )

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        self.logs.append(LogLine(level, message, attributes))

    def span(self, span: SpanRecord, call_id: str) -> None:
        self.spans.append(span)

    def get_secret(self, name: str) -> str:
        self._check("secrets", name)
        if name not in self.secrets:
            raise PermissionDenied(
                f"the test has no secret {name}; write host.secrets[{name!r}] = ...",
                permission=f"secrets:{name}",
            )
        return self.secrets[name]


class AsyncFakePort:
    """The same, for `async def` methods."""

    def __init__(self, port: FakePort) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name in ("log", "span"):
            return method

        async def call(*args: Any) -> Any:
            return method(*args)

        return call

    async def stream(self, call: Call) -> AsyncIterator[Item]:
        for item in self._port.stream(call):
            yield item


def response(status: int, body: bytes | str | Any, headers: Mapping[str, str]) -> HttpResponse:
    """Bytes and texts as they are, everything else as JSON."""
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return HttpResponse(status, dict(headers), body)


def _given(answer: Answer, asked: Any) -> Any:
    if callable(answer) and not isinstance(answer, type):
        answer = answer(asked)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _fits(pattern: str, value: str) -> bool:
    return fnmatchcase(value, pattern) or value.startswith(pattern.rstrip("*") + "/")
