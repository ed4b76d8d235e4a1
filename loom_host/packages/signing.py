"""Ed25519 keys of publishers, what they sign, and how one key hands over to the next.

Every signature is over a line that names what it is for and then the data, so that one kind of
statement can never be shown as another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loom_sdk.errors import ConfigError, PluginLoadError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PACKAGE = b"loom package v1\n"
ROTATION = b"loom key rotation v1\n"
REVOCATION = b"loom key revocation v1\n"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
"""RFC 8032, section 5.1."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """`old` says that `new` signs for it from now on."""

    old: str
    new: str
    signature: str
    """By `old`."""


class SigningKey:
    """A private key; its file holds 32 bytes as base64, readable by its owner alone."""

    def __init__(self, secret: Ed25519PrivateKey) -> None:
        self._secret = secret

    @classmethod
    def create(cls, path: Path) -> SigningKey:
        """A new key in a new file of mode 0600. Raises ConfigError where there is one already."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.generate()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise ConfigError(f"{path} is there already: a lost key cannot be had back") from error
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(key.private_bytes_raw()) + b"\n")
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Raises ConfigError: missing, readable by others, or no key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            mode, text = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"no signing key at {path} ({error.strerror}): `loom plugin key new` makes one"
            ) from error
        if mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=False)))
        except (ValueError, binascii.Error) as error:
            raise ConfigError(f"{path} holds no Ed25519 key of 32 bytes in base64") from error

    @property
    def public(self) -> str:
        """The public key, base64."""
        return base64.b64encode(self._secret.public_key().public_bytes_raw()).decode()

    def sign(self, purpose: bytes, data: bytes) -> str:
        """The signature, base64."""
        return base64.b64encode(self._secret.sign(purpose + data)).decode()

    def hand_over(self, new: str) -> Rotation:
        """The statement that `new` signs for this key from now on."""
        return Rotation(self.public, new, self.sign(ROTATION, new.encode()))


def verify(public: str, signature: str, purpose: bytes, data: bytes) -> bool:
    """Whether `signature` is `public`'s over `purpose` and `data`; texts that are none are not."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(_decoded(public, KEY_BYTES))
        key.verify(_decoded(signature, SIGNATURE_BYTES), purpose + data)
    except (ValueError, InvalidSignature):
        return False
    return True


def heir(pinned: str, rotations: Sequence[Rotation]) -> list[str]:
    """The keys that speak for `pinned`: itself, then each that the one before handed over to.

    Raises PluginLoadError where a statement is not signed by the key that it hands over from.
    """
    chain = [pinned]
    for step in rotations:
        if step.old != chain[-1]:
            continue
        if not verify(step.old, step.signature, ROTATION, step.new.encode()):
            raise PluginLoadError(
                f"the change of key from {fingerprint(step.old)} to {fingerprint(step.new)} is "
                "not signed by the old key"
            )
        if step.new in chain:
            break
        chain.append(step.new)
    return chain


def fingerprint(public: str) -> str:
    """A key in a form to read aloud: 16 hexadecimal digits of its SHA-256 in groups of four."""
    digest = hashlib.sha256(public.encode()).hexdigest()[:16]
    return "-".join(digest[i : i + 4] for i in range(0, 16, 4))


def _decoded(text: str, length: int) -> bytes:
    data = base64.b64decode(text, validate=True)
    if len(data) != length or base64.b64encode(data).decode() != text:
        raise ValueError(f"not {length} bytes in base64")
    return data
