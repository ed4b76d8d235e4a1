"""HTTP for plugins: by allow-list, to the address that was checked, bounded in time and size."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_host import egress as module
from loom_host.egress import Egress, origin
from loom_host.grants import Audit, Grants
from loom_sdk.context import HttpResponse
from loom_sdk.errors import (
    ActionFailed,
    InvalidArguments,
    LoomError,
    PermissionDenied,
    QuotaExceeded,
)


class Server:
    """Answers every request on a loopback port with `answer`; keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.pause_s = 0.0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-le")]
        body = await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
        self.requests.append((head + body).decode())
        await asyncio.sleep(self.pause_s)
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(host: str = "127.0.0.1") -> AsyncIterator[Server]:
    made = Server()
    server = await asyncio.start_server(made.serve, host, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


async def fetch(
    url: str, *, granted: str = "http://*", method: str = "GET", timeout_ms: int = 2000, **sent: Any
) -> HttpResponse:
    egress = Egress(Audit())
    grants = Grants("p", {"network": (granted,)})
    try:
        return await egress.request(
            grants, method, url, sent.get("headers", {}), sent.get("body", b""), timeout_ms
        )
    finally:
        await egress.aclose()


async def test_a_request_goes_out_and_comes_back() -> None:
    async with serving() as server:
        url = f"http://127.0.0.1:{server.port}/path?q=1"
        response = await fetch(
            url,
            granted=f"http://127.0.0.1:{server.port}",
            method="post",
            headers={"X-Mine": "1", "host": "evil.example"},
            body=b"body",
        )
    assert (response.status, response.body) == (200, b"ok")
    assert response.headers["content-length"] == "2"
    (request,) = server.requests
    assert request.startswith("POST /path?q=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n" in request
    assert "evil" not in request
    assert "X-Mine: 1" in request
    assert request.endswith("body")


@pytest.mark.parametrize(
    ("granted", "url"),
    [
        ("https://api.example", "http://api.example/"),
        ("http://api.example", "http://api.example:8080/"),
        ("http://api.example", "http://api.example.evil.net/"),
        ("http://*.example", "http://example/"),
        ("http://api.example", "http://127.0.0.1/"),
    ],
)
async def test_only_granted_origins(granted: str, url: str) -> None:
    with pytest.raises(PermissionDenied) as caught:
        await fetch(url, granted=granted)
    assert caught.value.permission == f"network:{origin(url)}"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"]
)
async def test_a_granted_name_does_not_lead_to_a_private_address(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    async def resolve(*args: Any, **kwargs: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(PermissionDenied, match="rebind.example"):
        await fetch("http://rebind.example/")


async def test_localhost_and_literals_are_reached_where_granted() -> None:
    async with serving() as server:
        for host in ("localhost", "127.0.0.1"):
            assert (await fetch(f"http://{host}:{server.port}/")).status == 200
        assert f"Host: localhost:{server.port}" in server.requests[0]


async def test_ipv6_literals() -> None:
    try:
        async with serving("::1") as server:
            url = f"http://[::1]:{server.port}"
            assert (await fetch(url, granted=url)).status == 200
            assert f"Host: [::1]:{server.port}\r\n" in server.requests[0]
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")


async def test_redirects_are_for_the_plugin_to_see() -> None:
    async with serving() as server:
        server.answer = b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n"
        response = await fetch(f"http://127.0.0.1:{server.port}/")
    assert (response.status, response.headers["location"]) == (302, "http://10.0.0.1/")


async def test_plugins_share_no_cookies() -> None:
    async with serving() as server:
        server.answer = (
            b"HTTP/1.1 200 OK\r\nSet-Cookie: session=secret\r\nContent-Length: 0\r\n\r\n"
        )
        egress = Egress(Audit())
        for name in ("p", "q"):
            grants = Grants(name, {"network": ("http://*",)})
            await egress.request(grants, "GET", f"http://127.0.0.1:{server.port}", {}, b"", 2000)
        await egress.aclose()
    assert len(server.requests) == 2
    assert "secret" not in "".join(server.requests)


async def test_too_large_an_answer_is_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESPONSE_BYTES", 10)
    async with serving() as server:
        server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n12345678901"
        with pytest.raises(QuotaExceeded) as caught:
            await fetch(f"http://127.0.0.1:{server.port}/")
    assert (caught.value.quota, caught.value.limit) == ("http_response_bytes", 10)


async def test_failures_are_typed() -> None:
    async with serving() as server:
        url = f"http://127.0.0.1:{server.port}/"
        server.pause_s = 0.2
        with pytest.raises(ActionFailed, match="TimeoutError") as caught:
            await fetch(url, timeout_ms=20)
        assert caught.value.code == "HTTP_FAILED"
        server.pause_s, server.answer = 0.0, b"not http\r\n\r\n"
        with pytest.raises(ActionFailed, match=f"GET {url[:-1]}: "):
            await fetch(url)
        with pytest.raises(LoomError):
            await fetch(url, headers={"X": "a\r\nb"})
        with pytest.raises(InvalidArguments, match="headers or body"):
            await fetch(url, headers={"X": "\u2603"})
    with pytest.raises(ActionFailed):
        await fetch(url)
    for host in ("no-such-host.invalid", "a" * 64 + ".example", "a..b"):
        with pytest.raises(ActionFailed, match="has no address"):
            await fetch(f"http://{host}/")


async def test_methods_are_listed() -> None:
    with pytest.raises(InvalidArguments, match="use one of GET"):
        await fetch("http://a/", method="CONNECT")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example/x?y#z", "https://api.example"),
        ("HTTPS://API.Example:443/", "https://api.example"),
        ("http://a:80", "http://a"),
        ("http://a:8080", "http://a:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_origin(url: str, expected: str) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a",
        "http://",
        "http://user@a/",
        "http://a:x",
        "file:///etc/passwd",
        "//a",
        "http://[1",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidArguments):
        origin(url)


@runs(max_examples=100, deadline=None)
@given(st.text(max_size=20).map(lambda tail: "http://" + tail))
def test_any_text_has_an_origin_or_is_told(url: str) -> None:
    try:
        assert origin(url).startswith("http://")
    except InvalidArguments as error:
        assert error.message
