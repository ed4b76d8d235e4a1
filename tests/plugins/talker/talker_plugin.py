"""A test plugin: it writes bytes to its own output, as any program may."""

from __future__ import annotations

import os
import threading

from loom_sdk import Context, Plugin, capability

STREAMS = {"stdout": 1, "stderr": 2}


class Talker(Plugin):
    @capability("talker.write")
    def write(self, ctx: Context, stream: str = "stdout") -> None:
        """Write the payload, as it is."""
        put(STREAMS[stream], ctx.payload)

    @capability("talker.flood")
    def flood(self, ctx: Context, lines: int, size: int = 10) -> None:
        """Begin to write numbered lines of so many characters beside all calls."""
        text = b"".join(b"%0*d\n" % (size, number) for number in range(lines))
        threading.Thread(target=put, args=(1, text), daemon=True).start()

    @capability("talker.log")
    def log(self, ctx: Context, message: str, level: str = "info") -> None:
        ctx.log(message, level=level, step=1)

    @capability("talker.secret")
    def secret(self, ctx: Context, name: str) -> None:
        """Tell everybody."""
        put(2, f"the {name} is {ctx.secret(name)}\n".encode())

    @capability("talker.end")
    def end(self, ctx: Context) -> None:
        """Last words without a newline."""
        put(1, ctx.payload)
        os._exit(3)

    @capability("talker.idle", effects="none")
    def idle(self, ctx: Context) -> None: ...


def put(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
