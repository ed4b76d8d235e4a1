"""It waits for ever when a payload is no UTF-8."""

from __future__ import annotations

import time

from loom_sdk import Context, Event, Plugin, capability, on_event


class HangsOnGarbageEvent(Plugin):
    @on_event("words.*")
    def heard(self, ctx: Context, event: Event) -> None:
        while "\ufffd" in event.payload.decode(errors="replace"):
            time.sleep(0.01)

    @capability("hangs-on-garbage-event.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
