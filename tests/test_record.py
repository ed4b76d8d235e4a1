"""Records of events: what is written is read again, also where the end is missing."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.storage.record import (
    Record,
    event_line,
    event_of,
    first_line,
    plain_event,
    read_record,
)
from loom_sdk import Event
from loom_sdk.errors import StorageError

from .test_event_log import EVENTS


def written(events: list[Event]) -> bytes:
    lines = [event_line(number * 1.5, plain_event(event)) for number, event in enumerate(events)]
    return "".join([first_line(1000, ["a", "b.>"]), *lines]).encode()


def read(data: bytes) -> Record:
    return read_record(io.BytesIO(data), "session.jsonl")


@given(st.lists(EVENTS, max_size=4))
def test_a_record_is_read_as_it_was_written(events: list[Event]) -> None:
    record = read(written(events))
    assert [entry.event for entry in record.events] == events
    assert [entry.after_ms for entry in record.events] == [n * 1.5 for n in range(len(events))]
    assert (record.started_ms, record.topics, record.cut_off) == (1000, ("a", "b.>"), False)


@given(st.lists(EVENTS, min_size=1, max_size=3), st.data())
def test_a_record_that_was_cut_off_gives_all_whole_lines(
    events: list[Event], data: st.DataObject
) -> None:
    whole = written(events)
    head = whole.index(b"\n") + 1
    end = data.draw(st.integers(head, len(whole)))
    record = read(whole[:end])
    lines = whole[:end].count(b"\n") - 1
    assert [entry.event for entry in record.events] == events[:lines]
    assert record.cut_off == (not whole[:end].endswith(b"\n"))


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_a_record_or_a_storage_error(data: bytes, begun: bool) -> None:
    try:
        read(written([]) + data if begun else data)
    except StorageError as error:
        assert "session.jsonl" in str(error)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{}\n", "line 3 is damaged"),
        ("[1]\n", "line 3 is damaged"),
        ('{"after_ms": 1, "event": {"payload": "?"}}\n', "no base64"),
        ('{"after_ms": 1, "event": {"priority": "high"}}\n', "no event"),
        ('{"after_ms": null, "event": {}}\n', "line 3 is damaged"),
    ],
)
def test_a_damaged_line_is_told_by_its_number(line: str, problem: str) -> None:
    with pytest.raises(StorageError, match=problem):
        read(written([Event("e")]) + line.encode())


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no record of events: .*`loom events record FILE`"),
        (b"RIFF....WAVE\n", "no record of events"),
        (b'{"loom": "store", "version": 1}\n', "it is something else"),
        (b'{"loom": "events", "version": 2}\n', "of version 2, this host reads 1"),
    ],
)
def test_what_is_no_record_is_told(data: bytes, problem: str) -> None:
    with pytest.raises(StorageError, match=problem):
        read(data)


def test_keys_to_come_are_passed_over() -> None:
    row = {"after_ms": 1, "mood": "good", "event": {**plain_event(Event("e", b"x")), "smell": 7}}
    record = read(written([]) + json.dumps(row).encode() + b"\n")
    assert (record.events[0].event.type, record.events[0].event.payload) == ("e", b"x")


def test_an_event_is_plain_text_in_a_record() -> None:
    plain = plain_event(Event("e", b"hi", {"text": "ja"}, id="1", timestamp_ms=5, topic="a"))
    assert plain == {
        "type": "e", "metadata": {"text": "ja"}, "id": "1", "timestamp_ms": 5, "topic": "a",
        "payload": "aGk=",
    }  # fmt: skip
    assert event_of(plain).payload == b"hi"
