"""The arguments of one example do not fit its own input schema."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class ExampleDoesNotFit(Plugin):
    @capability("example-does-not-fit.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
