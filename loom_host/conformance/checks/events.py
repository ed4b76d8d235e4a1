"""events.*: what the plugin hears, well made, ill made and in a hurry."""

from __future__ import annotations

import asyncio
import time
from itertools import cycle, islice

from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.listening import Listening
from loom_host.conformance.samples import Sample, garbage, samples_of
from loom_host.conformance.subject import Subject
from loom_sdk import QoS

SPEED_EVENTS = 500
REALTIME_S = 0.02
"""Between two events of a realtime topic: 50 a second, as frames of audio come."""
SPEED_S = 60.0
"""For all of them to be acknowledged."""
GARBAGE_MOST, GARBAGE_S = 300, 5.0
ADVICE = "where the made-up events cannot be right, put samples into conformance.toml [[events]]"


async def events_handled(subject: Subject) -> None:
    samples = _samples(subject)
    async with Listening(await subject.host(), await subject.handle()) as heard:
        for sample in samples:
            await heard.tell(sample)
            settled = await heard.settled()
            what = f"{sample.topic} {sample.event.type!r}"
            if not settled:
                await subject.stop()
                raise Fault(f"{what} is not handled within the handler's deadline_ms")
            if heard.ended:
                why = await heard.why_ended()
                await subject.stop()
                raise Fault(f"{what} ends it: {why}")
            if heard.reasons:
                raise Fault(f"{what}: {heard.reasons[0]} ({ADVICE})")


async def events_garbage(subject: Subject) -> None:
    _samples(subject)
    plan, until = subject.plan, time.monotonic() + GARBAGE_S
    async with Listening(await subject.host(), await subject.handle()) as heard:
        for sample in garbage(plan, min(plan.count, GARBAGE_MOST)):
            if time.monotonic() > until:
                break
            began = time.monotonic()
            await heard.tell(sample)
            settled = await heard.settled()
            late = time.monotonic() - began >= plan.manifest.quotas.deadline_ms / 1000
            if not settled or late or heard.ended:
                await subject.stop()
                raise Fault(_broke(sample, late))


def _broke(sample: Sample, late: bool) -> str:
    event, did = sample.event, "hangs" if late else "ends"
    metadata = ", ".join(f"{key!a}: {value[:20]!a}" for key, value in event.metadata.items())
    return (
        f"it {did} at an event on {sample.topic} of type {event.type[:40]!a} with "
        f"{len(event.payload)} bytes, {event.payload[:20]!r}, and metadata {{{metadata}}}: what "
        "cannot be read is to be refused with an error, or passed over"
    )


async def events_speed(subject: Subject) -> None:
    samples = _samples(subject)
    async with Listening(await subject.host(), await subject.handle()) as heard:
        await _tell_all(samples, subject.plan.count, heard)
        settled = bool(heard.dropped) or await heard.settled(SPEED_S)
        wrong = _slow(heard, settled)
    if wrong:
        await subject.stop()  # with what still waits for it
        raise Fault(wrong)


async def _tell_all(samples: list[Sample], count: int, heard: Listening) -> None:
    patient = [one for one in samples if one.spec.qos is not QoS.REALTIME]
    realtime = [one for one in samples if one.spec.qos is QoS.REALTIME]
    for sample in islice(cycle(patient), min(SPEED_EVENTS, 5 * count)):
        await heard.tell(sample)
    for sample in islice(cycle(realtime), min(SPEED_EVENTS, count)):
        if heard.dropped:
            return
        await heard.tell(sample)
        await asyncio.sleep(REALTIME_S)


def _slow(heard: Listening, settled: bool) -> str:
    """What is wrong; empty where nothing is."""
    if heard.dropped:
        return "events were lost: its handler does not keep up with them"
    if not settled:
        return f"its events were not all handled {SPEED_S:g} s after the last one"
    if heard.ended:
        return "it ended while it was told many events"
    if heard.reasons:
        return f"{len(heard.reasons)} events were given up: {heard.reasons[0]}"
    return ""


def _samples(subject: Subject) -> list[Sample]:
    """Raises Skip where it hears nothing."""
    if found := samples_of(subject.plan):
        return found
    raise Skip("it subscribes to nothing")


EVENTS = (
    Check("events.handled", "sample events are handled in time, without error", events_handled),
    Check("events.garbage", "no event ends it or hangs it, whatever is in it", events_garbage),
    Check("events.speed", "many events in a row are all acknowledged", events_speed),
)
