"""Parts that many tests use: a recording port and short ways to drive one plugin object."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loom_sdk import Call, Event, Item, Plugin, Result
from loom_sdk.call_context import Identity
from loom_sdk.driver import Driver
from loom_sdk.errors import CapabilityNotFound
from loom_sdk.port import HttpResponse, SpanRecord

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class FakePort:
    """Records what a plugin asks of its host. `answers` maps a capability to its results."""

    published: list[Event] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    store: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Result] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    spans: list[SpanRecord] = field(default_factory=list)

    def publish(self, event: Event, call_id: str) -> int:
        self.published.append(event)
        return 1

    def invoke(self, call: Call) -> Result:
        self.calls.append(call)
        if call.capability not in self.answers:
            raise CapabilityNotFound(f"nobody offers {call.capability!r}")
        return self.answers[call.capability]

    def stream(self, call: Call) -> Iterator[Item]:
        yield from self.invoke(call).items

    def emit(self, call_id: str, item: Item) -> None:
        self.items.append(item)

    def kv_get(self, key: str) -> bytes | None:
        return self.store.get(key)

    def kv_put(self, key: str, value: bytes) -> None:
        self.store[key] = value

    def kv_delete(self, key: str) -> None:
        self.store.pop(key, None)

    def kv_list(self, prefix: str) -> list[str]:
        return sorted(key for key in self.store if key.startswith(prefix))

    def http_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> HttpResponse:
        raise CapabilityNotFound(f"no HTTP in this test: {method} {url}")

    def log(self, level: str, message: str, attributes: Mapping[str, str], call_id: str) -> None:
        self.logs.append(f"{level}: {message}")

    def span(self, span: SpanRecord, call_id: str) -> None:
        self.spans.append(span)

    def get_secret(self, name: str) -> str:
        return self.secrets[name]


class AsyncFakePort:
    """The same recorder for `async def` methods."""

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


def load_plugin(tier: str, name: str, **config: Any) -> Plugin:
    """A first-party plugin object with its defaults and `config`, not yet started."""
    folder = ROOT / "plugins" / tier / name
    manifest = tomllib.loads((folder / "plugin.toml").read_text())
    module_name, _, kind = manifest["plugin"]["entry"].partition(":")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, folder / f"{module_name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    plugin: Plugin = getattr(sys.modules[module_name], kind)()
    defaults = {
        key: schema["default"]
        for key, schema in manifest.get("config", {}).items()
        if "default" in schema
    }
    plugin.config = defaults | config
    return plugin


def driver_of(plugin: Plugin, port: FakePort | None = None, grants: tuple[str, ...] = ()) -> Driver:
    port = port or FakePort()
    return Driver(plugin, Identity("test/plugin", grants=grants), port, AsyncFakePort(port))


def run_capability(
    plugin: Plugin,
    name: str,
    arguments: dict[str, Any],
    *,
    payload: bytes = b"",
    content_type: str = "",
    port: FakePort | None = None,
) -> Result:
    """Invoke one capability of an unhosted plugin, sync or async."""
    driver = driver_of(plugin, port)
    bound = driver.capability(name)
    call = Call(name, arguments, payload, content_type)
    if bound.is_async:
        return asyncio.run(driver.ainvoke(bound, call))
    return driver.invoke(bound, call)


def send_event(plugin: Plugin, event: Event, port: FakePort) -> None:
    """Deliver one event to an unhosted plugin, sync or async."""
    driver = driver_of(plugin, port)
    bound = driver.handler(event)
    assert bound is not None, f"no handler for {event.topic}/{event.type}"
    if bound.is_async:
        asyncio.run(driver.ahandle_event(bound, event))
    else:
        driver.handle_event(bound, event)


def start(plugin: Plugin, port: FakePort | None = None) -> FakePort:
    """Run `Plugin.start`; returns the port it got."""
    port = port or FakePort()
    method, context, is_async = driver_of(plugin, port).lifecycle("start")
    if is_async:
        asyncio.run(method(context))
    else:
        method(context)
    return port


@contextmanager
def within(limit_ms: float) -> Iterator[None]:
    """The body ends within its limit plus 50 %, or plus 250 ms where that is more."""
    began = time.monotonic()
    yield
    took_ms = (time.monotonic() - began) * 1000
    assert took_ms <= limit_ms + max(limit_ms / 2, 250), f"{took_ms:.0f} ms, limit {limit_ms} ms"
