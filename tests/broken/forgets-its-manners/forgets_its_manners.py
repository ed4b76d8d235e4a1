"""Over the files of an earlier start it answers otherwise than its examples say."""

from __future__ import annotations

from loom_sdk import Context, Plugin, capability


class ForgetsItsManners(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._older = False

    def start(self, ctx: Context) -> None:
        if ctx.data_dir is not None:
            mark = ctx.data_dir / "met"
            self._older = mark.exists()
            mark.touch()

    @capability("forgets-its-manners.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text if self._older else text.upper()}
