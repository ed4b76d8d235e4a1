"""What an author writes, for type checkers: nothing here may be Any. Never run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, assert_type

from loom_sdk import (
    AsyncContext,
    Context,
    Event,
    Field,
    Item,
    Plugin,
    QoS,
    Result,
    capability,
    on_event,
    tool,
)
from loom_sdk.errors import ActionFailed


@dataclass
class Forecast:
    city: str
    degrees: float


class Weather(Plugin):
    def start(self, ctx: Context) -> None:
        ctx.log("begun", level="debug", plugin=ctx.plugin_id)

    async def stop(self, ctx: AsyncContext) -> None:
        await ctx.kv_put("stopped", b"1")

    @tool("weather.get", effects="none")
    def get(
        self,
        ctx: Context,
        city: Annotated[str, Field(min_length=1)],
        units: Literal["c", "f"] = "c",
    ) -> Forecast:
        """Current weather."""
        answer = ctx.invoke("geo.find", {"place": city, "exact": True}, timeout_ms=500)
        assert_type(answer, Result)
        assert_type(answer.payload, bytes)
        places = answer.to(list[Forecast])
        assert_type(places, list[Forecast])
        if not places:
            raise ActionFailed(f"no {city}", code="NO_PLACE")
        assert_type(ctx.kv.get("last"), bytes | None)
        assert_type(ctx.remaining_ms(), int)
        delivered = ctx.publish("weather", "asked", b"", metadata={"city": city}, priority=70)
        assert_type(delivered, int)
        ctx.emit(places[0])
        with ctx.span("convert", units=units):
            return places[0]

    @capability("weather.watch", effects="idempotent")
    async def watch(self, ctx: AsyncContext, cities: list[str]) -> Result:
        answer = await ctx.invoke("weather.get", {"city": cities[0]})
        await ctx.publish("weather", "watched", tags=("now",))
        return Result(answer.to(Forecast), b"raw", "application/octet-stream")

    @on_event("room.*", qos=QoS.REALTIME, types=["asked"])
    def heard(self, ctx: Context, event: Event) -> None:
        assert_type(event.metadata.get("city"), str | None)
        assert_type(event.payload, bytes)

    def items(self, ctx: Context) -> Iterator[bytes]:
        stream = ctx.stream("tts.synthesize", {"text": "hi"})
        assert_type(stream, Iterator[Item])
        for item in stream:
            yield item.payload


def kept(weather: Weather, ctx: Context) -> Forecast:
    """The decorators leave the methods as they are."""
    return weather.get(ctx, "Ulm", units="f")
