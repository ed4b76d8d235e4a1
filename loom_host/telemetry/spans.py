"""Spans, recorded by ourselves: 2-3 us each where the OpenTelemetry SDK takes about 23."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from random import getrandbits
from typing import Any

Attribute = str | int | float | bool
Attributes = Mapping[str, Attribute]

current: ContextVar[str] = ContextVar("loom_traceparent", default="")
"""Traceparent of the work in hand, for log lines; whoever starts a span may set it."""

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_HALF = (1 << 64) - 1
_ROW = (
    "name",
    "trace_id",
    "span_id",
    "parent_id",
    "start_ns",
    "end_ns",
    "attributes",
    "error",
)


def parse_traceparent(text: str) -> tuple[str, str, bool] | None:
    """Trace id, span id and whether it is sampled, of a W3C traceparent of version 00.

    None when it is malformed or all zero, which W3C tells to ignore.
    """
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    return trace_id, span_id, bool(int(flags, 16) & 1)


class Span:
    """A piece of work with a begin, an end and a parent. Use `with` or call `end`."""

    __slots__ = (
        "_tracer",
        "attributes",
        "end_ns",
        "error",
        "name",
        "parent_id",
        "span_id",
        "start_ns",
        "trace_id",
    )
    sampled = True

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        trace_id: str,
        parent_id: str,
        start_ns: int,
        attributes: Attributes | None,
    ) -> None:
        self._tracer = tracer
        self.name = name
        self.trace_id = trace_id
        """32 hex digits."""
        self.span_id = f"{getrandbits(64) or 1:016x}"
        """16 hex digits."""
        self.parent_id = parent_id
        """16 hex digits, empty for the root."""
        self.start_ns = start_ns
        """Unix time in nanoseconds."""
        self.end_ns = 0
        """Unix time in nanoseconds; 0 while it runs."""
        self.attributes: dict[str, Attribute] = dict(attributes) if attributes else {}
        self.error = ""
        """Why the work failed; empty when it did not."""

    @property
    def traceparent(self) -> str:
        """W3C trace context to hand on to what this work causes."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    @property
    def duration_ns(self) -> int:
        return max(0, self.end_ns - self.start_ns)

    def set(self, key: str, value: Attribute) -> None:
        self.attributes[key] = value

    def end(self, error: BaseException | str | None = None) -> None:
        """Finish and record it; a second call does nothing."""
        if self.end_ns:
            return
        self.end_ns = time.time_ns()
        if error is not None:
            self.error = str(error) or type(error).__name__
        self._tracer._finish(self)

    def to_row(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_row` reverses it."""
        return {name: getattr(self, name) for name in _ROW}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Span:
        """A finished span from another process, to be shown; it belongs to no tracer."""
        span = cls(Tracer(), row["name"], row["trace_id"], row["parent_id"], 0, None)
        for name in _ROW:
            setattr(span, name, row[name])
        return span

    def __enter__(self) -> Span:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end(error)


class Unsampled(Span):
    """Stands for a span that nobody records: only hands its trace context on."""

    __slots__ = ("traceparent",)
    sampled = False

    def __init__(self, context: str) -> None:
        self.traceparent = context  # type: ignore[misc]  # a slot in place of the property

    @property
    def attributes(self) -> dict[str, Attribute]:  # type: ignore[override]  # writes are lost
        return {}

    def set(self, key: str, value: Attribute) -> None:
        pass

    def end(self, error: BaseException | str | None = None) -> None:
        pass


class Tracer:
    """Starts spans, keeps the last finished ones, and hands each to its sinks.

    Args:
        sample_ratio: share of new traces that are recorded, 0 to 1, decided by the trace id as
            OpenTelemetry's TraceIdRatioBased does. A child follows its parent.
        keep: finished spans kept for `loom trace`.
    """

    def __init__(
        self, sample_ratio: float = 1.0, keep: int = 2048, service_name: str = "loom"
    ) -> None:
        self.service_name = service_name
        self.sample_ratio = sample_ratio
        self.redact: Callable[[str], str] | None = None
        """Takes secrets out of attribute values and errors."""
        self.sinks: list[Callable[[Span], None]] = []
        """Called with every finished span; must not block or raise."""
        self._bound = round(sample_ratio * (1 << 64))
        self._ring: deque[Span] = deque(maxlen=keep)

    def start(self, name: str, traceparent: str = "", attributes: Attributes | None = None) -> Span:
        """Begin a span: a child where `traceparent` is valid, else the root of a new trace."""
        if traceparent.endswith("-00") and len(traceparent) == 55:
            return Unsampled(traceparent)
        parent = parse_traceparent(traceparent) if traceparent else None
        if parent is not None:
            trace_id, parent_id, sampled = parent
            if not sampled:
                return Unsampled(traceparent)
            return Span(self, name, trace_id, parent_id, time.time_ns(), attributes)
        number = getrandbits(128) or 1
        if number & _HALF >= self._bound:
            digits = f"{number:032x}"
            return Unsampled(f"00-{digits}-{digits[16:]}-00")
        return Span(self, name, f"{number:032x}", "", time.time_ns(), attributes)

    def record(
        self,
        name: str,
        parent_traceparent: str,
        start_ns: int,
        duration_ns: int,
        attributes: Attributes | None = None,
        error: str = "",
    ) -> Span | None:
        """Add a finished span that was measured elsewhere: in a guest or a child process.

        None, and nothing is kept, where the parent is unsampled or malformed.
        """
        parent = parse_traceparent(parent_traceparent)
        if parent is None or not parent[2]:
            return None
        span = Span(self, name, parent[0], parent[1], start_ns, attributes)
        span.end_ns = start_ns + max(1, duration_ns)
        span.error = error
        self._finish(span)
        return span

    def finished(self, trace_id: str | None = None) -> list[Span]:
        """The kept spans, of one trace or of all, in the order in which they ended."""
        return [s for s in self._ring if trace_id is None or s.trace_id == trace_id]

    def last_trace(self, name: str | None = None) -> list[Span]:
        """The kept spans of the trace that ended last, by start.

        Args:
            name: look for the last span of this name; by default for the last root that has
                children, else for the last root.
        """
        wanted = [
            span
            for span in reversed(self._ring)
            if (span.name == name if name is not None else not span.parent_id)
        ]
        if name is None:
            parents = {span.parent_id for span in self._ring}
            wanted = [span for span in wanted if span.span_id in parents] or wanted
        if not wanted:
            return []
        return sorted(self.finished(wanted[0].trace_id), key=lambda s: s.start_ns)

    def _finish(self, span: Span) -> None:
        if self.redact is not None:
            self._clean(span, self.redact)
        self._ring.append(span)
        for sink in self.sinks:
            sink(span)

    @staticmethod
    def _clean(span: Span, redact: Callable[[str], str]) -> None:
        span.error = redact(span.error)
        for key, value in span.attributes.items():
            if isinstance(value, str):
                span.attributes[key] = redact(value)
