"""A test plugin that is swapped: it tells its word, how often it was asked, and what it hears."""

from __future__ import annotations

import time
from typing import Any

from loom_sdk import Context, Event, Plugin, on_event, tool


class Teller(Plugin):
    def start(self, ctx: Context) -> None:
        self.asked = 0
        if self.config["fail"]:
            raise RuntimeError(self.config["fail"])

    def health(self) -> str:
        return str(self.config["ail"])

    @tool("tell.who", effects="none")
    def who(self, ctx: Context, seconds: float = 0.0) -> dict[str, Any]:
        """Tell who answers, after a while."""
        time.sleep(seconds)
        self.asked += 1
        stored = int(ctx.kv.get("asked") or b"0") + 1
        ctx.kv.put("asked", str(stored).encode())
        word = self.config["word"]
        return {"word": word, "asked": self.asked, "stored": stored}

    @on_event("tell.heard")
    def heard(self, ctx: Context, event: Event) -> None:
        time.sleep(float(event.metadata.get("seconds", 0)))
        word = {"word": self.config["word"]}
        ctx.publish("tell.said", event.type, event.payload, metadata=word)
