"""Where a remote plugin is: `address`, `tls` and what else `[plugins.NAME]` says of it, checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_sdk.certificates import TlsFiles
from loom_sdk.errors import ConfigError

from .tables import check_keys

FORMS = "write dns:///NAME:PORT, NAME:PORT, ipv4:ADDRESS:PORT,... or ipv6:[ADDRESS]:PORT,..."
TLS_KEYS = ("ca", "cert", "key", "name")
_OF_CHILDREN = ("path", "isolation", "sandbox", "folders", "trusted", "code")
_NAME = re.compile(
    r"(?=.{1,253}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,62})\.)*[A-Za-z0-9_][A-Za-z0-9_-]*\.?"
)
_PORTED = re.compile(r"(\[[^\[\]]+\]|[^\[\]:,/]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Target:
    """A name or a literal address, and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def literal(self) -> bool:
        return _ip(self.host) is not None

    @property
    def loopback(self) -> bool:
        ip = _ip(self.host)
        return self.host == "localhost" if ip is None else ip.is_loopback


@dataclass(frozen=True, slots=True)
class Endpoint:
    """All that is needed to reach a remote plugin."""

    address: str
    """As the operator wrote it."""
    targets: tuple[Target, ...]
    tls: TlsFiles | None = None
    """None: plaintext, on loopback only."""
    tls_name: str = ""
    """The name that its certificates bear; empty for that of the target."""
    keepalive_s: float = 10.0
    """A replica that answers nothing for so long is lost."""


def parse_address(text: str) -> tuple[Target, ...]:
    """Raises ValueError, which says how to write it."""
    scheme, _, rest = text.partition(":")
    if scheme in ("ipv4", "ipv6"):
        targets = tuple(_target(part, text) for part in rest.split(","))
        version = int(scheme[-1])
        for target in targets:
            ip = _ip(target.host)
            if ip is None or ip.version != version:
                raise ValueError(f"{target.host!r} is no {scheme} address: {FORMS}")
        if len(set(targets)) < len(targets):
            raise ValueError("it names an address twice")
        return targets
    if scheme == "dns":
        if rest.startswith("//") and not rest.startswith("///"):
            raise ValueError("names are resolved by this machine: write dns:///NAME:PORT")
        return (_target(rest.removeprefix("///"), text),)
    return (_target(text, text),)


def endpoint_of(
    address: str, tls: Mapping[str, str], insecure: bool, keepalive_s: float
) -> Endpoint:
    """Checks the keys of `[plugins.NAME]` together.

    Raises:
        ValueError: the message begins with the key, and says what to write.
    """
    try:
        targets = parse_address(address)
    except ValueError as error:
        raise ValueError(f"address = {address!r}: {error}") from error
    if not keepalive_s:
        raise ValueError(
            "keepalive_s = 0: a lost replica would never be noticed; the default is 10"
        )
    if insecure:
        _check_insecure(targets, tls)
        return Endpoint(address, targets, keepalive_s=keepalive_s)
    return Endpoint(address, targets, _files(tls), tls.get("name", ""), keepalive_s)


def tls_table(table: Mapping[str, Any], base: Path, where: str) -> dict[str, str]:
    """The table with absolute paths. Raises ConfigError."""
    check_keys(table, TLS_KEYS, where)
    for key, value in table.items():
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{where} {key} = {value!r}: must be a text")
    files = {key: table[key] for key in TLS_KEYS[:3] if key in table}
    paths = {key: str((base / Path(text).expanduser()).resolve()) for key, text in files.items()}
    return {**table, **paths}


def check_remote(table: Mapping[str, Any], tls: Mapping[str, str], place: str) -> None:
    """What `[plugins.NAME]` says of an address, and beside it. Raises ConfigError."""
    if not table.get("address"):
        for key in ("tls", "insecure", "keepalive_s"):
            if key in table:
                raise ConfigError(f"{place} {key}: is for a plugin with an `address`")
        return
    for key in _OF_CHILDREN:
        if table.get(key):
            raise ConfigError(
                f"{place} {key}: has no meaning beside `address`, where this host starts nothing: "
                "remove one of the two"
            )
    try:
        endpoint_of(
            table["address"], tls, table.get("insecure", False), table.get("keepalive_s", 10.0)
        )
    except ValueError as error:
        raise ConfigError(f"{place} {error}") from error


def _check_insecure(targets: tuple[Target, ...], tls: Mapping[str, str]) -> None:
    if tls:
        raise ValueError("insecure = true beside `tls`: remove one of the two")
    for target in targets:
        if not target.loopback:
            raise ValueError(
                f"insecure = true: {target} is not on this machine; plaintext is for 127.0.0.1, "
                "::1 and localhost: write tls = { ca = ..., cert = ..., key = ... }"
            )


def _files(tls: Mapping[str, str]) -> TlsFiles:
    missing = [key for key in TLS_KEYS[:3] if not tls.get(key)]
    if missing:
        raise ValueError(
            f"tls: {', '.join(missing)} is missing: host and plugin prove to each other who they "
            'are, by tls = { ca = "ca.pem", cert = "host.pem", key = "host.key" }; for a test on '
            "this machine alone write insecure = true"
        )
    return TlsFiles(*(Path(tls[name]) for name in TLS_KEYS[:3]))


def _target(part: str, whole: str) -> Target:
    match = _PORTED.fullmatch(part)
    if match is None:
        raise ValueError(f"{part or whole!r} is no NAME:PORT: {FORMS}")
    host, port = match[1].strip("[]"), int(match[2])
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not from 1 to 65535")
    if match[1].startswith("[") != (":" in host) or (_ip(host) is None and ":" in host):
        raise ValueError(f"{match[1]!r} is no address: {FORMS}")
    if _ip(host) is None and (_NAME.fullmatch(host) is None or host.replace(".", "").isdecimal()):
        raise ValueError(f"{host!r} is no name of a machine: {FORMS}")
    return Target(host, port)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
