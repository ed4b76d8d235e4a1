"""The faults of a child, in the host's own process: each is told, and by its check alone."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

from loom_host.conformance.checks.events import EVENTS
from loom_host.conformance.checks.leaks import LEAKS
from loom_host.conformance.checks.logs import LOGS
from loom_host.conformance.checks.natives import NATIVES
from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.plan import plan_of
from loom_host.conformance.subject import Subject

SOURCE = """
import os
import subprocess
import sys
import threading
import time

from loom_sdk import AsyncContext, Context, Event, Plugin, capability, on_event


class {kind}(Plugin):
    kept = []

    @on_event("words")
    async def heard(self, ctx: AsyncContext, event: Event) -> None:
        text = event.payload.decode("utf-8", "replace")
{heard}

    @capability("{name}.upper", effects="none")
    def upper(self, ctx: Context, text: str) -> str:
{call}
        return text.upper()

    def stop(self, ctx: Context) -> None:
        for one in self.kept:
            if isinstance(one, subprocess.Popen):
                one.kill()
                one.wait()
            elif isinstance(one, threading.Event):
                one.set()
            else:
                one.close()
        self.kept.clear()
"""
MANIFEST = """
[plugin]
id = "test/{name}"
version = "1.0.0"
api = "1"
type = "tool"
tier = "native"
entry = "{module}:{kind}"

[[capability]]
name = "{name}.upper"
effects = "none"
examples = [{{ arguments = {{ text = "cat" }}, output = "CAT" }}]

[[events.subscribes]]
topic = "words"

[quotas]
log_bytes = "8KiB"
deadline_ms = 3000
"""
THREAD = """
never = threading.Event()
self.kept.append(never)
threading.Thread(target=never.wait, daemon=True).start()
"""
FAULTS = {
    "": "pass",
    "logs.readable": 'sys.stdout.buffer.write(b"caf\\xe9")',
    "logs.flood": 'for _ in range(10): ctx.log("x" * 1000)',
    "leak.files": 'self.kept.append(open(os.devnull))',
    "leak.threads": THREAD,
    "leak.processes": 'self.kept.append(subprocess.Popen(["sleep", "60"]))',
    "native.globals": "os.environ['NOTED'] = text",
}  # fmt: skip
ALL = (*EVENTS, *LEAKS, *LOGS, *NATIVES)


def plugin_in(place: Path, name: str, call: str = "pass", heard: str = "pass") -> Path:
    module, kind = name.replace("-", "_"), name.title().replace("-", "")
    folder = place / name
    folder.mkdir()
    inside = {"call": indent(call.strip(), " " * 8), "heard": indent(heard, " " * 8)}
    (folder / f"{module}.py").write_text(SOURCE.format(kind=kind, name=name, **inside))
    (folder / "plugin.toml").write_text(MANIFEST.format(kind=kind, name=name, module=module))
    return folder


async def flagged(folder: Path, checks: tuple[Check, ...] = ALL) -> set[str]:
    found = set()
    async with Subject(plan_of(folder, count=60), "native") as subject:
        for check in checks:
            try:
                if "native" in check.tiers:
                    await check.run(subject)
            except Fault:
                found.add(check.id)
            except Skip:
                found.add(f"{check.id} skipped")
    return found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault or "none")
async def test_a_call_that_does_what_it_should_not(fault: str, tmp_path: Path) -> None:
    folder = plugin_in(tmp_path, f"call-{fault.replace('.', '-') or 'good'}", FAULTS[fault])
    found = await flagged(folder)
    if fault == "logs.flood":  # its calls fail for it when they are many
        found = {one for one in found if not one.endswith("skipped")}
    assert found == ({fault} if fault else set())


async def test_a_handler_that_raises(tmp_path: Path) -> None:
    folder = plugin_in(tmp_path, "raises", heard="int(text)")
    assert await flagged(folder) == {"events.handled", "events.speed"}


async def test_a_handler_that_holds_the_loop(tmp_path: Path) -> None:
    folder = plugin_in(tmp_path, "holds", heard="time.sleep(0.3)")
    assert await flagged(folder, NATIVES) == {"native.loop"}
