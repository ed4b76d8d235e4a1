"""The two ends of an invocation: `Call` and `Result`, with `Item` in between for streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .errors import ActionFailed
from .events import new_id
from .json_form import Mismatch
from .values import loader

T = TypeVar("T")

Effects = Literal["none", "idempotent", "once"]


@dataclass(slots=True)
class Call:
    """One invocation as the plugin gets it."""

    capability: str
    arguments: dict[str, Any]
    payload: bytes = b""
    content_type: str = ""
    id: str = field(default_factory=new_id)
    """Of the call; on its way to the host the caller's idempotency id, empty for none."""
    version: str = ""
    remaining_ms: int = 30_000
    traceparent: str = ""
    parent_call_id: str = ""


@dataclass(slots=True)
class Item:
    """One emitted item of a streamed answer."""

    output: Any = None
    payload: bytes = b""
    content_type: str = ""
    elapsed_us: int = 0
    """Time inside the plugin since its call began."""


@dataclass(slots=True)
class Result:
    """The end of an invocation. Return it from a capability to send binary beside the JSON."""

    output: Any = None
    payload: bytes = b""
    content_type: str = ""
    elapsed_us: int = 0
    """Time inside the plugin."""
    items: list[Item] = field(default_factory=list)
    """What was emitted, when the caller did not ask for a stream."""
    provider: str = ""
    """Name of the plugin that answered."""

    def to(self, kind: type[T]) -> T:
        """The output as what a type hint names: `ctx.invoke(...).to(Forecast)`.

        Args:
            kind: a dataclass, TypedDict, `list[...]` or whatever else a parameter may be.

        Raises:
            ActionFailed: the output is not of this form; names provider and place.
        """
        try:
            answer: T = loader(kind)(self.output)
        except Mismatch as wrong:
            place = "/".join(("output", *wrong.path))
            message = f"{self.provider or 'the provider'} answered {place}: {wrong.reason}"
            raise ActionFailed(message, code="UNEXPECTED_ANSWER") from wrong
        return answer
