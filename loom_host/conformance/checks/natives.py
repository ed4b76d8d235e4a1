"""native.*: in the host's own process a plugin leaves the host what is the host's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.listening import Listening
from loom_host.conformance.plan import Example
from loom_host.conformance.process_state import ProcessState
from loom_host.conformance.samples import samples_of
from loom_host.conformance.stalls import Stalls
from loom_host.conformance.subject import Subject
from loom_sdk.errors import LoomError

STALL_S = 0.1
TRIES = 2
"""What is to be a stall must be one again: a busy machine can stop anybody once."""
EVENT_S = 10.0


async def native_globals(subject: Subject) -> None:
    await subject.host()
    for example in subject.plan.examples:
        if not example.slow:
            with suppress(LoomError):
                await subject.call(example)
    changes = ProcessState.now().changes(subject.before, subject.plan.folder)
    if changes:
        subject.before.restore()
        raise Fault(
            f"it changed what belongs to the host's process: {'; '.join(changes)}: keep it in the "
            "plugin, or run in the grpc tier"
        )


async def native_loop(subject: Subject) -> None:
    await _smooth(subject, "its start", partial(_start, subject))
    for number, example in enumerate(subject.plan.examples, start=1):
        if not example.slow:
            what = f"{example.spec.name}, example {number},"
            await _smooth(subject, what, partial(_call, subject, example))
    if samples_of(subject.plan):
        await _smooth(subject, "its event handler", partial(_hear, subject))


async def _smooth(subject: Subject, what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Raises Fault where it stops the loop every time."""
    for attempt in range(1, TRIES + 1):
        async with Stalls(subject.plan.folder) as stalls:
            await work()
        if stalls.longest_s <= STALL_S:
            return
        if attempt == TRIES:
            raise Fault(
                f"{what} kept the host's event loop for {stalls.longest_s * 1000:.0f} ms at "
                f"{stalls.where}: await, or use a `def` method, which has a thread of its own"
            )


async def _start(subject: Subject) -> None:
    await subject.stop()
    try:
        await subject.start()
    except Fault as fault:
        raise Skip(f"it does not start again: {fault}") from fault


async def _call(subject: Subject, example: Example) -> None:
    with suppress(LoomError):
        await subject.call(example)


async def _hear(subject: Subject) -> None:
    async with Listening(await subject.host(), await subject.handle()) as heard:
        for sample in samples_of(subject.plan):
            await heard.tell(sample)
            await heard.settled(EVENT_S)


NATIVES = (
    Check("native.globals", "leaves the host's process as it is", native_globals, ("native",)),
    Check("native.loop", "does not block the host's event loop", native_loop, ("native",)),
)
