"""A test plugin that asks the host for whatever its arguments say. Made by a pluggy hook."""

from __future__ import annotations

from typing import Any

from loom_sdk import AsyncContext, Context, Event, Plugin, capability, on_event
from loom_sdk.hookspecs import hookimpl


class Prober(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    @capability("prober.ask", effects="none")
    def ask(self, ctx: Context, what: str, of: str = "", text: str = "") -> Any:
        """Use one service of the host, from a thread."""
        if what == "publish":
            forged = Event("probe", topic=of, source="somebody-else", priority=500)
            return ctx._port.publish(forged, ctx.call_id)
        if what == "invoke":
            return ctx.invoke(of, {"name": "x"}).output
        if what == "stream":
            return [item.output for item in ctx.stream(of, {"to": 3})]
        if what == "first":
            return next(iter(ctx.stream(of, {"to": 100, "pause_s": 0.01}))).output
        if what == "emit":
            return ctx._port.emit("a-call-of-somebody-else", _item())
        if what == "http":
            return ctx.http.get_json(of)
        if what == "post":
            response = ctx.http.request("post", of, headers={"X-Probe": text}, body=b"body")
            return {"status": response.status, "body": response.body.decode()}
        return self._keep(ctx, what, of, text)

    def _keep(self, ctx: Context, what: str, key: str, text: str) -> Any:
        if what == "secret":
            return ctx.secret(key)
        if what == "put":
            ctx.kv.put(key, text.encode())
        if what == "delete":
            ctx.kv.delete(key)
        found = ctx.kv.get(key)
        return {"value": found and found.decode(), "keys": ctx.kv.keys()}

    @capability("prober.aask", effects="none")
    async def aask(self, ctx: AsyncContext, what: str, of: str = "", text: str = "") -> Any:
        """The same on the loop."""
        if what == "publish":
            return await ctx.publish(of, "probe")
        if what == "invoke":
            return (await ctx.invoke(of, {"name": "x"}, timeout_ms=1000)).output
        if what == "stream":
            return [item.output async for item in ctx.stream(of, {"to": 3})]
        if what == "http":
            return (await ctx.http_request("GET", of)).status
        if what == "secret":
            return await ctx.secret(of)
        if what == "put":
            await ctx.kv_put(of, text.encode())
        if what == "delete":
            await ctx.kv_delete(of)
        found = await ctx.kv_get(of)
        return {"value": found and found.decode(), "keys": await ctx.kv_keys()}

    @on_event("audio.>")
    def hear(self, ctx: Context, event: Event) -> None:
        ctx.publish("probe.heard", event.topic)


def _item() -> Any:
    from loom_sdk import Item

    return Item("smuggled")


@hookimpl
def loom_create_plugin(plugin_id: str, config: dict[str, Any]) -> Plugin | None:
    return Prober() if plugin_id == "test/prober" else None
