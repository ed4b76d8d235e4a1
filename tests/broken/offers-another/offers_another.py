"""It offers at Init a capability that plugin.toml does not list."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class OffersAnother(Plugin):
    @capability("offers-another.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}

    @capability("offers-another.lower", effects="none")
    def lower(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.lower()}
