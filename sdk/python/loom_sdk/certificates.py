"""PEM files of mutual TLS, read and checked: what is wrong is said before a handshake fails.

Pure standard library. Of a certificate no more is decoded here than its dates (RFC 5280, 4.1).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .errors import ConfigError

_END = b"-----END CERTIFICATE-----"
_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0
"""Tags of DER."""


@dataclass(frozen=True, slots=True)
class Pems:
    """The contents of the three files."""

    ca: bytes
    cert: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Who is trusted (`ca`), and who one is (`cert`, the leaf first, and its `key`)."""

    ca: Path
    cert: Path
    key: Path

    def read(self) -> Pems:
        """Raises ConfigError, which names the file and what to do."""
        pems = Pems(_content(self.ca, "ca"), _content(self.cert, "cert"), _content(self.key, "key"))
        _check_ca(self.ca, pems.ca)
        check_dates(self.cert, pems.cert)
        self._check_pair()
        return pems

    def expires(self) -> datetime:
        """When `cert` ends. Raises ConfigError."""
        return _dates(self.cert, _content(self.cert, "cert"))[1]

    def _check_pair(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigError(
                    f"tls: {self.key} is not the key of {self.cert}: name the two files that were "
                    "made together"
                ) from error
            raise ConfigError(
                f"tls: {self.key} is no private key in PEM without a passphrase: convert it, such "
                "as by `openssl pkey`"
            ) from error


def check_dates(path: Path, pem: bytes) -> None:
    """Raises ConfigError where the first certificate of `pem` is not valid today."""
    first, last = _dates(path, pem)
    now = datetime.now(UTC)
    if now > last:
        raise ConfigError(f"tls: {path} expired on {last:%Y-%m-%d %H:%M} UTC: renew it")
    if now < first:
        raise ConfigError(
            f"tls: {path} is valid from {first:%Y-%m-%d %H:%M} UTC: wait, or set this machine's "
            "clock"
        )


def validity(pem: bytes) -> tuple[datetime, datetime]:
    """First and last moment of the first certificate of `pem`. Raises ValueError."""
    text = pem[: pem.find(_END) + len(_END)].decode("ascii", "replace")
    der = ssl.PEM_cert_to_DER_cert(text[text.find(ssl.PEM_HEADER) :])
    try:
        certificate = _children(der, *_element(der, 0)[1:])
        fields = _children(der, *certificate[0][1:])
        at = 4 if fields[0][0] == _VERSION else 3  # serial, algorithm, issuer come before
        first, last = _children(der, *fields[at][1:])
        return _moment(der, *first), _moment(der, *last)
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not a certificate") from error


def _content(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"tls: {path}: {error.strerror}: put the file there, or correct `{key}`"
        ) from error


def _check_ca(path: Path, pem: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"tls: {path} holds no certificate in PEM: give that of the CA which signs the other "
            "side's"
        ) from error


def _dates(path: Path, pem: bytes) -> tuple[datetime, datetime]:
    try:
        return validity(pem)
    except ValueError as error:
        raise ConfigError(f"tls: {path} holds no certificate in PEM: write it anew") from error


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, begin and end of the content at `at`."""
    tag, size = data[at], data[at + 1]
    begin = at + 2
    if size & 0x80:
        count = size & 0x7F
        size = int.from_bytes(data[begin : begin + count], "big")
        begin += count
    if begin + size > len(data):
        raise IndexError
    return tag, begin, begin + size


def _children(data: bytes, begin: int, end: int) -> list[tuple[int, int, int]]:
    found = []
    while begin < end:
        found.append(_element(data, begin))
        begin = found[-1][2]
    return found


def _moment(data: bytes, tag: int, begin: int, end: int) -> datetime:
    text = data[begin:end].decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year, from 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a date")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
