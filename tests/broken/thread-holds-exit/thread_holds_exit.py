"""A thread that never ends keeps it from ending after Shutdown."""

from __future__ import annotations

import threading

from loom_sdk import Context, Plugin, capability


class ThreadHoldsExit(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._never = threading.Event()

    def start(self, ctx: Context) -> None:
        threading.Thread(target=self._never.wait, daemon=False).start()

    @capability("thread-holds-exit.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        return {"text": text.upper()}
