"""Frames, chunks, turns and credit of a Session, without a stream: pure, so by property."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.frames import (
    CREDIT_EVERY,
    MAX_MESSAGE,
    WINDOW,
    Assembly,
    Key,
    Window,
    address,
    join,
    key_of,
    owner,
    split,
)
from loom_sdk.outbox import LANE_FRAMES, Outbox
from loom_sdk.writer import Writer

KEYS = st.one_of(st.text("abc", min_size=1, max_size=3), st.integers(-5, 5).filter(bool))
SIZES = st.sampled_from([0, 1, 100, MAX_MESSAGE - 200, MAX_MESSAGE, MAX_MESSAGE + 1, 300_000])


def item(key: str, number: int, size: int = 1) -> bytes:
    result = pb.ActionResult(call_id=key, item=True, elapsed_us=number, payload=bytes(size))
    return pb.PluginFrame(result=result).SerializeToString()


def frame_of(key: Key, number: int, size: int) -> bytes:
    """A data frame that belongs to `key` and can be told from the others."""
    if isinstance(key, str):
        return item(key, number, size)
    if key > 0:
        secret = pb.SecretRequest(name=f"{number}:" + "x" * size)
        return pb.PluginFrame(call=pb.HostCall(seq=key, get_secret=secret)).SerializeToString()
    error = pb.ActionError(message=f"{number}:" + "x" * size)
    response = pb.PluginResponse(error=error)
    return pb.PluginFrame(ack=pb.AckFrame(seq=-key, response=response)).SerializeToString()


class Receiver:
    """The other side: takes what comes and grants credit, at once or when told."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.assembly = Assembly(outbox.credit)
        self.came: dict[Key, list[bytes]] = {}
        self.messages = 0

    def take_all(self) -> None:
        while message := self.outbox.take():
            assert len(message) <= MAX_MESSAGE
            self.messages += 1
            for frame in list(split(pb.PluginFrame, message)):
                frame.ClearField("batch")
                self.take(frame)

    def take(self, frame: Any) -> None:
        if frame.WhichOneof("frame") != "chunk":
            self.came.setdefault(owner(frame), []).append(frame.SerializeToString())
            return
        key = key_of(frame.chunk)
        if (whole := self.assembly.add(frame.chunk, key)) is not None:
            self.came.setdefault(key, []).append(whole)
            self.outbox.credit(key, 1)  # the last chunk counts as the frame


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=9))
def test_joined_frames_come_apart_in_order(payloads: list[bytes]) -> None:
    frames = [
        pb.PluginFrame(chunk=pb.ChunkFrame(call_id=str(n), data=data)).SerializeToString()
        for n, data in enumerate(payloads)
    ]
    found = list(split(pb.PluginFrame, join(frames)))
    assert [frame.chunk.data for frame in found] == payloads
    assert [frame.chunk.call_id for frame in found] == [str(n) for n in range(len(payloads))]


@given(KEYS | st.just(0))
def test_a_key_survives_its_address(key: Key) -> None:
    assert key_of(pb.ChunkFrame(**address(key))) == key
    assert key_of(pb.CreditFrame(**address(key))) == key
    assert key_of(pb.CancelFrame(**address(key))) == key


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(KEYS, SIZES), max_size=25))
def test_every_frame_arrives_whole_and_in_the_order_of_its_key(
    sent: list[tuple[Key, int]],
) -> None:
    outbox = Outbox(pb.PluginFrame)
    receiver = Receiver(outbox)
    expected: dict[Key, list[bytes]] = {}
    for number, (key, size) in enumerate(sent):
        frame = frame_of(key, number, size)
        assert owner(pb.PluginFrame.FromString(frame)) == key
        expected.setdefault(key, []).append(frame)
        outbox.put(key, frame)
    receiver.take_all()
    assert receiver.came == expected
    assert receiver.assembly.held == 0
    assert len(outbox) == 0


def test_control_overtakes_data_and_calls_take_turns() -> None:
    outbox = Outbox(pb.PluginFrame)
    large = item("large", 0, 200_000)
    outbox.put("large", large)
    outbox.put("small", item("small", 1, 10))
    health = pb.PluginFrame(health=pb.HealthStatus(healthy=True)).SerializeToString()
    outbox.control(health)
    kinds = [
        (frame.WhichOneof("frame"), owner(frame))
        for _ in range(3)
        for frame in split(pb.PluginFrame, outbox.take())
    ]
    assert kinds[0] == ("health", 0)
    assert kinds.index(("result", "small")) <= 2  # not after the 4 chunks of the other
    assert kinds[1] == ("chunk", "large")


def test_frames_that_are_ready_together_travel_together() -> None:
    outbox = Outbox(pb.PluginFrame)
    for number in range(64):
        outbox.put(f"call-{number}", item(f"call-{number}", number, 100))
    receiver = Receiver(outbox)
    receiver.take_all()
    assert len(receiver.came) == 64
    assert receiver.messages == 1


