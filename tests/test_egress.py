"""HTTP for plugins: by allow-list, to the address that was checked, bounded in time and size."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from loom_host import egress as module
from loom_host.egress import Egress, origin
from loom_host.grants import Audit, Grants
from loom_sdk.errors import (
    ActionFailed,
    InvalidArguments,
    PermissionDenied,
    QuotaExceeded,
)
from loom_sdk.port import HttpResponse


class Server:
    """Answers every request on a loopback port with `answer`; keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.answers: dict[str, bytes] = {}
        """By path; else `answer`."""
        self.pause_s = 0.0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-le")]
        body = await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
        self.requests.append((head + body).decode())
        await asyncio.sleep(self.pause_s)
        writer.write(self.answers.get(head.split()[1].decode(), self.answer))
        await writer.drain()
        writer.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def moved(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n\r\n".encode()


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


HERE = ("http://127.0.0.1:*", "http://localhost:*", "http://*.example", "https://*.example")


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name has these addresses."""

    async def resolve(host: str, port: int, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)


async def fetch(
    url: str,
    *granted: str,
    method: str = "GET",
    timeout_ms: int = 2000,
    audit: Audit | None = None,
    **sent: Any,
) -> HttpResponse:
    egress = Egress(audit or Audit())
    grants = Grants("p", {"network": granted or HERE})
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
            f"http://127.0.0.1:{server.port}",
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
        await fetch(url, granted)
    assert caught.value.permission == f"network:{origin(url)}"


async def test_the_method_is_part_of_a_grant() -> None:
    audit = Audit()
    async with serving() as server:
        url = f"http://127.0.0.1:{server.port}"
        rule = f"GET,HEAD {url}"
        assert (await fetch(url, rule, audit=audit)).status == 200
        with pytest.raises(PermissionDenied, match=f'network = ."POST {url}".') as caught:
            await fetch(url, rule, method="POST", audit=audit)
    assert caught.value.permission == f"network:POST {url}"
    assert audit.used == {("p", "network", f"GET {url}"): 1}


INSIDE = [
    "127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1", "::",
    "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
@pytest.mark.parametrize("rule", ["*", "http://rebind.example", "http://*.example"])
async def test_a_granted_name_does_not_lead_to_a_private_address(
    monkeypatch: pytest.MonkeyPatch, address: str, rule: str
) -> None:
    resolving_to(monkeypatch, address)
    with pytest.raises(PermissionDenied, match="rebind.example"):
        await fetch("http://rebind.example/", rule)


@pytest.mark.parametrize("address", INSIDE)
async def test_a_star_grants_no_private_literal(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(PermissionDenied):
        await fetch(f"http://{host}/", "*", "http://*:*", "https://*")


async def test_only_addresses_that_may_be_reached_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name has a private address first; its own grant is for another one."""
    async with serving() as server:
        resolving_to(monkeypatch, "10.0.0.1", "127.0.0.1")
        name, literal = f"http://in.example:{server.port}", f"http://127.0.0.1:{server.port}"
        assert (await fetch(name, name, literal)).status == 200
        assert f"Host: in.example:{server.port}\r\n" in server.requests[0]
        with pytest.raises(PermissionDenied):
            await fetch(name, name, "http://127.0.0.1:1")
        with pytest.raises(PermissionDenied):
            await fetch(name, name, f"POST {literal}")


async def test_localhost_must_be_here(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, "10.0.0.1")
    with pytest.raises(PermissionDenied):
        await fetch("http://localhost/", "http://localhost")


async def test_the_next_address_is_tried_when_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as server:
        resolving_to(monkeypatch, "127.0.0.9", "127.0.0.1")
        rules = [f"http://{host}:*" for host in ("a.example", "127.0.0.9", "127.0.0.1")]
        assert (await fetch(f"http://a.example:{server.port}", *rules)).status == 200


async def test_the_address_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second answer of the resolver, made to lead elsewhere, is never asked for."""
    asked = []

    async def resolve(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async with serving() as server:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        url = f"http://a.example:{server.port}"
        assert (await fetch(url, url, f"http://127.0.0.1:{server.port}")).status == 200
    assert asked == ["a.example"]


async def test_localhost_and_literals_are_reached_where_granted() -> None:
    async with serving() as server:
        for host in ("localhost", "127.0.0.1"):
            assert (await fetch(f"http://{host}:{server.port}/")).status == 200
        assert f"Host: localhost:{server.port}" in server.requests[0]


async def test_ipv6_literals() -> None:
    try:
        async with serving("::1") as server:
            url = f"http://[::1]:{server.port}"
            assert (await fetch(url, url)).status == 200
            assert f"Host: [::1]:{server.port}\r\n" in server.requests[0]
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")


async def test_redirects_are_followed() -> None:
    async with serving() as server:
        server.answers = {"/a": moved("/b?c", 303), "/b?c": OK}
        url = f"http://127.0.0.1:{server.port}/a"
        response = await fetch(url, method="POST", body=b"form", headers={"Cookie": "mine=1"})
    assert (response.status, response.body) == (200, b"ok")
    assert server.requests[1].startswith("GET /b?c ")
    assert "form" not in server.requests[1]
    assert "mine=1" in server.requests[1]


async def test_credentials_do_not_cross_to_another_host() -> None:
    async with serving() as there, serving() as server:
        server.answer = moved(f"http://localhost:{there.port}/", 307)
        sent = {"Authorization": "Bearer s3cret", "Cookie": "s3cret", "X-Api-Key": "s3cret"}
        url = f"http://127.0.0.1:{server.port}/"
        await fetch(url, method="POST", body=b"kept", headers=sent | {"X-Mine": "yes"})
    assert server.requests[0].count("s3cret") == 3
    (second,) = there.requests
    assert "s3cret" not in second
    assert "x-mine: yes" in second.lower()
    assert second.endswith("kept")


@pytest.mark.parametrize(
    ("location", "permission"),
    [
        ("http://10.0.0.1/", "network:http://10.0.0.1"),
        ("//[::ffff:10.0.0.1]/x", "network:http://10.0.0.1"),
        ("http://169.254.169.254/latest/meta-data", "network:http://169.254.169.254"),
    ],
)
async def test_every_hop_is_checked(location: str, permission: str) -> None:
    async with serving() as server:
        server.answer = moved(location)
        with pytest.raises(PermissionDenied) as caught:
            await fetch(f"http://127.0.0.1:{server.port}/", f"http://127.0.0.1:{server.port}", "*")
    assert caught.value.permission == permission


async def test_a_hop_that_is_not_granted() -> None:
    async with serving() as server:
        server.answer = moved("https://evil.net/?key=s3cret")
        with pytest.raises(PermissionDenied, match="evil.net") as caught:
            await fetch(f"http://127.0.0.1:{server.port}/")
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("location", ["ftp://a/", "http://u:p@127.0.0.1/", "http://2130706433/"])
async def test_a_location_that_is_no_url(location: str) -> None:
    async with serving() as server:
        server.answer = moved(location)
        with pytest.raises(ActionFailed) as caught:
            await fetch(f"http://127.0.0.1:{server.port}/")
    assert caught.value.code == "HTTP_FAILED"


async def test_redirects_in_a_circle_end() -> None:
    async with serving() as server:
        server.answer = moved("/")
        with pytest.raises(ActionFailed, match="more than 5 redirects"):
            await fetch(f"http://127.0.0.1:{server.port}/")
    assert len(server.requests) == 6


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server, serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        assert (await fetch(f"http://127.0.0.1:{server.port}/")).status == 200
        assert proxy.requests == []


async def test_plugins_share_no_cookies() -> None:
    async with serving() as server:
        server.answer = (
            b"HTTP/1.1 200 OK\r\nSet-Cookie: session=secret\r\nContent-Length: 0\r\n\r\n"
        )
        egress = Egress(Audit())
        for name in ("p", "q"):
            grants = Grants(name, {"network": HERE})
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


def packed(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_packed_answer_is_unpacked_within_the_limit() -> None:
    async with serving() as server:
        url = f"http://127.0.0.1:{server.port}/"
        server.answer = packed(gzip.compress(b"hello" * 100))
        response = await fetch(url)
        assert response.body == b"hello" * 100
        assert "content-encoding" not in response.headers
        server.answer = packed(gzip.compress(bytes(64 * 1024**2)))
        with pytest.raises(QuotaExceeded) as caught:
            await fetch(url)
        server.answer = packed(b"not gzip")
        with pytest.raises(ActionFailed, match="not gzip"):
            await fetch(url)
    assert caught.value.quota == "http_response_bytes"
    assert "Accept-Encoding: gzip, deflate\r\n" in server.requests[0]


async def test_too_large_a_request_is_a_quota() -> None:
    with pytest.raises(QuotaExceeded) as caught:
        await fetch("http://127.0.0.1/", body=bytes(module.REQUEST_BYTES + 1))
    assert caught.value.quota == "http_request_bytes"


async def test_requests_at_once_are_counted_by_plugin() -> None:
    async with serving() as server:
        server.pause_s = 0.2
        egress, url = Egress(Audit()), f"http://127.0.0.1:{server.port}/"

        async def ask(plugin: str) -> HttpResponse:
            grants = Grants(plugin, {"network": HERE})
            return await egress.request(grants, "GET", url, {}, b"", 2000)

        flood = await asyncio.gather(
            *(ask("p") for _ in range(module.IN_FLIGHT + 2)), ask("q"), return_exceptions=True
        )
        refused = [one for one in flood if isinstance(one, QuotaExceeded)]
        assert [one.quota for one in refused] == ["http_requests"] * 2
        assert isinstance(flood[-1], HttpResponse)
        assert (await ask("p")).status == 200
        await egress.aclose()


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
    with pytest.raises(ActionFailed):
        await fetch(url)
    with pytest.raises(ActionFailed, match="has no address"):
        await fetch("http://no-such-host.invalid/", "*")


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "\u2603", "a\0"])
async def test_headers_that_would_break_the_message(value: str) -> None:
    with pytest.raises(InvalidArguments, match="headers: header X") as caught:
        await fetch("http://127.0.0.1/", headers={"X": value})
    assert value not in caught.value.message


@pytest.mark.parametrize("url", ["http://u:s3cret@a.example/", "http://a.example:s3cret/"])
async def test_what_is_no_url_is_not_repeated(url: str) -> None:
    with pytest.raises(InvalidArguments, match="the URL cannot be used") as caught:
        await fetch(url)
    assert "s3cret" not in caught.value.message


async def test_failures_tell_no_more_than_the_origin() -> None:
    async with serving() as server:
        url = f"http://127.0.0.1:{server.port}"
    with pytest.raises(ActionFailed) as caught:
        await fetch(f"{url}/bot-s3cret/x?key=s3cret", headers={"Authorization": "s3cret"})
    assert caught.value.message.startswith(f"GET {url}: ")
    assert "s3cret" not in caught.value.message


async def test_methods_are_listed() -> None:
    with pytest.raises(InvalidArguments, match="use one of GET"):
        await fetch("http://a/", method="CONNECT")
