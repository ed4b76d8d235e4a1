"""It never answers when the number is 0."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class HangsOnOddInput(Plugin):
    @capability("hangs-on-odd-input.halve", effects="none")
    def halve(self, ctx: Context, number: int) -> dict[str, int]:
        steps = 0
        while number not in (1, -1):
            number, steps = int(number / 2), steps + 1
        return {"steps": steps}
