"""A test plugin for every tier: hears events, keeps state, stores, invokes, publishes, fails."""

from __future__ import annotations

import linecache
import time
from typing import Any, Literal

from loom_sdk import Context, Event, Plugin, Result, capability, on_event
from loom_sdk.errors import ActionFailed, InvalidArguments, LoomError


class Notebook(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.problem = ""
        self.at_work = self.most_at_work = 0

    def start(self, ctx: Context) -> None:
        self.starts = int(ctx.kv.get("starts") or b"0") + 1
        ctx.kv.put("starts", str(self.starts).encode())

    def stop(self, ctx: Context) -> None:
        ctx.kv.put("stopped", f"with {len(self.notes)} notes".encode())

    def health(self) -> str:
        return self.problem

    @on_event("notes.*", types=["note", "sum", "slow", "torn"])
    def heard(self, ctx: Context, event: Event) -> None:
        if event.type == "torn":
            raise ValueError("half of it is missing")
        text = event.payload.decode()
        if event.type == "slow":
            time.sleep(float(text))
        if event.type == "sum":
            text = ctx.invoke("calculator.evaluate", {"expression": text}).output["result"]
        self.notes.append(text)
        ctx.kv.put(f"note/{event.topic}", text.encode())
        about = {"topic": event.topic, "number": str(len(self.notes)), **event.metadata}
        ctx.publish("notebook", event.type, text.encode(), metadata=about, tags=("kept",))

    @capability("notebook.read", effects="none")
    def read(self, ctx: Context) -> dict[str, Any]:
        """What is remembered, in the object and in storage."""
        stored = {key: (ctx.kv.get(key) or b"").decode() for key in ctx.kv.keys("")}
        return {"owner": self.config["owner"], "notes": self.notes, "stored": stored}

    @capability("notebook.source", effects="none")
    def source(self, ctx: Context) -> str:
        """The very text that runs here."""
        return "".join(linecache.getlines(__file__))

    @capability("notebook.reverse", effects="none")
    def reverse(self, ctx: Context, value: Any = None) -> Result:
        return Result({"value": value}, ctx.payload[::-1], ctx.content_type)

    @capability("notebook.pages", effects="none")
    def pages(self, ctx: Context, count: int, size: int = 1) -> dict[str, int]:
        for number in range(count):
            ctx.emit({"page": number}, bytes(size), "x/page")
        return {"pages": count}

    @capability("notebook.fill", effects="none")
    def fill(self, ctx: Context, size: int, where: Literal["output", "payload"]) -> Result:
        return Result("x" * size) if where == "output" else Result(None, bytes(size))

    @capability("notebook.work", effects="none")
    def work(self, ctx: Context, seconds: float, how: Literal["sleep", "spin"] = "sleep") -> int:
        """Take a time; returns how many such calls were ever at work at once."""
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        end = time.monotonic() + seconds
        if how == "sleep":
            time.sleep(seconds)
        while time.monotonic() < end:
            pass
        self.at_work -= 1
        return self.most_at_work

    @capability("notebook.fail")
    def fail(self, ctx: Context, how: Literal["typed", "arguments", "bug"]) -> None:
        if how == "typed":
            raise ActionFailed("out of paper", code="NO_PAPER")
        if how == "arguments":
            raise InvalidArguments("not that one")
        raise ValueError("a bug")

    @capability("notebook.overreach")
    def overreach(self, ctx: Context, what: Literal["publish", "invoke", "hoard"]) -> list[str]:
        """Ask for more than was granted; returns what the host said to it."""
        try:
            if what == "publish":
                ctx.publish("secrets", "leak")
            elif what == "invoke":
                ctx.invoke("notebook.read")
            else:
                ctx.kv.put("hoard", bytes(8192))
        except LoomError as error:
            return [type(error).__name__, error.message]
        return []

    @capability("notebook.ail")
    def ail(self, ctx: Context, problem: str) -> None:
        """From now on, say this when asked for health."""
        self.problem = problem
