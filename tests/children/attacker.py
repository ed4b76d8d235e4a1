"""A plugin that does whatever it can to leave its sandbox or to harm its host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from loom_sdk import Context, Plugin, capability

ATTACKS = Path(__file__).with_name("attacks.py")
_DAEMON = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
while True:
    time.sleep(0.05)
    open(sys.argv[1], "w").write(str(time.time()))
"""
_HUNGRY = "hoard = [bytearray(os.urandom(1 << 20)) for _ in range(2048)]"


class Attacker(Plugin):
    @capability("attack.try")
    def attempt(self, ctx: Context, names: list[str], known: dict[str, Any]) -> dict[str, str]:
        """Name to what came of it."""
        words = [sys.executable, "-I", "-S", str(ATTACKS), json.dumps(known), *names]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        return dict(json.loads(done.stdout)) if done.stdout else {"": done.stderr}

    @capability("attack.environment")
    def environment(self, ctx: Context) -> dict[str, str]:
        return dict(os.environ)

    @capability("attack.daemon")
    def daemon(self, ctx: Context) -> str:
        """A grandchild in a session of its own that ignores what can be ignored."""
        beat = f"{ctx.data_dir}/beat"
        subprocess.run([sys.executable, "-I", "-S", "-c", _DAEMON, beat], check=True)
        while not os.path.exists(beat):
            time.sleep(0.01)
        return beat

    @capability("attack.hungry_child")
    def hungry_child(self, ctx: Context) -> int:
        words = [sys.executable, "-I", "-S", "-c", f"import os\n{_HUNGRY}"]
        return subprocess.run(words, check=False).returncode

    @capability("attack.burn")
    def burn(self, ctx: Context, seconds: float) -> float:
        """Keeps one processor busy for so long; the time of it that it got."""
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() - began < seconds:
            pass
        return time.process_time() - used

    @capability("attack.burning_child")
    def burning_child(self, ctx: Context) -> None:
        subprocess.run([sys.executable, "-I", "-S", "-c", "while True: pass"], check=False)

    @capability("attack.fill_data")
    def fill_data(self, ctx: Context) -> None:
        number = 0
        while True:
            Path(f"{ctx.data_dir}/{number}").write_bytes(bytes(1 << 20))
            number += 1

    @capability("attack.many_files")
    def many_files(self, ctx: Context) -> None:
        number = 0
        while True:
            Path(f"{ctx.cache_dir}/{number}").touch()
            number += 1

    @capability("attack.kill_everything")
    def kill_everything(self, ctx: Context) -> None:
        subprocess.Popen(["sleep", "60"])
        os.kill(-1, signal.SIGKILL)  # all but the caller
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)

    @capability("attack.flood_stdout")
    def flood_stdout(self, ctx: Context, megabytes: int) -> None:
        for _ in range(megabytes * 16):
            print("x" * 65_535)

    @capability("attack.ignore_term")
    def ignore_term(self, ctx: Context) -> None:
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
                signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        while True:
            time.sleep(1)

    @capability("attack.die")
    def die(self, ctx: Context, number: int) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    @capability("attack.leak_link")
    def leak_link(self, ctx: Context, target: str) -> str:
        """Leaves a link in its folder, for a host that follows it when it gives the folder away."""
        os.symlink(target, f"{ctx.data_dir}/innocent")
        return f"{ctx.data_dir}/innocent"
