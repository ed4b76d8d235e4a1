"""It takes 200 ms for an event of a realtime topic."""

from __future__ import annotations

import time

from loom_sdk import Context, Event, Plugin, QoS, capability, on_event


class SlowListener(Plugin):
    @on_event("words.*", qos=QoS.REALTIME)
    def heard(self, ctx: Context, event: Event) -> None:
        time.sleep(0.2)

    @capability("slow-listener.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
