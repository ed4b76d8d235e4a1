"""It starts a thread at every call that never ends."""

from __future__ import annotations

import threading

from loom_sdk import Context, Plugin, capability


class LeaksThreads(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._never = threading.Event()
        threading.stack_size(65536)

    @capability("leaks-threads.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        threading.Thread(target=self._never.wait, daemon=True).start()
        return {"text": text.upper()}
