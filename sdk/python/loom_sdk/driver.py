"""Drives one plugin object: the same lookup, binding and clocks in every tier."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Sequence
from typing import Any

from . import topics
from .agent import STATE, Agent, Turns
from .call_context import Identity
from .calls import Call, Result
from .context import AsyncContext, Context
from .errors import (
    ActionFailed,
    CapabilityNotFound,
    InvalidArguments,
    PluginLoadError,
    ProtocolMismatch,
)
from .events import Event
from .json_form import PLAIN, json_form
from .plugin import (
    API_VERSION,
    Bound,
    CapabilitySpec,
    Plugin,
    SubscriptionSpec,
    declared_capabilities,
    declared_subscriptions,
)
from .port import AsyncPort, Port
from .values import arguments_of


def negotiate(host_versions: Sequence[str], plugin_id: str) -> str:
    """The api version both sides speak. Raises ProtocolMismatch naming both."""
    if API_VERSION in host_versions:
        return API_VERSION
    raise ProtocolMismatch(
        f"{plugin_id} speaks api {API_VERSION}, the host speaks {', '.join(host_versions)}: "
        "upgrade the older of loom-sdk and loom-host",
        plugin_id=plugin_id,
    )


def load_entry(entry: str) -> type[Plugin]:
    """The class named by `module:Class`. Raises PluginLoadError naming what is missing."""
    import importlib

    module_name, _, attribute = entry.partition(":")
    module = importlib.import_module(module_name)
    kind = getattr(module, attribute, None)
    if not (isinstance(kind, type) and issubclass(kind, Plugin)):
        raise PluginLoadError(
            f"entry {entry!r}: {module_name} has no loom_sdk.Plugin subclass {attribute!r}"
        )
    return kind


class Driver:
    """One plugin object with its tables. Synchronous methods get `sync_port`."""

    def __init__(
        self,
        plugin: Plugin,
        identity: Identity,
        sync_port: Port,
        async_port: AsyncPort | None = None,
    ) -> None:
        self.plugin = plugin
        self._identity = identity
        self._ports = (sync_port, async_port)
        self._capabilities = declared_capabilities(type(plugin))
        self._subscriptions = declared_subscriptions(type(plugin))
        self._handlers: dict[tuple[str, str], Bound | None] = {}
        self._turns = Turns()

    def learn(self) -> None:
        """After the start: take up what the plugin offers beside its marked methods."""
        is_async = inspect.iscoroutinefunction(self.plugin.serve)
        for spec in self.plugin.offers():
            self._capabilities.setdefault(spec.name, Bound(spec, "serve", is_async))

    @property
    def capabilities(self) -> list[CapabilitySpec]:
        return [bound.spec for bound in self._capabilities.values()]

    @property
    def subscriptions(self) -> list[SubscriptionSpec]:
        return [bound.spec for bound in self._subscriptions]

    def capability(self, name: str) -> Bound:
        try:
            return self._capabilities[name]
        except KeyError:
            raise CapabilityNotFound(
                f"{self._identity.plugin_id} does not offer {name!r}"
            ) from None

    def handler(self, event: Event) -> Bound | None:
        """The first handler whose pattern and types fit; remembered per topic and type."""
        key = (event.topic, event.type)
        try:
            return self._handlers[key]
        except KeyError:
            fitting = (
                bound
                for bound in self._subscriptions
                if topics.matches(bound.spec.topic, event.topic)
                and (not bound.spec.types or event.type in bound.spec.types)
            )
            found = self._handlers[key] = next(fitting, None)
            return found

    def _context(self, is_async: bool, call: Call | None, event: Event | None) -> Any:
        sync_port, async_port = self._ports
        if not is_async:
            return Context(sync_port, self._identity, call=call, event=event)
        if async_port is None:
            raise PluginLoadError(
                f"{self._identity.plugin_id}: `async def` methods do not run in the wasm tier; "
                "write `def`, which runs in every tier",
                plugin_id=self._identity.plugin_id,
            )
        return AsyncContext(async_port, self._identity, call=call, event=event)

    def _bind(self, bound: Bound, call: Call) -> tuple[Any, dict[str, Any]]:
        arguments = call.arguments
        if bound.coercions:
            arguments = arguments_of(bound.coercions, arguments, call.capability)
        context = self._context(bound.is_async, call, None)
        return context, arguments

    def invoke(self, bound: Bound, call: Call) -> Result:
        """Run a `def` capability in this thread."""
        began = time.perf_counter_ns()
        context, arguments = self._bind(bound, call)
        answer = getattr(self.plugin, bound.method)(context, **arguments)
        return _as_result(answer, bound, began)

    async def ainvoke(self, bound: Bound, call: Call) -> Result:
        """Run an `async def` capability on this loop."""
        began = time.perf_counter_ns()
        context, arguments = self._bind(bound, call)
        answer = await getattr(self.plugin, bound.method)(context, **arguments)
        return _as_result(answer, bound, began)

    def handle_event(self, bound: Bound, event: Event) -> None:
        """Run a `def` handler in this thread."""
        plugin, context = self.plugin, self._context(False, None, event)
        if not isinstance(plugin, Agent):
            getattr(plugin, bound.method)(context, event)
            return
        port = self._ports[0]
        turn = context._turn = self._turns.begin(plugin, port.kv_get(STATE + event.id))
        getattr(plugin, bound.method)(context, event)
        for key, value in self._turns.end(turn):
            port.kv_put(key + event.id, value)

    async def ahandle_event(self, bound: Bound, event: Event) -> None:
        """Run an `async def` handler on this loop."""
        plugin, context = self.plugin, self._context(True, None, event)
        port, method = self._ports[1], getattr(plugin, bound.method)
        if not isinstance(plugin, Agent) or port is None:
            await method(context, event)
            return
        turn = context._turn = self._turns.begin(plugin, await port.kv_get(STATE + event.id))
        await method(context, event)
        for key, value in self._turns.end(turn):
            await port.kv_put(key + event.id, value)

    def lifecycle(self, name: str) -> tuple[Any, Any, bool]:
        """The method `start` or `stop`, the context it gets, and whether it is async."""
        method = getattr(self.plugin, name)
        is_async = inspect.iscoroutinefunction(method)
        return method, self._context(is_async, None, None), is_async


def _as_result(answer: Any, bound: Bound, began: int) -> Result:
    result = answer if isinstance(answer, Result) else Result(answer)
    if not bound.answers_json or type(result.output) not in PLAIN:
        result.output = _answer(result.output, bound)
    result.elapsed_us = (time.perf_counter_ns() - began) // 1000
    return result


def _answer(value: Any, bound: Bound) -> Any:
    try:
        return json_form(value)
    except ActionFailed as error:
        raise ActionFailed(f"{bound.spec.name} returned {error.message}", code=error.code) from None


def parse_arguments(text: str) -> dict[str, Any]:
    """The arguments of a call that came as JSON text. Raises InvalidArguments."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"arguments are not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise InvalidArguments("arguments must be a JSON object")
    return arguments
