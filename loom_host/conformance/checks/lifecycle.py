"""lifecycle.*: starting, being well, stopping, starting again."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import psutil

from loom_host.conformance.cancelled import cancelled
from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.subject import Subject
from loom_host.handle import PluginHandle
from loom_host.runtimes.base import PluginInstance

HEALTH_S = 2.0
INTO_S = 0.2
"""After the start of a slow call: then it is at work."""
FORCE_S = 0.1
"""What a stop takes beside the plugin's own part."""


async def lifecycle_start(subject: Subject) -> None:
    await subject.start()


async def lifecycle_health(subject: Subject) -> None:
    handle = await subject.handle()
    await _well(handle, "once started")
    for example in (one for one in subject.plan.examples if one.slow):
        call = asyncio.create_task(subject.call(example))
        try:
            await asyncio.sleep(INTO_S)
            await _well(handle, f"while {example.spec.name} is at work")
        finally:
            await cancelled(subject, call)


async def _well(handle: PluginHandle, when: str) -> None:
    try:
        async with asyncio.timeout(HEALTH_S):
            sick = await _instance(handle).health()
    except TimeoutError as error:
        raise Fault(f"it does not answer Health within {HEALTH_S:g} s {when}") from error
    if sick:
        raise Fault(f"{when} it says of its health: {sick}")


def _instance(handle: PluginHandle) -> PluginInstance:
    if handle.instance is None:
        raise Fault(handle.explain())
    return handle.instance


async def lifecycle_stop(subject: Subject) -> None:
    handle = await subject.handle()
    instance, grace_s = _instance(handle), subject.plan.grace_s
    child = getattr(instance, "child", None)
    family = _family(instance.usage().pid) if child is not None else []
    began = time.monotonic()
    await subject.stop()
    took = time.monotonic() - began
    if child is not None:
        _check_end(child.exited.result(), took, grace_s)
    elif took > grace_s:
        raise Fault(f"it did not stop within {grace_s:g} s")
    if left := [process for process in family if _lives(process)]:
        raise Fault(f"{len(left)} process(es) of it are left, such as {left[0].pid}: end them")
    if files := _left(subject.place / "runtime"):
        raise Fault(f"it left {files[0].name} behind in the host's runtime folder")


def _check_end(end: str, took: float, grace_s: float) -> None:
    if end == "exit code 0":
        return
    if end.startswith("killed") or end == "closed by the host":
        raise Fault(
            f"it did not end by itself within {0.75 * grace_s:g} s after Shutdown ({end}, after "
            f"{took:.1f} s): let go of what holds it, such as threads, and return"
        )
    raise Fault(f"after Shutdown it ended with {end}: end with exit code 0")


def _family(pid: int) -> list[psutil.Process]:
    try:
        child = psutil.Process(pid)
        return [child, *child.children(recursive=True)]
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


async def lifecycle_restart(subject: Subject) -> None:
    await _first(subject)
    before = set(subject.held)
    await subject.stop()
    try:
        await subject.start()
    except Fault as fault:
        raise Fault(f"it does not start over the data of an earlier start: {fault}") from fault
    for number, example in enumerate(subject.plan.examples):
        if number not in before or example.spec.effects == "once":
            continue  # to do it once more may change what others answer
        again = await subject.ask(number, example)
        if again.output != subject.answers[number]:
            subject.steady.discard(number)
        if wrong := again.differs():
            raise Fault(
                f"over the data of an earlier start {example.spec.name} answers otherwise: {wrong}"
            )


async def _first(subject: Subject) -> None:
    """Without a start where they were asked already: this very check is to see the second."""
    subject.must_have_started()
    with suppress(Skip):
        await subject.first()


LIFECYCLE = (
    Check("lifecycle.start", "it becomes ready in time", lifecycle_start),
    Check("lifecycle.health", "it is well, and says so while it works", lifecycle_health),
)
ENDING = (
    Check("lifecycle.stop", "it ends by itself and leaves nothing", lifecycle_stop),
    Check("lifecycle.restart", "it starts over its own data", lifecycle_restart),
)
