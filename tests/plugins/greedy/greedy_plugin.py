"""A test plugin for every tier: one call asks the host for something again and again."""

from __future__ import annotations

from typing import Literal

from loom_sdk import Context, Plugin, capability
from loom_sdk.errors import QuotaExceeded

What = Literal["emit", "get", "log", "publish", "put", "shout"]


class Greedy(Plugin):
    @capability("greedy.ask", effects="none")
    def ask(self, ctx: Context, what: What, times: int, stubborn: bool = False) -> int:
        """Ask so many times; a stubborn one goes on when it is refused. Returns the refusals."""
        refused = 0
        for number in range(times):
            try:
                self._once(ctx, what, number)
            except QuotaExceeded:
                if not stubborn:
                    raise
                refused += 1
        return refused

    @capability("greedy.idle", effects="none")
    def idle(self, ctx: Context) -> str:
        return "content"

    def _once(self, ctx: Context, what: What, number: int) -> None:
        if what == "emit":
            ctx.emit(number, bytes(1000))
        elif what == "get":
            ctx.kv.get("nothing")
        elif what == "log":
            ctx.log("more")
        elif what == "publish":
            ctx.publish("greedy", "more")
        elif what == "put":
            ctx.kv.put(str(number), bytes(1000))
        else:
            ctx.log("more" * 250)
