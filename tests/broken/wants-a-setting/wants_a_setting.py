"""It does not start without a setting that has no default."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class WantsASetting(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._suffix = ""

    def start(self, ctx: Context) -> None:
        self._suffix = str(self.config["suffix"])

    @capability("wants-a-setting.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
