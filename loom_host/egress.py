"""HTTP on behalf of plugins, by allow-list.

The host resolves the name, checks the address and connects to that very address, so that a
granted name cannot lead to a private one. Redirects are not followed: the plugin sees them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loom_sdk.context import HttpResponse
from loom_sdk.errors import ActionFailed, InvalidArguments, QuotaExceeded

from .grants import Audit, Grants

if TYPE_CHECKING:
    import httpx

RESPONSE_BYTES = 4 * 1024**2
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def origin(url: str) -> str:
    """`scheme://host[:port]` of a URL. Raises InvalidArguments unless it is plain HTTP(S)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidArguments(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise InvalidArguments(f"{url!r}: give http(s)://host/..., without a user in it")
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != usual else "")


class Egress:
    """One client for all plugins, opened at first use."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._opened: httpx.AsyncClient | None = None

    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            import httpx

            # Plugins share neither cookies nor connections: the pool knows only addresses, so
            # one made for another name at the same address would be taken for this one.
            self._opened = httpx.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                limits=httpx.Limits(max_keepalive_connections=0),
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
        """Raises PermissionDenied, InvalidArguments, QuotaExceeded or ActionFailed(HTTP_FAILED)."""
        method = method.upper()
        if method not in METHODS:
            raise InvalidArguments(f"method {method!r}: use one of {', '.join(METHODS)}")
        where = origin(url)
        self._audit.check(grants, "network", where)
        address = await self._address(grants, url)
        import httpx

        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await self._send(grants, method, url, address, headers, body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ActionFailed(f"{method} {where}: {reason}", code="HTTP_FAILED") from error
        except (TypeError, ValueError) as error:
            raise InvalidArguments(f"{method} {where}: headers or body: {error}") from error

    async def _address(self, grants: Grants, url: str) -> str:
        """The address to connect to, checked."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ActionFailed(f"{host} has no address: {error}", code="HTTP_FAILED") from error
        address = ipaddress.ip_address(found[0][4][0])
        mapped = getattr(address, "ipv4_mapped", None)
        literal = _is_literal(host)
        if not (mapped or address).is_global and not literal and host != "localhost":
            self._audit.refuse(grants.plugin, "network", f"{host} ({address})")
        return str(address)

    async def _send(
        self,
        grants: Grants,
        method: str,
        url: str,
        address: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> HttpResponse:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        literal = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{literal}{port}").geturl()
        sent = {k: v for k, v in headers.items() if k.lower() != "host"}
        name = parts.hostname or ""
        sent["Host"] = f"[{name}]{port}" if ":" in name else f"{name}{port}"
        request = self._client().build_request(
            method, target, headers=sent, content=body,
            extensions={"sni_hostname": name},
        )  # fmt: skip
        response = await self._client().send(request, stream=True)
        try:
            received = bytearray()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > RESPONSE_BYTES:
                    raise QuotaExceeded(
                        plugin_id=grants.plugin,
                        quota="http_response_bytes",
                        limit=RESPONSE_BYTES,
                        used=len(received),
                    )
            return HttpResponse(response.status_code, dict(response.headers), bytes(received))
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