def test_without_credit_nothing_more_of_a_key_is_sent() -> None:
    outbox = Outbox(pb.PluginFrame)
    for number in range(WINDOW + 5):
        outbox.put("slow", item("slow", number), counted=True)
    receiver = Receiver(outbox)
    receiver.take_all()
    assert len(receiver.came["slow"]) == WINDOW
    outbox.put("other", item("other", 0), counted=True)  # is not held up
    receiver.take_all()
    assert len(receiver.came["other"]) == 1
    outbox.credit("slow", 3)
    receiver.take_all()
    assert len(receiver.came["slow"]) == WINDOW + 3
    outbox.credit("slow", 10**9)  # a liar's credit is cut to the window
    outbox.put("slow", item("slow", 99), last=True)
    receiver.take_all()
    assert len(receiver.came["slow"]) == WINDOW + 6
    outbox.credit("nobody", 1)
    assert outbox.take() == b""


def test_a_large_frame_waits_for_credit_after_its_window() -> None:
    outbox = Outbox(pb.PluginFrame)
    outbox.put("big", item("big", 0, 5_000_000))
    sent = 0
    while outbox.take():
        sent += 1
    assert sent == WINDOW
    outbox.credit("big", 2)
    while outbox.take():
        sent += 1
    assert sent == WINDOW + 2


def test_a_large_init_needs_no_credit_and_is_granted_none() -> None:
    outbox, granted = Outbox(pb.HostFrame), list[Key]()
    assembly = Assembly(lambda key, _: granted.append(key))
    init = pb.HostFrame(init=pb.InitRequest(config="x" * (2 * WINDOW * MAX_MESSAGE)))
    outbox.end(0, init.SerializeToString())
    whole = None
    while message := outbox.take():
        whole = assembly.add(pb.HostFrame.FromString(message).chunk, 0)
    assert whole == init.SerializeToString()
    assert granted == []


def test_a_dropped_key_sends_nothing_more_and_says_whether_it_began() -> None:
    outbox = Outbox(pb.PluginFrame)
    outbox.put("never", item("never", 0))
    outbox.put("begun", item("begun", 0, 200_000))
    assert outbox.drop("never")
    assert outbox.take()
    assert not outbox.drop("begun")
    assert not outbox.drop("unknown")
    assert outbox.take() == b""
    assert len(outbox) == 0


def test_the_window_grants_what_was_taken_and_notices_too_much() -> None:
    window = Window()
    granted = [window.take() for _ in range(2 * CREDIT_EVERY) if window.received()]
    assert granted == [*[0] * (CREDIT_EVERY - 1), CREDIT_EVERY] * 2
    assert all(window.received() for _ in range(WINDOW))
    assert not window.received()


@given(st.binary(max_size=200))
def test_assembly_holds_only_what_is_unfinished(data: bytes) -> None:
    granted: list[tuple[Key, int]] = []
    assembly = Assembly(lambda key, frames: granted.append((key, frames)))
    for byte in data:
        chunk = pb.ChunkFrame(call_id="c", data=bytes([byte]))
        assert assembly.add(chunk, "c") is None
    assert assembly.held == assembly.size("c") == len(data)
    assert assembly.add(pb.ChunkFrame(call_id="c", last=True), "c") == data
    assert assembly.held == 0
    assert sum(frames for _, frames in granted) == len(data)  # all but the last
    assert not assembly.drop("c")


async def test_a_sender_waits_for_room_and_wakes_when_its_call_is_dropped() -> None:
    outbox = Outbox(pb.PluginFrame)
    for number in range(LANE_FRAMES):
        await outbox.room("c")
        outbox.put("c", item("c", number), counted=True)
    waiting = asyncio.create_task(outbox.room("c"))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert outbox.waiting("c") == LANE_FRAMES
    outbox.take()
    await asyncio.wait_for(waiting, 1)
    for number in range(LANE_FRAMES):
        outbox.put("c", item("c", number), counted=True)
    waiting = asyncio.create_task(outbox.room("c"))
    await asyncio.sleep(0)
    outbox.drop("c")
    await asyncio.wait_for(waiting, 1)


async def test_one_write_at_a_time_and_what_came_meanwhile_goes_together() -> None:
    outbox = Outbox(pb.PluginFrame)
    begun: list[bytes] = []
    gate = asyncio.Event()

    async def write(message: bytes) -> None:
        begun.append(message)
        await asyncio.sleep(0)
        await gate.wait()

    writer = Writer(outbox, write, lambda: False)
    for number in range(5):
        outbox.put(f"c{number}", item(f"c{number}", number))
    written = asyncio.create_task(outbox.written())
    await asyncio.sleep(0.01)
    assert len(begun) == 1
    assert not written.done()
    gate.set()
    await asyncio.wait_for(written, 1)
    assert [len(list(split(pb.PluginFrame, message))) for message in begun] == [1, 4]
    writer.aclose()
    outbox.put("late", item("late", 0))
    assert len(begun) == 2


async def test_a_writer_that_fails_lets_nobody_wait() -> None:
    outbox = Outbox(pb.PluginFrame)

    async def write(message: bytes) -> None:
        raise OSError("the stream is gone")

    Writer(outbox, write, lambda: False)
    outbox.put("c", item("c", 0))
    await asyncio.wait_for(outbox.written(), 1)


async def test_a_crowd_goes_in_one_message() -> None:
    outbox = Outbox(pb.PluginFrame)
    messages: list[bytes] = []

    async def write(message: bytes) -> None:
        messages.append(message)

    Writer(outbox, write, lambda: True)
    for number in range(8):
        outbox.put(f"c{number}", item(f"c{number}", number))
    assert messages == []
    await asyncio.sleep(0)
    assert [len(list(split(pb.PluginFrame, message))) for message in messages] == [8]
