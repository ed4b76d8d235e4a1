"""Whether a package's key may speak for its publisher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loom_sdk.errors import ConfigError, PluginLoadError

from .archive import Archive
from .lock import Lock
from .signing import REVOCATION, SigningKey, fingerprint, heir, verify


def check_key(archive: Archive, lock: Lock) -> bool:
    """Whether the publisher is met for the first time.

    A pinned key speaks for its publisher, and so does the key that it handed over to, which the
    package then brings the statements for.

    Raises:
        PluginLoadError: the key is revoked, or another one is pinned to the publisher.
    """
    publisher = archive.id.partition("/")[0]
    pinned = lock.publishers.get(publisher)
    chain = heir(pinned, archive.rotations) if pinned else [archive.key]
    if archive.key in lock.revoked:
        raise PluginLoadError(
            f"{archive.id} is refused: its key {fingerprint(archive.key)} is revoked "
            f"({lock.revoked[archive.key]})"
        )
    if archive.key not in chain:
        raise PluginLoadError(
            f"{archive.id} is refused: it is signed by {fingerprint(archive.key)}, and "
            f"{fingerprint(pinned or '')} is pinned to {publisher}/; ask the publisher; if the new "
            f"key is theirs: `loom plugin trust {publisher} {archive.key}`"
        )
    for key in chain[: chain.index(archive.key)]:
        if key in lock.revoked:
            raise PluginLoadError(
                f"{archive.id} is refused: key {fingerprint(key)}, which handed over to the one "
                f"that signed it, is revoked ({lock.revoked[key]}); if you trust the new key: "
                f"`loom plugin trust {publisher} {archive.key}`"
            )
    return pinned is None


def revocation(key: SigningKey, reason: str) -> dict[str, str]:
    """A key's own statement that nobody may trust it any more."""
    return {
        "key": key.public,
        "reason": reason,
        "signature": key.sign(REVOCATION, reason.encode()),
    }


def take_revocations(lock: Lock, statements: Any, where: str) -> list[str]:
    """Note keys that revoked themselves; returns those that are new.

    Raises ConfigError where a statement is not signed by the key that it revokes.
    """
    new = []
    for statement in statements:
        if not _is_revocation(statement):
            raise ConfigError(f"{where}: a revocation is not signed by the key that it names")
        if statement["key"] not in lock.revoked:
            lock.revoked[statement["key"]] = statement["reason"]
            new.append(statement["key"])
    return new


def _is_revocation(statement: Any) -> bool:
    if not isinstance(statement, Mapping):
        return False
    fields = [statement.get(name) for name in ("key", "signature", "reason")]
    if not all(isinstance(field, str) for field in fields):
        return False
    key, signature, reason = map(str, fields)
    return verify(key, signature, REVOCATION, reason.encode())


def read_revocations(text: bytes, where: str) -> list[Any]:
    """The list in a file of revocations. Raises ConfigError."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is no JSON list of revocations") from error
    return found if isinstance(found, list) else [found]
