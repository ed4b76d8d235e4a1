"""Keeps the words that it hears, asks what they mean and tells of them."""

from __future__ import annotations

import hashlib
import json

from loom_sdk import Context, Event, Plugin, capability, on_event
from loom_sdk.errors import LoomError


class Listener(Plugin):
    @on_event("words.*", concurrency=2)
    def heard(self, ctx: Context, event: Event) -> None:
        word = event.payload[:100].decode(errors="replace")
        ctx.kv.put(f"words/{hashlib.sha256(event.payload).hexdigest()[:16]}", word.encode())
        ctx.publish("listener", "heard", word.encode(), metadata={"type": event.type[:100]})

    @capability("listener.define", effects="idempotent")
    def define(self, ctx: Context, text: str) -> dict[str, str]:
        """What a word means, where somebody knows it; it is kept."""
        try:
            meaning = json.dumps(ctx.invoke("dictionary.define", {"word": text}).output)
        except LoomError:
            meaning = "unknown"
        ctx.kv.put("defined", b"yes")
        ctx.publish("listener", "defined", text.encode("utf-8", "replace"))
        return {"text": text.upper(), "meaning": meaning}
