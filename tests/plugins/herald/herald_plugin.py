"""A test plugin that does what `teller` does, to take its place."""

from __future__ import annotations

import time
from typing import Any

from loom_sdk import Context, Event, Plugin, on_event, tool


class Herald(Plugin):
    def start(self, ctx: Context) -> None:
        if self.config["fail"]:
            raise RuntimeError(self.config["fail"])

    def health(self) -> str:
        return str(self.config["ail"])

    @tool("tell.who", effects="none")
    def who(self, ctx: Context, seconds: float = 0.0) -> dict[str, Any]:
        """Tell who answers, after a while."""
        time.sleep(seconds)
        return {"word": self.config["word"]}

    @on_event("tell.heard")
    def heard(self, ctx: Context, event: Event) -> None:
        time.sleep(float(event.metadata.get("seconds", 0)))
        word = {"word": self.config["word"]}
        ctx.publish("tell.said", event.type, event.payload, metadata=word)
