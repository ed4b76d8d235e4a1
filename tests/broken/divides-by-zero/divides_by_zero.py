"""Its schema allows 0, and it divides by it."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class DividesByZero(Plugin):
    @capability("divides-by-zero.share", effects="none")
    def share(self, ctx: Context, number: int) -> dict[str, int]:
        return {"each": 100 // number}
