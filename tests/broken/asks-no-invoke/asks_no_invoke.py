"""It invokes a capability that its manifest does not ask for."""

from __future__ import annotations

from contextlib import suppress

from loom_sdk import Context, Plugin, capability
from loom_sdk.errors import PermissionDenied


class AsksNoInvoke(Plugin):
    @capability("asks-no-invoke.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        with suppress(PermissionDenied):
            ctx.invoke("dictionary.define", {"word": text})
        return {"text": text.upper()}
