"""It ends its process when a payload is no UTF-8."""

from __future__ import annotations

import os

from loom_sdk import Context, Event, Plugin, capability, on_event


class DiesOnGarbageEvent(Plugin):
    @on_event("words.*")
    def heard(self, ctx: Context, event: Event) -> None:
        try:
            event.payload.decode()
        except UnicodeDecodeError:
            os._exit(1)

    @capability("dies-on-garbage-event.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
