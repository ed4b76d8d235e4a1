"""It uses storage that its manifest does not ask for."""

from __future__ import annotations

from contextlib import suppress

from loom_sdk import Context, Plugin, capability
from loom_sdk.errors import PermissionDenied


class AsksNoStorage(Plugin):
    @capability("asks-no-storage.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        with suppress(PermissionDenied):
            ctx.kv.put("last", text.encode())
        return {"text": text.upper()}
