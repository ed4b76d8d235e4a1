"""What the kit puts in a plugin's place: it tries what it may not, and takes more than its share.

One source for all three tiers, so nothing but the standard library and the SDK.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from loom_sdk import Context, Plugin, capability

STEP_S = 0.001
LONG_S = 2.0
"""After this even what heeds nothing ends, so that no thread of a host works on for ever."""
HELD_S = 0.5
PATIENCE_S = 1.0
MIB = 1024**2


class Probe(Plugin):
    @capability("conformance.attempt", effects="none")
    def attempt(self, ctx: Context, what: str, of: str) -> dict[str, str]:
        """Try what was not asked for: `got` what, or `error` with the name of its type."""
        try:
            return {"got": str(getattr(self, f"_{what}")(ctx, of))[:500]}
        except Exception as error:
            return {"error": type(error).__name__, "message": str(error)[:500]}

    @capability("conformance.press", effects="none")
    def press(self, ctx: Context, what: str, times: int) -> str:
        """Do something so many times, whatever comes of it, until it is refused.

        Returns what the kernel said where it was that which refused.
        """
        try:
            getattr(self, f"_{what}_all")(ctx, times)
        except OSError as error:
            return f"{type(error).__name__} {error.errno}"
        return "nothing refused it"

    # -- what a grant is needed for

    def _publish(self, ctx: Context, topic: str) -> Any:
        return ctx.publish(topic, "conformance")

    def _invoke(self, ctx: Context, name: str) -> Any:
        return ctx.invoke(name).output

    def _secret(self, ctx: Context, name: str) -> Any:
        return ctx.secret(name)

    def _keep(self, ctx: Context, key: str) -> Any:
        ctx.kv.put(key, b"kept")
        return "kept"

    def _kept(self, ctx: Context, key: str) -> Any:
        return ctx.kv.get(key)

    def _keys(self, ctx: Context, prefix: str) -> Any:
        return ctx.kv.keys(prefix)

    def _http(self, ctx: Context, url: str) -> Any:
        return ctx.http.request("GET", url).status

    # -- what the kernel, or the guest's engine, keeps it from

    def _environment(self, ctx: Context, name: str) -> Any:
        return os.environ[name]

    def _read(self, ctx: Context, path: str) -> Any:
        return Path(path).read_text()

    def _write(self, ctx: Context, path: str) -> Any:
        return Path(path).write_text("written by the probe")

    def _device(self, ctx: Context, path: str) -> Any:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return "opened"

    def _tcp(self, ctx: Context, port: str) -> Any:
        with socket.create_connection(("127.0.0.1", int(port)), PATIENCE_S):
            return "connected"

    def _udp(self, ctx: Context, port: str) -> Any:
        """To send tells nothing: on a loopback interface of its own nobody hears it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as open_one:
            open_one.settimeout(PATIENCE_S)
            open_one.connect(("127.0.0.1", int(port)))
            open_one.send(b"probe")
            return open_one.recv(100).decode()

    def _unix(self, ctx: Context, path: str) -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as open_one:
            open_one.settimeout(PATIENCE_S)
            open_one.connect(path)
            return "connected"

    # -- more than its share

    def _get_all(self, ctx: Context, times: int) -> None:
        for _ in range(times):
            ctx.kv.get("nothing")

    def _publish_all(self, ctx: Context, times: int) -> None:
        for _ in range(times):
            ctx.publish("conformance.probe", "more")

    def _put_all(self, ctx: Context, times: int) -> None:
        for number in range(times):
            ctx.kv.put(str(number), bytes(1000))

    def _emit_all(self, ctx: Context, times: int) -> None:
        for _ in range(times):
            ctx.emit(0, bytes(1000))

    def _log_all(self, ctx: Context, times: int) -> None:
        for _ in range(times):
            ctx.log("more")

    def _shout_all(self, ctx: Context, times: int) -> None:
        for _ in range(times):
            ctx.log("more" * 250)

    def _hold_all(self, ctx: Context, times: int) -> None:
        until = time.monotonic() + HELD_S
        while time.monotonic() < until and not ctx.cancelled():
            time.sleep(STEP_S)

    def _spin_all(self, ctx: Context, times: int) -> None:
        """Heeds no cancellation. In small steps: a guest that sleeps cannot be interrupted."""
        until = time.monotonic() + LONG_S
        while time.monotonic() < until:
            time.sleep(STEP_S)

    def _burn_all(self, ctx: Context, times: int) -> None:
        until = time.monotonic() + LONG_S
        while time.monotonic() < until:
            pass

    def _hoard_all(self, ctx: Context, times: int) -> None:
        hoard = []
        for _ in range(times):
            hoard.append(bytearray(b"\1" * MIB))
        self._spin_all(ctx, 1)

    def _open_all(self, ctx: Context, times: int) -> None:
        opened: list[int] = []
        try:
            while len(opened) < times:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _thread_all(self, ctx: Context, times: int) -> None:
        enough, started = threading.Event(), 0
        try:
            while started < times:
                threading.Thread(target=enough.wait, daemon=True).start()
                started += 1
        except RuntimeError as error:
            raise BlockingIOError(11, str(error)) from error  # EAGAIN, which Python hides
        finally:
            enough.set()

    def _lengthen_all(self, ctx: Context, times: int) -> None:
        """One file, so many MiB."""
        place = self._place(ctx) / "long"
        try:
            with place.open("wb", buffering=0) as file:
                for _ in range(times):
                    file.write(bytes(MIB))
        finally:
            place.unlink(missing_ok=True)

    def _fill_all(self, ctx: Context, times: int) -> None:
        """So many files of one MiB, until it is ended for them."""
        for number in range(times):
            (self._place(ctx) / f"{number}").write_bytes(bytes(MIB))
        self._spin_all(ctx, 1)

    def _place(self, ctx: Context) -> Path:
        assert ctx.data_dir is not None
        return ctx.data_dir
