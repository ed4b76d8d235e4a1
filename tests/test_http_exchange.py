"""What is sent for a plugin, what a redirect makes of it, and bodies that never unpack too far."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.http_exchange import Body, Sending, TooLong, checked_headers
from loom_host.network import parse_url

HEADERS = {
    "Authorization": "Bearer s3cret",
    "Cookie": "a=b",
    "Proxy-Authorization": "x",
    "X-Api-Key": "k",
    "Accept": "text/plain",
    "Content-Type": "text/plain",
}


def sending(method: str = "POST") -> Sending:
    return Sending(method, parse_url("https://a.example/x?y"), HEADERS, b"body")


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", b""), (302, "POST", "GET", b""), (303, "POST", "GET", b""),
        (303, "PUT", "GET", b""), (303, "HEAD", "HEAD", b"body"), (301, "PUT", "PUT", b"body"),
        (301, "GET", "GET", b"body"), (307, "POST", "POST", b"body"),
        (308, "POST", "POST", b"body"),
    ],
)  # fmt: skip
def test_method_and_body_after_a_redirect(status: int, method: str, then: str, body: bytes) -> None:
    after = sending(method).redirected(status, "/next")
    assert (after.method, after.body) == (then, body)
    assert after.url == parse_url("https://a.example/next")
    assert ("Content-Type" in after.headers) == bool(body)
    assert after.headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("https://a.example:443/z", True), ("?q", True), ("//a.example/z", True),
        ("http://a.example/z", False), ("https://a.example:444/", False),
        ("https://b.a.example/", False), ("//b.example/", False),
    ],
)  # fmt: skip
def test_credentials_stay_with_their_origin(location: str, kept: bool) -> None:
    after = sending().redirected(307, location).headers
    for name in ("Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key"):
        assert (name in after) == kept
    assert after["Accept"] == "text/plain"


@pytest.mark.parametrize(
    "location", ["ftp://a/", "javascript:x", "http://u:p@b/", "http://127.1/", "http://a\\b/"]
)
def test_a_redirect_to_what_is_no_url_is_not_followed(location: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        sending().redirected(302, location)


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nEvil: 1"}, {"X": "a\nb"}, {"X\r\nEvil": "1"}, {"X": "a\0"}, {"": "x"},
        {"a b": "x"}, {"X:": "x"}, {"X": "\u2603"}, {"X": "x" * 17_000},
        {f"X{number}": "" for number in range(65)},
    ],
)  # fmt: skip
def test_headers_that_would_break_the_message_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        checked_headers(headers)


def test_framing_and_connection_are_the_hosts() -> None:
    sent = {
        "host": "evil", "Content-Length": "1", "Transfer-Encoding": "chunked", "TE": "x",
        "Connection": "upgrade", "Upgrade": "h2c", "Proxy-Authorization": "x", "Expect": "100",
        "Accept-Encoding": "br", "X-Mine": " 1 ",
    }  # fmt: skip
    assert checked_headers(sent) == {"X-Mine": "1"}


def test_a_refused_header_does_not_show_its_value() -> None:
    with pytest.raises(ValueError, match="X-Key") as caught:
        checked_headers({"X-Key": "s3cret\n"})
    assert "s3cret" not in str(caught.value)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Any] = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@given(st.binary(max_size=2000), st.integers(1, 100), st.sampled_from([*PACKERS, "raw", "", "br"]))
def test_bodies_in_pieces(data: bytes, piece: int, encoding: str) -> None:
    packed = raw_deflate(data) if encoding == "raw" else PACKERS.get(encoding, bytes)(data)
    body = Body("deflate" if encoding == "raw" else encoding, 4000)
    for at in range(0, len(packed), piece):
        body.feed(packed[at : at + piece])
    assert body.data() == data


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
def test_a_bomb_is_not_unpacked(pack: object) -> None:
    assert callable(pack)
    bomb = pack(bytes(32 * 1024**2))
    body = Body("gzip" if pack is gzip.compress else "deflate", 1024**2)
    tracemalloc.start()
    with pytest.raises(TooLong) as caught:
        body.feed(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.size == 1024**2 + 1
    assert peak < 8 * 1024**2


def test_a_plain_body_over_the_limit() -> None:
    body = Body("", 10)
    body.feed(b"x" * 10)
    with pytest.raises(TooLong):
        body.feed(b"x")


@pytest.mark.parametrize("data", [b"not packed", gzip.compress(b"x" * 100, mtime=0)[:20]])
def test_a_body_that_is_not_what_it_says(data: bytes) -> None:
    body = Body("gzip", 1000)
    with pytest.raises(ValueError, match="gzip"):
        body.feed(data)
        body.data()
