"""Mistakes that a type checker tells an author; each line names its error. Never run."""

from __future__ import annotations

from loom_sdk import Context, Field, Plugin, QoS, on_event, tool

Field(min=1)  # expect: call-arg


class Wrong(Plugin):
    @tool("wrong.effects", effects="nothing")  # expect: arg-type
    def effects(self, ctx: Context) -> None:
        ctx.publish("a", "b", metdata={})  # expect: call-arg
        ctx.publish("a", "b", priority="high")  # expect: arg-type
        ctx.invoke("x.y", {1: 2})  # expect: dict-item
        ctx.kv.put("a", "text")  # expect: arg-type
        ctx.invoke("x.y").to(int).upper()  # expect: attr-defined
        self.effects(ctx, 1)  # expect: call-arg

    @on_event("a", qos="realtime")  # expect: arg-type
    def heard(self, ctx: Context) -> QoS:
        return ctx.kv.get("a")  # expect: return-value
