"""`loom plugin run` as an author has it: commands in, JSON lines out; and a debugger."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

LOOM = (sys.executable, "-m", "loom_host.cli.entry")
PATIENCE_S = 240.0
"""For a start or a build on a busy machine."""
SOURCE = '''\
from loom_sdk import Context, Event, Plugin, capability, on_event


class Bell(Plugin):
    @capability("bell.ring", effects="none")
    def ring(self, ctx: Context, times: int = 1) -> str:
        """Rings."""
        ctx.log("rung", times=str(times))
        sound = "ding"
        return " ".join([sound] * times)

    @capability("bell.stray")
    def stray(self, ctx: Context) -> str:
        """Publishes where it may not."""
        ctx.publish("elsewhere", "stray")
        return "never"

    @on_event("pull")
    def pulled(self, ctx: Context, event: Event) -> None:
        ctx.publish("rings", "rung", event.payload, metadata={"from": event.metadata["who"]})
'''
MANIFEST = """\
[plugin]
id = "test/bell"
version = "1.0.0"
api = "1"
type = "tool"
tier = "{tier}"
tiers = ["native", "wasm", "grpc"]
entry = "bell_of_test:Bell"

[[capability]]
name = "bell.ring"
effects = "none"

[[capability]]
name = "bell.stray"

[events]
publishes = ["rings"]

[[events.subscribes]]
topic = "pull"

[permissions]
network = ["https://example.org"]
"""


def bell(folder: Path, tier: str) -> Path:
    """The plugin of these tests; its source file."""
    folder.mkdir()
    (folder / "plugin.toml").write_text(MANIFEST.replace("{tier}", tier))
    source = folder / "bell_of_test.py"
    source.write_text(SOURCE)
    return source


class Author:
    """Types commands, reads what comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.seen: list[dict[str, Any]] = []
        """What came and nobody has asked for yet."""
        self._rows: Queue[dict[str, Any]] = Queue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._rows.put(json.loads(line))

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next row of this kind with these fields; others wait for who asks for them."""
        end = time.monotonic() + PATIENCE_S
        while True:
            for row in self.seen:
                if row["kind"] == kind and fields.items() <= row.items():
                    self.seen.remove(row)
                    return row
            try:
                self.seen.append(self._rows.get(timeout=max(0.0, end - time.monotonic())))
            except Empty:
                raise AssertionError(f"no {kind} {fields} in {self.seen}") from None

    def ring(self, **arguments: Any) -> Any:
        self.type(f"call bell.ring {json.dumps(arguments)}")
        return self.until("answer")["output"]

    def rest(self) -> list[dict[str, Any]]:
        """All that came and was not asked for, of a process that has ended."""
        self._reader.join(PATIENCE_S)
        while not self._rows.empty():
            self.seen.append(self._rows.get())
        return self.seen

    def finish(self) -> int:
        """Ctrl-D; the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)


@contextmanager
def author(folder: Path, *options: str) -> Iterator[Author]:
    """At work on the plugin of this folder; nothing is left behind."""
    command = [*LOOM, "plugin", "run", str(folder), "--json", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        me = Author(process)
        try:
            yield me
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)
            me.rest()
            assert not below(process.pid)


def below(process: int) -> list[int]:
    """Ids of all processes that this one started, and those started."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = [], [process]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(processes: list[int], within_s: float = 10.0) -> list[int]:
    """Those that still live after so long."""
    end = time.monotonic() + within_s
    while (left := [p for p in processes if alive(p)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


class Debugger:
    """Speaks the Debug Adapter Protocol, as an editor does."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._file = self._socket.makefile("rb")
        self._number = 0

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, command: str, arguments: Mapping[str, Any]) -> int:
        self._number += 1
        message = {"seq": self._number, "type": "request", "command": command}
        body = json.dumps(message | {"arguments": dict(arguments)}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return self._number

    def until(self, kind: str, name: str) -> dict[str, Any]:
        """The body of the next event or response of this name."""
        while True:
            message = self._message()
            if (message["type"], message.get("event") or message.get("command")) == (kind, name):
                assert message.get("success", True), message
                found: dict[str, Any] = message.get("body", {})
                return found

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.send(command, arguments)
        return self.until("response", command)

    def attach(self, file: Path, line: int) -> None:
        """With a breakpoint there."""
        self.ask("initialize", adapterID="test", linesStartAt1=True, pathFormat="path")
        self.send("attach", {"justMyCode": True})
        self.until("event", "initialized")
        set_ = self.ask("setBreakpoints", source={"path": str(file)}, breakpoints=[{"line": line}])
        assert set_["breakpoints"][0]["verified"], set_
        self.ask("configurationDone")

    def _message(self) -> dict[str, Any]:
        length = 0
        while (line := self._file.readline().strip()) or not length:
            assert line or length, "the debugger's connection ended"
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        message: dict[str, Any] = json.loads(self._file.read(length))
        return message
