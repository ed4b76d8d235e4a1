"""Drives one plugin object in a test, without a host, a process or a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from loom_sdk.call_context import Identity
from loom_sdk.calls import Call, Result
from loom_sdk.driver import Driver
from loom_sdk.errors import CapabilityNotFound, InvalidArguments
from loom_sdk.events import Event
from loom_sdk.plugin import Plugin
from loom_sdk.port import HttpResponse

from .fake_port import Answer, AsyncFakePort, FakePort, HttpCall, response


class FakeHost(FakePort):
    """A host for one plugin.

    `call` and `send` give it a call and an event. What it asked for is in `published`, `items`,
    `calls`, `requests`, `logs`, `spans` and `storage`; what it gets is what `answers`, `secrets`
    and `page` say. What is not scripted is an error that says how to script it.

    Args:
        plugin: the class, or an object of it.
        config: the plugin's settings, as `plugin.toml` would complete them.
        grants: as `kind:pattern`, such as `publish:notes` or `network:https://api.example`; all is
            granted by default.
        folder: data and cache folder, such as pytest's `tmp_path`.
        remaining_ms: time that each call has.
    """

    def __init__(
        self,
        plugin: type[Plugin] | Plugin,
        *,
        config: Mapping[str, Any] | None = None,
        grants: Iterable[str] | None = None,
        folder: Path | None = None,
        remaining_ms: int = 30_000,
    ) -> None:
        super().__init__(granted=None if grants is None else tuple(grants))
        self.plugin = plugin() if isinstance(plugin, type) else plugin
        self.plugin.config = dict(config or {})
        identity = Identity(
            f"test/{type(self.plugin).__name__.lower()}",
            folder and folder / "data",
            folder and folder / "cache",
            self.granted or (),  # type: ignore[arg-type]  # a tuple by now
        )
        self._driver = Driver(self.plugin, identity, self, AsyncFakePort(self))
        self._remaining_ms = remaining_ms
        self._started = False

    @property
    def tools(self) -> list[str]:
        """Names of the capabilities that the plugin offers."""
        return [spec.name for spec in self._driver.capabilities]

    def schema(self, capability: str) -> Mapping[str, Any]:
        """JSON Schema of a capability's arguments."""
        return dict(self._driver.capability(capability).spec.input_schema or {})

    def page(
        self,
        url: str,
        body: bytes | str | Any = b"",
        *,
        method: str = "GET",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        answer: Callable[[HttpCall], HttpResponse] | None = None,
    ) -> None:
        """Script an HTTP answer. `url` may hold `*`; a body that is no text or bytes is JSON."""
        made = response(status, body, headers or {})
        self.pages[method, url] = answer or made

    def answer(self, capability: str, answer: Answer) -> None:
        """Script what the plugin gets when it invokes `capability`."""
        self.answers[capability] = answer

    # -- driving it

    def start(self) -> None:
        """Run the plugin's `start`, once; `call` and `send` do it too."""
        _run(self.astart())

    def call(self, capability: str, /, *, payload: bytes = b"", **arguments: Any) -> Result:
        """Invoke a capability; its answer. Raises what the plugin raises.

        Raises InvalidArguments where an argument that its schema requires is missing or one that
        it does not know is given, as a real host would.
        """
        answer: Result = _run(self.acall(capability, payload=payload, **arguments))
        return answer

    def send(self, topic: str, type: str, payload: bytes = b"", **fields: Any) -> None:
        """Deliver an event, as `ctx.publish` describes one. Raises where no handler fits."""
        _run(self.asend(topic, type, payload, **fields))

    def stop(self) -> None:
        """Run the plugin's `stop`."""
        _run(self._lifecycle("stop"))

    async def astart(self) -> None:
        if not self._started:
            self._started = True
            await self._lifecycle("start")

    async def acall(self, capability: str, /, *, payload: bytes = b"", **arguments: Any) -> Result:
        """As `call`, in a running loop."""
        await self.astart()
        bound = self._driver.capability(capability)
        _check(capability, arguments, bound.spec.input_schema or {})
        arguments = json.loads(json.dumps(arguments))  # what is no JSON does not reach a plugin
        call = Call(capability, arguments, payload, remaining_ms=self._remaining_ms)
        if bound.is_async:
            return await self._driver.ainvoke(bound, call)
        return self._driver.invoke(bound, call)

    async def asend(self, topic: str, type: str, payload: bytes = b"", **fields: Any) -> None:
        """As `send`, in a running loop."""
        await self.astart()
        event = Event(type, payload, topic=topic, **fields)
        bound = self._driver.handler(event)
        if bound is None:
            heard = ", ".join(spec.topic for spec in self._driver.subscriptions) or "nothing"
            raise CapabilityNotFound(f"no handler for {topic}/{type}; it hears: {heard}")
        if bound.is_async:
            await self._driver.ahandle_event(bound, event)
        else:
            self._driver.handle_event(bound, event)

    async def _lifecycle(self, name: str) -> None:
        method, ctx, is_async = self._driver.lifecycle(name)
        if is_async:
            await method(ctx)
        else:
            method(ctx)

    def __enter__(self) -> FakeHost:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _run(work: Any) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise RuntimeError("a loop runs: await acall, asend or astart instead")


def _check(capability: str, arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    known = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in arguments]
    unknown = [name for name in arguments if name not in known] if known else []
    if missing or unknown:
        wrong = [*(f"{name} is missing" for name in missing), *(f"{n} is unknown" for n in unknown)]
        raise InvalidArguments(f"{capability}: {'; '.join(wrong)}; it takes: {', '.join(known)}")
