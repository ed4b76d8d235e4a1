"""Its calls leave processes behind them."""

from __future__ import annotations

import subprocess

from loom_sdk import Context, Plugin, capability


class LeavesProcesses(Plugin):
    def __init__(self) -> None:
        super().__init__()
        self._left: list[subprocess.Popen[bytes]] = []

    @capability("leaves-processes.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        if len(self._left) < 8:
            null = subprocess.DEVNULL
            words = ["sleep", "600"]
            self._left.append(subprocess.Popen(words, stdin=null, stdout=null, stderr=null))
        return {"text": text.upper()}

    def stop(self, ctx: Context) -> None:
        for child in self._left:
            child.kill()
            child.wait()
