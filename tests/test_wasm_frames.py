"""The protocol between host and worker process: what goes in comes out, what lies is refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.runtimes.wasm import messages
from loom_host.runtimes.wasm.asks import Asks
from loom_host.runtimes.wasm.frames import Frame, FrameError, Splitter, pack
from loom_sdk.errors import QuotaExceeded

from .support import AsyncFakePort, FakePort

LIMIT = 1 << 16
frames = st.builds(
    Frame, st.integers(0, 255), st.integers(0, 2**32 - 1), st.lists(st.binary(max_size=64))
)


@given(st.lists(frames, max_size=6), st.integers(1, 50))
def test_frames_survive_any_cut(sent: list[Frame], piece: int) -> None:
    data = b"".join(pack(*frame) for frame in sent)
    splitter, got = Splitter(LIMIT), []
    for at in range(0, len(data), piece):
        splitter.feed(data[at : at + piece])
        got += list(splitter)
    assert got == sent


@given(st.binary(max_size=400))
def test_noise_is_refused_or_waited_for(data: bytes) -> None:
    splitter = Splitter(300)
    splitter.feed(data)
    try:
        for frame in splitter:
            assert sum(map(len, frame.fields)) <= 300
    except FrameError:
        pass


@given(frames, st.data())
def test_a_changed_length_is_refused_or_moves_the_border(frame: Frame, data: Any) -> None:
    sent = bytearray(pack(*frame))
    if not frame.fields:
        return
    at = 10 + 4 * data.draw(st.integers(0, len(frame.fields) - 1))
    (old,) = struct.unpack_from("<I", sent, at)
    new = data.draw(st.integers(0, 2**32 - 1).filter(lambda value: value != old))
    struct.pack_into("<I", sent, at, new)
    splitter = Splitter(LIMIT)
    splitter.feed(bytes(sent))
    with pytest.raises(FrameError):
        splitter.next()


@pytest.mark.parametrize("size", [LIMIT + 1, 2**32 - 1, 5, 0])
def test_sizes_out_of_bounds_are_refused_before_the_rest_comes(size: int) -> None:
    splitter = Splitter(LIMIT)
    splitter.feed(struct.pack("<I", size))
    with pytest.raises(FrameError, match=f"{size} bytes"):
        splitter.next()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES: dict[str, Any] = {
    "s": texts,
    "b": st.binary(max_size=50),
    "i": st.integers(-(2**63), 2**63 - 1),
    "f": st.floats(allow_nan=False),
    "p": st.lists(st.tuples(texts, texts), max_size=4),
    "t": st.lists(texts, max_size=4),
    "j": st.recursive(
        st.none() | st.booleans() | texts,
        lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
        max_leaves=8,
    ),
}


@given(st.lists(st.sampled_from(sorted(VALUES)), max_size=6), st.data())
def test_values_survive_their_shape(kinds: list[str], data: Any) -> None:
    shape = messages.Shape(" ".join(f"f{at}:{kind}" for at, kind in enumerate(kinds)))
    values = [data.draw(VALUES[kind]) for kind in kinds]
    assert shape.unpack(shape.pack(*values)) == values


@given(st.sampled_from(sorted(messages.IMPORTS)), st.lists(st.binary(max_size=30), max_size=14))
def test_arguments_that_lie_are_refused(name: str, fields: list[bytes]) -> None:
    takes, _ = messages.IMPORTS[name]
    try:
        values = takes.unpack(fields)
    except FrameError:
        return
    assert len(values) == len(takes.names)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("s", b"\xff"), ("i", b"1"), ("f", b""), ("j", b"{"), ("j", b"[" * 100_000),
        ("p", b'{"a": "b"}'), ("p", b'[["a", 1]]'), ("p", b'[["a"]]'), ("t", b"[1]"), ("t", b'"a"'),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_kind_is_a_frame_error(kind: str, field: bytes) -> None:
    with pytest.raises(FrameError):
        messages.Shape(f"x:{kind}").unpack([field])


def test_an_error_keeps_its_class_and_numbers() -> None:
    sent = QuotaExceeded(plugin_id="p/q", quota="memory", limit=5, used=7)
    got = messages.unpack_error(messages.pack_error(sent))
    assert isinstance(got, QuotaExceeded)
    assert (got.plugin_id, got.quota, got.limit, got.used) == ("p/q", "memory", 5, 7)


@pytest.mark.parametrize("fields", [[], [b"no-such"], [b"kv-get"], [b"invoke", b"a"], [b"\xff"]])
def test_unknown_questions_are_refused(fields: list[bytes]) -> None:
    asks = Asks(AsyncFakePort(FakePort()), "test/p", 100)
    with pytest.raises(FrameError):
        asks.parse(fields)


def test_every_import_of_the_wit_is_asked_or_told() -> None:
    from loom_host.runtimes.wasm.contract import EXPORTS
    from loom_host.runtimes.wasm.host_imports import SIGNATURES

    assert SIGNATURES.keys() == (messages.IMPORTS.keys() - {"sync"}) | messages.TELLS.keys()
    assert EXPORTS.keys() == messages.EXPORTS.keys() - {"load"}
