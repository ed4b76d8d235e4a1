"""The border to grpcio: what it raises becomes a LoomError, and the reverse, here only."""

from __future__ import annotations

import re

import grpc

from loom_sdk.errors import LoomError, PluginError, PluginUnhealthy, QuotaExceeded, mapping_of
from loom_sdk.status import ERROR_KEY, STATUS_ERRORS, error_from_status, error_to_proto

_TOO_LARGE = re.compile(r"[Mm]essage larger than max \((\d+) vs\. \d+\)")

STATUSES: dict[grpc.StatusCode, type[LoomError]] = {
    code: STATUS_ERRORS[code.name] for code in grpc.StatusCode if code.name in STATUS_ERRORS
}
"""What each status of a plugin means when no `ActionError` came with it."""


def from_grpc(error: BaseException, plugin_id: str, output_bytes: int = 0) -> LoomError:
    """What a failed call to a plugin means.

    Args:
        output_bytes: the quota, for the message when gRPC refused an answer for its size.
    """
    if not isinstance(error, grpc.aio.AioRpcError):
        return PluginUnhealthy(f"{plugin_id}: no connection ({error})", plugin_id=plugin_id)
    code, text = error.code(), error.details() or "no details"
    large = _TOO_LARGE.search(text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and large is not None:
        return output_exceeded(plugin_id, output_bytes, int(large.group(1)))
    trailing = error.trailing_metadata()
    translated = error_from_status(code.name, f"{plugin_id}: {text}", trailing)
    if isinstance(translated, PluginError):
        translated.plugin_id = translated.plugin_id or plugin_id
    return translated


def output_exceeded(plugin_id: str, limit: int, used: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"{plugin_id}: an answer of {used} bytes is over quota output_bytes ({limit}): "
        "answer in less, or raise the quota in loom.toml",
        plugin_id=plugin_id,
        quota="output_bytes",
        limit=limit,
        used=used,
    )


def to_status(error: BaseException) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Status, text and trailing metadata of a refusal of `service Host`."""
    message = error_to_proto(error)
    code = grpc.StatusCode[mapping_of(error).grpc]
    return code, message.message, ((ERROR_KEY, message.SerializeToString()),)
