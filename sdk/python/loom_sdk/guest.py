"""Glue inside a wasm guest: a `Plugin` class as the export that componentize-py expects.

Importable only in a guest, where the bindings of `plugin.wit` exist. The host's build writes an
`app.py` of three lines around `bind`; authors never import this module.
"""

from __future__ import annotations

import gc
import inspect
import json
import linecache
import random
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from componentize_py_types import Err  # type: ignore[import-not-found]  # only in a guest
from wit_world.imports import types  # type: ignore[import-not-found]  # only in a guest

from .call_context import Identity
from .calls import Call
from .driver import Driver, negotiate, parse_arguments
from .errors import (
    LoomError,
    PluginLoadError,
    QuotaExceeded,
    encode,
)
from .events import Event, fresh_id_prefix
from .guest_port import HostPort
from .plugin import (
    CapabilitySpec,
    Plugin,
    SubscriptionSpec,
    declared_capabilities,
    declared_subscriptions,
)

_TRACEBACK_CHARS = 8000


class Guest:
    """The `plugin` interface of the WIT for one plugin class."""

    kind: type[Plugin] = Plugin
    driver: Driver
    """Its tables are made while the component is built, so that `init` finds them ready."""
    _only: Guest | None = None
    _started = False
    _quotas: Mapping[str, int] = {}
    _plugin_id = ""

    def __new__(cls) -> Guest:
        """componentize-py asks for an instance per call; the plugin's state needs one for good."""
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def init(self, request: Any) -> Any:
        fresh_id_prefix()
        random.seed()
        self._plugin_id = request.plugin_id
        self._quotas = dict(request.quotas)
        try:
            return self._start(request)
        except BaseException as error:
            self._refuse(error)

    def _start(self, request: Any) -> Any:
        version = negotiate(request.api_versions, self._plugin_id)
        driver = self.driver
        driver.plugin = self.kind()
        driver.plugin.config = json.loads(request.config or "{}")
        driver._identity = Identity(self._plugin_id, grants=tuple(request.grants))
        method, context, _ = driver.lifecycle("start")
        method(context)
        driver.learn()
        self._started = True
        return types.InitResponse(
            api_version=version,
            capabilities=[_capability(spec) for spec in driver.capabilities],
            subscriptions=[_subscription(spec) for spec in driver.subscriptions],
        )

    @property
    def _ready(self) -> Driver:
        if not self._started:
            raise PluginLoadError(f"{self._plugin_id or 'this plugin'} was not initialised")
        return self.driver

    def invoke(self, call: Any) -> Any:
        try:
            return self._answer(self._ready, call)
        except BaseException as error:
            self._refuse(error)

    def _answer(self, driver: Driver, call: Any) -> Any:
        bound = driver.capability(call.capability)
        result = driver.invoke(
            bound,
            Call(
                call.capability,
                parse_arguments(call.arguments),
                call.payload,
                call.content_type,
                id=call.id,
                version=call.version,
                remaining_ms=call.remaining_ms,
                traceparent=call.traceparent,
                parent_call_id=call.parent_call_id,
            ),
        )
        output = json.dumps(result.output)
        self._check_output(len(output) + len(result.payload))
        return types.ActionResult(
            output=output,
            payload=bytes(result.payload),
            content_type=result.content_type,
            elapsed_us=result.elapsed_us,
        )

    def _check_output(self, used: int) -> None:
        limit = self._quotas.get("output_bytes", 0)
        if limit and used > limit:
            raise QuotaExceeded(
                plugin_id=self._plugin_id, quota="output_bytes", limit=limit, used=used
            )

    def handle_event(self, event: Any) -> int:
        began = time.perf_counter_ns()
        try:
            heard = _from_wit(event)
            bound = self._ready.handler(heard)
            if bound is not None:
                self._ready.handle_event(bound, heard)
        except BaseException as error:
            self._refuse(error)
        return (time.perf_counter_ns() - began) // 1000

    def health(self) -> Any:
        try:
            sick = self._ready.plugin.health()
        except Exception as error:
            sick = f"health() raised {type(error).__name__}: {error}"
        return types.HealthStatus(healthy=not sick, message=sick, memory_bytes=0)

    def shutdown(self) -> None:
        if self._started:
            method, context, _ = self.driver.lifecycle("stop")
            method(context)

    def _refuse(self, error: BaseException) -> NoReturn:
        """Raise the `action-error` that an exception becomes."""
        if isinstance(error, MemoryError):
            limit = self._quotas.get("memory", 0)
            error = QuotaExceeded(
                f"{self._plugin_id}: out of memory (quota memory = {limit} bytes)",
                plugin_id=self._plugin_id,
                quota="memory",
                limit=limit,
                used=limit,
            )
        info = encode(error)
        details = info.details
        if not isinstance(error, LoomError):
            text = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARS:]
            details = json.dumps({"traceback": text})
        raise Err(types.ActionError(code=info.code, message=info.message, details=details))


def bind(kind: type[Plugin]) -> type[Guest]:
    """The export class for a plugin. Called while the component is built.

    Raises:
        PluginLoadError: a method is `async def`; the message names it.
    """
    bound = [*declared_capabilities(kind).values(), *declared_subscriptions(kind)]
    found = [item.method for item in bound if item.is_async]
    lifecycle = {name: getattr(kind, name) for name in ("start", "stop", "health")}
    found += [name for name, method in lifecycle.items() if inspect.iscoroutinefunction(method)]
    if found:
        raise PluginLoadError(
            f"{kind.__name__}: {', '.join(found)} is `async def`, which the wasm tier does not "
            "run; write `def`, which runs in every tier"
        )
    _keep_sources()
    driver = Driver(kind.__new__(kind), Identity(""), HostPort())
    made = type("Plugin", (Guest,), {"kind": kind, "driver": driver})
    # Instances share the snapshot's pages until they write there, and a collection writes to
    # every object that it looks at.
    gc.collect()
    gc.freeze()
    return made


def _keep_sources() -> None:
    """Keep source lines in the snapshot, for tracebacks where there is no file to read."""
    stdlib = Path(random.__file__ or "").parent
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and Path(file).parent != stdlib:
            lines = linecache.getlines(file)
            # A modification time of None stops linecache from dropping what it cannot stat.
            linecache.cache[file] = (sum(map(len, lines)), None, lines, file)


def _capability(spec: CapabilitySpec) -> Any:
    return types.CapabilityDescriptor(
        name=spec.name,
        description=spec.description,
        tool=spec.tool,
        effects=spec.effects,
        input_schema=json.dumps(spec.input_schema) if spec.input_schema is not None else "",
        output_schema=json.dumps(spec.output_schema) if spec.output_schema is not None else "",
        resumable=spec.resumable,
        version=spec.version,
    )


def _subscription(spec: SubscriptionSpec) -> Any:
    return types.SubscriptionDescriptor(
        topic=spec.topic,
        qos=types.QosLevel(int(spec.qos)),
        types=list(spec.types),
        concurrency=spec.concurrency,
    )


def _from_wit(event: Any) -> Event:
    return Event(
        event.type,
        event.payload,
        dict(event.metadata),
        event.id,
        event.timestamp_ms,
        event.source,
        event.confidence,
        tuple(event.tags),
        event.priority,
        event.topic,
        event.traceparent,
        event.delivery_attempt,
    )
