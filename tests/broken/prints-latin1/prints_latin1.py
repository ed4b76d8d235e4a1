"""It prints Latin-1 at every call."""

from __future__ import annotations

import sys

from loom_sdk import Context, Plugin, capability


class PrintsLatin1(Plugin):
    @capability("prints-latin1.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> dict[str, str]:
        sys.stdout.buffer.write("café\n".encode("latin-1"))
        sys.stdout.buffer.flush()
        return {"text": text.upper()}
