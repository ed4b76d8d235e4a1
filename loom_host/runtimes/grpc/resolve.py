"""From the names of an endpoint to the addresses of its replicas."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loom_host.endpoint import Endpoint, Target

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Name and port to literal addresses. Raises OSError where there is none."""


class Unresolved(Exception):
    """The message says what was asked and what came of it."""


@dataclass(frozen=True, slots=True)
class Address:
    """One replica: a literal address, and the name that its certificate must bear."""

    target: Target
    name: str

    def __str__(self) -> str:
        return str(self.target)

    @property
    def uri(self) -> str:
        """As gRPC takes it, with nothing left to resolve."""
        return f"{'ipv6' if ':' in self.target.host else 'ipv4'}:{self.target}"


async def lookup(host: str, port: int) -> list[str]:
    """By the event loop's resolver, as every program of this machine would.

    A machine with addresses of both families is one replica, not two: where a name has any of
    IPv4, those are taken.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    texts = list(dict.fromkeys(str(item[4][0]) for item in found))
    return [text for text in texts if ":" not in text] or texts


async def addresses(endpoint: Endpoint, resolve: Resolve) -> list[Address]:
    """Every replica of an endpoint, each once. Raises Unresolved."""
    found: dict[Target, Address] = {}
    for target in endpoint.targets:
        name = (endpoint.tls_name or target.host).rstrip(".")
        for text in [target.host] if target.literal else await _resolved(target, resolve):
            place = Target(text, target.port)
            if endpoint.tls is None and not place.loopback:
                raise Unresolved(f"{target} is {text}, not on this machine: insecure is refused")
            found[place] = Address(place, name)
    return list(found.values())


async def _resolved(target: Target, resolve: Resolve) -> list[str]:
    try:
        texts = await resolve(target.host, target.port)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise Unresolved(f"the name {target.host} is not found ({why})") from error
    if not texts:
        raise Unresolved(f"the name {target.host} has no address")
    return [str(ipaddress.ip_address(text)) for text in texts]
