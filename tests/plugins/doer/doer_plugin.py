"""A test agent: calls what it is told to, at once or through a tool loop."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import asdict, is_dataclass
from typing import Any

from loom_sdk import AsyncContext, Event, Plugin, capability, on_event
from loom_sdk.errors import LoomError, encode
from loom_sdk.toolloop import Limits, ToolLoop, offered


def plain(value: Any) -> Any:
    """A step of the loop as JSON."""
    if isinstance(value, LoomError):
        return {"code": encode(value).code, "message": value.message}
    return str(value)


class Doer(Plugin):
    @capability("doer.act", effects="none")
    async def act(self, ctx: AsyncContext, name: str, arguments: dict[str, Any]) -> Any:
        return {"output": (await ctx.invoke(name, arguments)).output}

    @capability("doer.turn", effects="none")
    async def turn(
        self, ctx: AsyncContext, question: str, limits: dict[str, int], leave_after: str = ""
    ) -> dict[str, Any]:
        loop = ToolLoop(ctx, await offered(ctx), limits=Limits(**limits))
        steps = []
        async with aclosing(loop.run([{"role": "user", "content": question}])) as run:
            async for step in run:
                assert is_dataclass(step)
                fields = json.loads(json.dumps(asdict(step), default=plain))
                steps.append({"step": type(step).__name__, **fields})
                if type(step).__name__ == leave_after:
                    break
        return {"steps": steps, "messages": loop.messages}

    @on_event("deeds", concurrency=4)
    async def told(self, ctx: AsyncContext, event: Event) -> None:
        arguments = json.loads(event.payload or b"{}")
        try:
            output = (await ctx.invoke(event.type, arguments)).output
        except LoomError as error:
            output = plain(error)
        await ctx.publish("done", event.type, json.dumps(output).encode())

    @on_event("agent.doer", types=("approval.request",))
    async def asked(self, ctx: AsyncContext, event: Event) -> None:
        """Conveys what a person would say: `text` of the note."""
        said = json.loads(event.metadata["arguments"]).get("text", "")
        if said in ("yes", "no"):
            answer = {"id": event.metadata["approval_id"], "allow": said == "yes"}
            await ctx.invoke("loom.approve", answer)
