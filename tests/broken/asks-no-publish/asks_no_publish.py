"""It publishes to a topic that its manifest does not ask for."""

from __future__ import annotations

from contextlib import suppress

from loom_sdk import Context, Plugin, capability
from loom_sdk.errors import PermissionDenied


class AsksNoPublish(Plugin):
    @capability("asks-no-publish.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        with suppress(PermissionDenied):
            ctx.publish("words", "upper", text.encode())
        return {"text": text.upper()}
