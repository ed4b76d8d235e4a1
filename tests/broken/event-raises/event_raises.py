"""Its handler raises at every event."""

from __future__ import annotations

from loom_sdk import Context, Event, Plugin, capability, on_event


class EventRaises(Plugin):
    @on_event("words.*")
    def heard(self, ctx: Context, event: Event) -> None:
        raise RuntimeError(f"{event.type}: not written yet")

    @capability("event-raises.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
