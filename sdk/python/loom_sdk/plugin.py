"""What an author writes: a `Plugin` class whose methods are marked as capabilities and handlers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from . import schema
from .calls import Effects
from .errors import ManifestError
from .events import QoS

Method = TypeVar("Method")

API_VERSION = "1"


@dataclass(frozen=True, slots=True)
class CapabilitySpec:
    """Something that can be invoked, as the plugin declares it."""

    name: str
    description: str = ""
    tool: bool = False
    effects: Effects = "once"
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None
    resumable: bool = False
    version: str = ""
    examples: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class SubscriptionSpec:
    """A topic pattern that the plugin wants to hear."""

    topic: str
    qos: QoS = QoS.BATCHED
    types: tuple[str, ...] = ()
    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class Bound:
    """A marked method together with what was declared for it."""

    spec: Any
    method: str
    is_async: bool
    coercions: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    answers_json: bool = True
    """Whether its answer needs no change to be JSON."""


def capability(
    name: str,
    *,
    effects: Effects = "once",
    tool: bool = False,
    resumable: bool = False,
    version: str = "",
) -> Callable[[Method], Method]:
    """Mark a method as a capability. Its schema comes from its type hints and docstring.

    Args:
        effects: `none` and `idempotent` may be repeated by the host, `once` never is.
        tool: whether an LLM may choose it.
    """
    marks = {
        "name": name,
        "effects": effects,
        "tool": tool,
        "resumable": resumable,
        "version": version,
    }

    def mark(method: Method) -> Method:
        method.__loom_capability__ = marks  # type: ignore[attr-defined]  # a mark on a function
        return method

    return mark


def tool(name: str, *, effects: Effects = "once", version: str = "") -> Callable[[Method], Method]:
    """Mark a method as a capability that an LLM may choose."""
    return capability(name, effects=effects, tool=True, version=version)


def on_event(
    topic: str, *, qos: QoS = QoS.BATCHED, types: Iterable[str] = (), concurrency: int = 1
) -> Callable[[Method], Method]:
    """Mark a method `(self, ctx, event)` as the handler of a topic pattern.

    The return is the acknowledgement. Where several handlers match, the first declared wins.
    """
    spec = SubscriptionSpec(topic, qos, tuple(types), concurrency)

    def mark(method: Method) -> Method:
        method.__loom_subscription__ = spec  # type: ignore[attr-defined]  # a mark on a function
        return method

    return mark


class Plugin:
    """Base of every Python plugin, in every tier.

    `start` and `stop` bracket its life; both get a context and may be `async def` in the native
    and grpc tiers. `self.config` holds the validated settings before `start` is called.
    """

    config: Mapping[str, Any]

    def __init__(self) -> None:
        self.config = {}

    def start(self, ctx: Any) -> Awaitable[None] | None:
        """Acquire what is needed. Raising refuses the start. `ctx` is as the method that overrides
        this one wants it: `Context` for `def`, `AsyncContext` for `async def`.
        """
        return None

    def stop(self, ctx: Any) -> Awaitable[None] | None:
        """Release it."""
        return None

    def health(self) -> str:
        """Empty when healthy, else what is wrong."""
        return ""

    def offers(self) -> Iterable[CapabilitySpec]:
        """Capabilities beside the marked methods, known only once it has started; `serve` has
        their calls. The host takes them where the plugin's manifest leaves that open.
        """
        return ()

    def serve(self, ctx: Any, /, **arguments: Any) -> Any:
        """Answer a call of what `offers` names: `ctx.capability`. May be `async def`."""
        raise NotImplementedError


def declared_capabilities(kind: type[Plugin]) -> dict[str, Bound]:
    """Capability name to method, in the order of the source."""
    found: dict[str, Bound] = {}
    for name, method in _marked(kind, "__loom_capability__"):
        marks = method.__loom_capability__
        if marks["name"] in found:
            raise ManifestError(f"{kind.__name__} offers {marks['name']} twice: rename one")
        spec = CapabilitySpec(
            **marks,
            description=schema.description(method),
            input_schema=schema.input_schema(method),
            output_schema=schema.output_schema(method),
        )
        is_async = inspect.iscoroutinefunction(method)
        found[spec.name] = Bound(
            spec, name, is_async, schema.coercions(method), schema.answers_json(method)
        )
    return found


def declared_subscriptions(kind: type[Plugin]) -> list[Bound]:
    return [
        Bound(method.__loom_subscription__, name, inspect.iscoroutinefunction(method))
        for name, method in _marked(kind, "__loom_subscription__")
    ]


def _marked(kind: type[Plugin], mark: str) -> Iterable[tuple[str, Any]]:
    seen: set[str] = set()
    for base in kind.__mro__:
        for name in vars(base):
            method = getattr(kind, name, None)
            if name not in seen and hasattr(method, mark):
                seen.add(name)
                yield name, method
