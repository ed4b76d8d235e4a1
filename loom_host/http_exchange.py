"""One HTTP exchange on behalf of a plugin: what is sent, what a redirect makes of it, what of the
answer is kept. Pure; the connection is `egress.py`'s.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from .network import Url, parse_url

MAX_HEADERS, HEADER_BYTES = 64, 16 * 1024
REDIRECTS = frozenset((301, 302, 303, 307, 308))

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT = re.compile(r"[\t\x20-\x7e]*")
_OURS = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
     "trailer", "expect", "accept-encoding")
)  # fmt: skip
"""Framing and connection are the host's; so is the encoding, which it must undo within a limit."""
_CREDENTIAL = re.compile("auth|cookie|token|key|secret|password|session|credential")
"""Names like Authorization, Cookie, Proxy-Authorization, X-Api-Key."""
_OF_BODY = ("content-",)


@dataclass(frozen=True, slots=True)
class Sending:
    """A request before it has an address."""

    method: str
    url: Url
    headers: Mapping[str, str]
    body: bytes = b""

    def redirected(self, status: int, location: str) -> Sending:
        """The next request, by RFC 9110 15.4 and the Fetch standard's rules for methods.

        Raises:
            ValueError: the location is no URL that is followed.
        """
        url = parse_url(urljoin(f"{self.url.origin}{self.url.target}", location))
        headers = dict(self.headers)
        if url.origin != self.url.origin:
            headers = {k: v for k, v in headers.items() if not _CREDENTIAL.search(k.lower())}
        posted = self.method == "POST" and status in (301, 302)
        if posted or (status == 303 and self.method != "HEAD"):
            headers = {k: v for k, v in headers.items() if not k.lower().startswith(_OF_BODY)}
            return Sending("GET", url, headers)
        return replace(self, url=url, headers=headers)


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What may be sent of a plugin's headers; those that are the host's to set are left out.

    Raises:
        ValueError: too many, too long, or a name or value that would break the message; it does
            not repeat a value, which may be a secret.
    """
    size = sum(len(name) + len(value) for name, value in headers.items())
    if len(headers) > MAX_HEADERS or size > HEADER_BYTES:
        raise ValueError(
            f"{len(headers)} headers of {size} bytes: at most {MAX_HEADERS} of {HEADER_BYTES}"
        )
    kept = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no name of a header")
        if not _TEXT.fullmatch(value):
            raise ValueError(f"header {name[:40]} has a line break or a character beyond ASCII")
        if name.lower() not in _OURS and not name.lower().startswith("proxy-"):
            kept[name] = value.strip()
    return kept


class TooLong(Exception):
    """The body has more bytes than allowed; `size` is what had come."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


class Body:
    """Collects a response's body, unpacked, up to a limit: a small one that unpacks to a large one
    is never unpacked beyond it.

    Args:
        encoding: the header Content-Encoding; only gzip and deflate, alone, are undone.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        self._limit, self._received = limit, 0
        self._encoding = encoding.strip().lower()
        self._unpacker: Any = None
        self._data = bytearray()
        self.unpacks = self._encoding in ("gzip", "x-gzip", "deflate")

    def feed(self, chunk: bytes) -> None:
        """Raises TooLong, or ValueError where it is not encoded as it says."""
        self._received += len(chunk)
        if self._received > self._limit:
            raise TooLong(self._received)
        self._data += self._unpacked(chunk) if self.unpacks else chunk
        if len(self._data) > self._limit:
            raise TooLong(len(self._data))

    def _unpacked(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        if self._unpacker is None:
            self._unpacker = zlib.decompressobj(_window(self._encoding, chunk))
        try:
            data: bytes = self._unpacker.decompress(chunk, self._limit - len(self._data) + 1)
        except zlib.error as error:
            raise ValueError(f"the body is not {self._encoding}") from error
        return data

    def data(self) -> bytes:
        """The whole body. Raises ValueError where it broke off."""
        if self._unpacker is not None and not self._unpacker.eof:
            raise ValueError(f"the {self._encoding} body broke off")
        return bytes(self._data)


def _window(encoding: str, first: bytes) -> int:
    """zlib's wbits. Servers send `deflate` with and without zlib's header."""
    if encoding != "deflate":
        return 16 + zlib.MAX_WBITS
    return zlib.MAX_WBITS if first[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS
