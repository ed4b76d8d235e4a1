"""What `loom check` says of plugins at an address: their certificates, what is not held there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from loom_host.handle import PluginHandle
from loom_sdk.errors import LoomError

SOON = timedelta(days=14)
"""A certificate that ends within is told of."""


def remote_findings(
    handles: Iterable[PluginHandle], *, require_enforced: bool
) -> Iterator[tuple[str, str, str, str]]:
    """(level, subject, message, what to do). Connects to nobody."""
    for handle in handles:
        if (remote := handle.spec.remote) is None:
            continue
        level = "error" if require_enforced else "note"
        message = f"runs at {remote.address}: this host cannot hold it to quotas of its machine"
        yield level, handle.name, message, "limit it where it runs, such as by its container"
        if remote.tls is None:
            message = "insecure = true: plaintext to this machine, anybody on it can listen there"
            yield "note", handle.name, message, "tls = { ca = ..., cert = ..., key = ... }"
        else:
            yield from _certificates(handle)


def _certificates(handle: PluginHandle) -> Iterator[tuple[str, str, str, str]]:
    assert handle.spec.remote is not None
    files = handle.spec.remote.tls
    assert files is not None
    try:
        files.read()
        ends = files.expires()
    except LoomError as error:
        yield "error", handle.name, error.message, f"correct tls under [plugins.{handle.name}]"
        return
    if ends - datetime.now(UTC) < SOON:
        message = f"tls: {files.cert} expires on {ends:%Y-%m-%d %H:%M} UTC"
        yield "note", handle.name, message, "renew it; it is read again at the next connection"
