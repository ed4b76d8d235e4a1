"""Where a plugin may send to: grants as rules, URLs as what they really name, addresses by kind.

A rule is written `[METHODS ]scheme://host[:port]`:

    https://api.example.com          that host, port 443, every method
    https://*.example.com:8443       every name below example.com, not itself
    GET,HEAD https://api.example.com only to read
    http://127.0.0.1:*               every port
    https://*                        every name; never a private address

A host that is not public is reached only where its very address, or `localhost`, is granted.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PORTS = {"http": 80, "https": 443}
MAX_URL = 8192

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_][a-z0-9_-]{0,62}(\.[a-z0-9_][a-z0-9_-]{0,62})*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_BRACKETS = re.compile(r"\[[^\]]*:[^\]]*\](:\d*)?")
_RULE = re.compile(r"(?:([A-Z]+(?:,[A-Z]+)*) )?(https?)://(\[[^\]/]*\]|[^:/\[\]]+)(?::(\d+|\*))?")
_SHUT_4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
_SHUT_6 = ("2001::/23", "2001:db8::/32", "3fff::/20")
"""IANA's special-purpose address registries, with multicast and reserved space; of IPv6 only
2000::/3 is given out at all."""
_CLOSED_4 = tuple(ipaddress.IPv4Network(text) for text in _SHUT_4)
_CLOSED_6 = tuple(ipaddress.IPv6Network(text) for text in _SHUT_6)
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http(s) URL, its host in the one form that it has."""

    scheme: str
    host: str
    """A name in lower case, or an address as `ipaddress` writes it."""
    port: int
    target: str
    """Path and query, as sent."""

    @property
    def origin(self) -> str:
        """`scheme://host[:port]`, the port only where it is not the usual one."""
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.authority}{port}"

    @property
    def authority(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_url(text: str) -> Url:
    """Raises ValueError, which does not repeat the URL: it may hold a secret."""
    if len(text) > MAX_URL:
        raise ValueError(f"it has {len(text)} characters, at most {MAX_URL} are sent")
    if any(ord(c) < 0x20 or c in "\x7f\\" for c in text):
        raise ValueError("it has a control character or a backslash in it: percent-encode it")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError("its host or port cannot be read") from error
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("give http(s)://host/...")
    if "@" in parts.netloc:
        raise ValueError("leave out the user: send an Authorization header")
    if "[" in parts.netloc and not _BRACKETS.fullmatch(parts.netloc):
        raise ValueError("brackets hold an IPv6 address and nothing else")
    if port == 0:
        raise ValueError("its port is no port")
    host = canonical_host(f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname)
    query = f"?{parts.query}" if parts.query else ""
    target = f"{parts.path or '/'}{query}"
    return Url(parts.scheme, host, port or PORTS[parts.scheme], target)


def canonical_host(text: str) -> str:
    """A name, or an address without brackets; an IPv4 address within IPv6 as IPv4.

    Raises ValueError for what resolvers read in more than one way: decimal, octal, hexadecimal and
    shortened addresses, zones, letters beyond ASCII.
    """
    if text.startswith("["):
        try:
            found = ipaddress.IPv6Address(text.strip("[]") if "%" not in text else "zone")
        except ValueError as error:
            raise ValueError("what stands in brackets is no IPv6 address without zone") from error
        return str(plain(found))
    name = text.lower().removesuffix(".")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError as error:
            raise ValueError("write an address as four decimal numbers") from error
    if not _NAME.fullmatch(name):
        raise ValueError("its host is no ASCII name: write an international one as xn--...")
    return name


@dataclass(frozen=True, slots=True)
class Rule:
    """One grant, or one request: methods (empty for all), scheme, host and port (0 for all)."""

    methods: frozenset[str]
    scheme: str
    """Empty for both."""
    host: str
    port: int

    @property
    def by_itself(self) -> bool:
        """Whether it names one host."""
        return not self.host.startswith("*")

    def covers(self, other: Rule, inward: bool = False) -> bool:
        """Whether all that `other` allows is allowed by this.

        Args:
            inward: a `*` covers private addresses and `localhost`, too: it may be narrowed to them.
        """
        methods = not self.methods or (bool(other.methods) and other.methods <= self.methods)
        scheme = not self.scheme or self.scheme == other.scheme
        fits = methods and scheme and self.port in (0, other.port)
        return fits and self._covers_host(other.host, inward)

    def _covers_host(self, host: str, inward: bool) -> bool:
        if self.host == host:
            return True
        if self.host == "*":
            return inward or not _is_inward(host)
        below = self.host.startswith("*.") and not is_literal(host)
        return below and host.endswith(self.host[1:])


@lru_cache(4096)
def parse_rule(text: str) -> Rule:
    """Raises ValueError that says how to write it."""
    if text == "*":
        return Rule(frozenset(), "", "*", 0)
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no rule: write it like 'https://api.example.com' or {_HOW}")
    named, scheme, host, port = match.groups()
    methods = frozenset(named.split(",") if named else ())
    if unknown := sorted(methods - set(METHODS)):
        raise ValueError(f"{text!r}: {', '.join(unknown)} is none of {', '.join(METHODS)}")
    number = PORTS[scheme] if port is None else 0 if port == "*" else int(port)
    if port not in (None, "*") and not 0 < number < 1 << 16:
        raise ValueError(f"{text!r}: port {port} is none")
    try:
        return Rule(methods, scheme, _host_pattern(host), number)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error


_HOW = "'GET https://*.example.com:8443'; a port may be *"


def _host_pattern(text: str) -> str:
    if text == "*":
        return text
    if text.startswith("*."):
        name = canonical_host(text[2:])
        if is_literal(name):
            raise ValueError("an address has no names below it")
        return f"*.{name}"
    return canonical_host(text)


def request_rule(method: str, url: Url, host: str = "") -> Rule:
    """What a rule must cover for a request, or for one to another host."""
    return Rule(frozenset((method,)), url.scheme, host or url.host, url.port)


def covers(pattern: str, value: str, inward: bool = False) -> bool:
    """Whether one rule covers another, see `Rule.covers`; False where either is none."""
    try:
        return parse_rule(pattern).covers(parse_rule(value), inward)
    except ValueError:
        return False


def _is_inward(host: str) -> bool:
    if is_literal(host):
        return not is_public(ipaddress.ip_address(host))
    return host == "localhost"


def is_literal(host: str) -> bool:
    """Whether a canonical host is an address."""
    return ":" in host or host.replace(".", "").isdigit()


def plain(address: Address) -> Address:
    """The address that is meant: IPv4 for one that is written within IPv6 (`::ffff:10.0.0.1`)."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet; one that carries an IPv4 address (mapped,
    NAT64, 6to4) is what that one is.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    return address in _GIVEN_OUT and not any(address in network for network in _CLOSED_6)
