"""A test agent for every tier: keeps what was said, in order; forgets; acts; fails."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from loom_sdk import Agent, Context, Event, capability, on_event
from loom_sdk.errors import ActionFailed


def link(chain: str, text: str) -> str:
    """Tells in which order everything was said."""
    return hashlib.sha256((chain + text).encode()).hexdigest()


class Chatter(Agent):
    def __init__(self) -> None:
        super().__init__()
        self.at_work = 0
        self.most_at_work = 0

    @on_event("chat.*")
    def heard(self, ctx: Context, event: Event) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            self._hear(ctx, event)
        finally:
            self.at_work -= 1

    def _hear(self, ctx: Context, event: Event) -> None:
        text, state = event.payload.decode(), ctx.state
        state["count"] = state.get("count", 0) + 1
        state.setdefault("said", []).append(text)
        state["chain"] = link(state.get("chain", ""), text)
        ctx.ephemeral["count"] = ctx.ephemeral.get("count", 0) + 1
        ctx.kv.put(f"last/{ctx.agent}", text.encode())
        if event.type in ("slow", "lag"):
            time.sleep(float(text) if event.type == "slow" else 0.003)
        if event.type == "torn":
            raise ValueError("half of it is missing")
        if event.type == "act":
            for priority in (10, 50, 90):
                ctx.act("chatter.shout", {"text": f"{text}{priority}"}, priority=priority)
        ctx.publish("chatter", event.type, text.encode(), metadata=self._about(ctx, event))

    def _about(self, ctx: Context, event: Event) -> dict[str, str]:
        return {
            "agent": ctx.agent,
            "greeting": ctx.parameters["greeting"],
            "count": str(ctx.state["count"]),
            "chain": ctx.state["chain"],
            "version": str(ctx.state.version),
            "ephemeral": str(ctx.ephemeral["count"]),
            "last": (ctx.kv.get(f"last/{ctx.agent}") or b"").decode(),
            "attempt": str(event.delivery_attempt),
            "at_work": str(self.most_at_work),
        }

    @on_event("alarm")
    def alarmed(self, ctx: Context, event: Event) -> None:
        ctx.state["alarms"] = ctx.state.get("alarms", 0) + 1
        ctx.publish("chatter", "alarm", metadata={"agent": ctx.agent})

    @capability("chatter.stored", effects="none")
    def stored(self, ctx: Context) -> dict[str, Any]:
        return {key: (ctx.kv.get(key) or b"").decode() for key in ctx.kv.keys("")}

    @capability("chatter.shout")
    def shout(self, ctx: Context, text: str) -> str:
        if "bad" in text:
            raise ActionFailed("lost its voice", code="HOARSE")
        return text.upper()
