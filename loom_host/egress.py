"""HTTP on behalf of plugins, by allow-list.

The host resolves the name, checks the address and connects to that very address, so that a
granted name cannot lead to a private one. Redirects are followed, and each is a request of its own:
checked, resolved and pinned again, without credentials where it leads to another origin. Nothing of
the environment is used: no proxy, no netrc, no cookies.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from loom_sdk.errors import ActionFailed, InvalidArguments, QuotaExceeded
from loom_sdk.port import HttpResponse

from .grants import Audit, Grants
from .http_exchange import REDIRECTS, Body, Sending, TooLong, checked_headers
from .network import METHODS, Address, Url, is_literal, is_public, parse_rule, parse_url, plain
from .network import request_rule as as_rule

if TYPE_CHECKING:
    import httpx

REQUEST_BYTES = 4 * 1024**2
RESPONSE_BYTES = 4 * 1024**2
"""Of a body as it came and as it was unpacked."""
IN_FLIGHT = 8
"""Requests of one plugin at once."""
MAX_REDIRECTS = 5
TOTAL_S, CONNECT_S = 60.0, 5.0
"""Longest time of a request with its redirects, whatever the plugin asks; and of one connection."""
MAX_ADDRESSES = 4
"""Of one name that are tried until one answers."""


def origin(url: str) -> str:
    """`scheme://host[:port]` of a URL. Raises InvalidArguments unless it is plain HTTP(S)."""
    return _parsed(url).origin


def _parsed(url: str) -> Url:
    try:
        return parse_url(url)
    except ValueError as error:
        raise InvalidArguments(f"the URL cannot be used: {error}") from error


class Egress:
    """One client for all plugins, opened at first use."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._opened: httpx.AsyncClient | None = None
        self._running: dict[str, int] = {}

    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            from http.cookiejar import CookieJar, DefaultCookiePolicy

            import httpx

            # Plugins share neither cookies nor connections: the pool knows only addresses, so
            # one made for another name at the same address would be taken for this one.
            self._opened = httpx.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                limits=httpx.Limits(max_keepalive_connections=0),
                timeout=httpx.Timeout(TOTAL_S, connect=CONNECT_S),
            )
        return self._opened

    async def request(
        self,
        grants: Grants,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout_ms: int,
    ) -> HttpResponse:
        """The answer, after redirects, unpacked where it was gzip or deflate.

        Raises PermissionDenied, InvalidArguments, QuotaExceeded (http_requests, http_request_bytes,
        http_response_bytes) or ActionFailed(HTTP_FAILED). No message has more of a URL than its
        origin, nor any header's value: they may be secrets.
        """
        sending = _checked(grants.plugin, method, url, headers, body)
        where = f"{sending.method} {sending.url.origin}"
        import httpx

        with self._counted(grants.plugin):
            try:
                async with asyncio.timeout(min(timeout_ms / 1000, TOTAL_S)):
                    return await self._follow(grants, sending)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
                reason = str(error) or type(error).__name__
                raise ActionFailed(f"{where}: {reason}", code="HTTP_FAILED") from error
            except (TypeError, ValueError) as error:
                raise ActionFailed(f"{where}: {error}", code="HTTP_FAILED") from error

    @contextmanager
    def _counted(self, plugin: str) -> Iterator[None]:
        used = self._running.get(plugin, 0) + 1
        if used > IN_FLIGHT:
            raise QuotaExceeded(plugin_id=plugin, quota="http_requests", limit=IN_FLIGHT, used=used)
        self._running[plugin] = used
        try:
            yield
        finally:
            self._running[plugin] -= 1
            if not self._running[plugin]:
                del self._running[plugin]

    async def _follow(self, grants: Grants, sending: Sending) -> HttpResponse:
        for _ in range(MAX_REDIRECTS + 1):
            self._check(grants, sending)
            answer = await self._hop(grants, sending)
            if isinstance(answer, HttpResponse):
                return answer
            sending = answer
        raise ActionFailed(
            f"{sending.url.origin}: more than {MAX_REDIRECTS} redirects", code="HTTP_FAILED"
        )

    def _check(self, grants: Grants, sending: Sending) -> None:
        """Raises PermissionDenied; it names the method only where another one is granted."""
        where = sending.url.origin
        if grants.permits("network", f"{sending.method} {where}"):
            self._audit.check(grants, "network", f"{sending.method} {where}")
            return
        by_method = any(grants.permits("network", f"{method} {where}") for method in METHODS)
        wanted = f"{sending.method} {where}" if by_method else where
        self._audit.refuse(grants, "network", wanted)

    async def _hop(self, grants: Grants, sending: Sending) -> HttpResponse | Sending:
        """An answer, or the request that a redirect asks for."""
        response = await self._connected(grants, sending)
        try:
            location = response.headers.get("location")
            if response.status_code in REDIRECTS and location is not None:
                return sending.redirected(response.status_code, location)
            return await _read(grants.plugin, response)
        finally:
            await response.aclose()

    async def _connected(self, grants: Grants, sending: Sending) -> httpx.Response:
        import httpx

        failure: Exception | None = None
        for address in await self._addresses(grants, sending):
            try:
                return await self._client().send(self._request(sending, address), stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        assert failure is not None, "there is at least one address"
        raise failure

    def _request(self, sending: Sending, address: Address) -> httpx.Request:
        """To an address, for a name: it stands in Host and in the certificate."""
        url = sending.url
        literal = f"[{address}]" if address.version == 6 else str(address)
        return self._client().build_request(
            sending.method,
            f"{url.scheme}://{literal}:{url.port}{url.target}",
            headers={
                **sending.headers,
                "Host": url.origin.partition("://")[2],
                "Accept-Encoding": "gzip, deflate",
            },
            content=sending.body,
            extensions={"sni_hostname": url.host},
        )

    async def _addresses(self, grants: Grants, sending: Sending) -> list[Address]:
        """Those of the host that may be connected to. Raises PermissionDenied where none may."""
        url = sending.url
        found = [ipaddress.ip_address(url.host)] if is_literal(url.host) else await _resolve(url)
        allowed = [address for address in found if _may_reach(grants, sending, address)]
        if not allowed:
            shown = url.origin if is_literal(url.host) else f"{url.host} ({found[0]})"
            rule = replace(url, host=str(found[0])).origin
            self._audit.refuse(grants, "network", shown, rule)
        return allowed[:MAX_ADDRESSES]

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()


def _checked(
    plugin: str, method: str, url: str, headers: Mapping[str, str], body: bytes
) -> Sending:
    method = method.upper()
    if method not in METHODS:
        raise InvalidArguments(f"method {method[:20]!r}: use one of {', '.join(METHODS)}")
    if len(body) > REQUEST_BYTES:
        quota = "http_request_bytes"
        raise QuotaExceeded(plugin_id=plugin, quota=quota, limit=REQUEST_BYTES, used=len(body))
    parsed = _parsed(url)
    try:
        return Sending(method, parsed, checked_headers(headers), body)
    except ValueError as error:
        raise InvalidArguments(f"{method} {parsed.origin}: headers: {error}") from error


async def _resolve(url: Url) -> list[Address]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ActionFailed(f"{url.host} has no address: {error}", code="HTTP_FAILED") from error
    return [plain(ipaddress.ip_address(entry[4][0])) for entry in found]


def _may_reach(grants: Grants, sending: Sending, address: Address) -> bool:
    """A public address may; any other where it, or `localhost` for a loopback one, was granted by
    itself.
    """
    if is_public(address):
        return True
    rules = [parse_rule(text) for text in grants.allowed.get("network", ())]
    names = {str(address)}
    if sending.url.host == "localhost" and address.is_loopback:
        names.add("localhost")
    wanted = [as_rule(sending.method, sending.url, name) for name in names]
    return any(rule.by_itself and rule.covers(want) for rule in rules for want in wanted)


async def _read(plugin: str, response: httpx.Response) -> HttpResponse:
    body = Body(response.headers.get("content-encoding", ""), RESPONSE_BYTES)
    try:
        async for chunk in response.aiter_raw():
            body.feed(chunk)
    except TooLong as error:
        raise QuotaExceeded(
            plugin_id=plugin, quota="http_response_bytes", limit=RESPONSE_BYTES, used=error.size
        ) from error
    headers = dict(response.headers)
    data = body.data()
    if body.unpacks and data:
        for name in ("content-encoding", "content-length"):
            headers.pop(name, None)
    return HttpResponse(response.status_code, headers, data)
