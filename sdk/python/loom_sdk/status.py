"""How an error crosses gRPC: an `ActionError` where one fits, else a status.

Nothing here imports grpc: a status is known by its name.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from ._proto import plugin_pb2 as pb
from .errors import (
    ActionFailed,
    CapabilityNotFound,
    DeadlineExceeded,
    ErrorInfo,
    InvalidArguments,
    LoomError,
    OutcomeUnknown,
    PermissionDenied,
    PluginError,
    PluginUnhealthy,
    QuotaExceeded,
    StorageError,
    decode,
    encode,
)

TOKEN_KEY = "loom-token"
"""Metadata key of the child's one-time token, in both directions."""
LONGEST_MESSAGE = 8192
"""Characters of an error's text that travel: it must fit a frame of 64 KiB with its details."""
ERROR_KEY = "loom-error-bin"
"""Trailing metadata key of a serialized `ActionError`."""

STATUS_ERRORS: dict[str, type[LoomError]] = {
    "OK": PluginError,
    "CANCELLED": PluginUnhealthy,
    "UNKNOWN": ActionFailed,
    "INVALID_ARGUMENT": InvalidArguments,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": CapabilityNotFound,
    "ALREADY_EXISTS": ActionFailed,
    "PERMISSION_DENIED": PermissionDenied,
    "RESOURCE_EXHAUSTED": QuotaExceeded,
    "FAILED_PRECONDITION": PluginError,
    "ABORTED": OutcomeUnknown,
    "OUT_OF_RANGE": InvalidArguments,
    "UNIMPLEMENTED": CapabilityNotFound,
    "INTERNAL": PluginError,
    "UNAVAILABLE": PluginUnhealthy,
    "DATA_LOSS": StorageError,
    "UNAUTHENTICATED": PermissionDenied,
}
"""What a bare gRPC status means when no `ActionError` came with it."""


def error_to_proto(error: BaseException) -> pb.ActionError:
    code, message, details = encode(error)
    clean = message[:LONGEST_MESSAGE].encode("utf-8", "replace").decode()
    return pb.ActionError(code=code, message=clean, details=details)


def error_from_proto(message: pb.ActionError) -> LoomError:
    return decode(ErrorInfo(message.code or "CAPABILITY_ERROR", message.message, message.details))


def error_from_status(status: str, text: str, trailing: Any = ()) -> LoomError:
    """The error behind a gRPC status name: the attached one, else by `STATUS_ERRORS`.

    Args:
        trailing: the call's trailing metadata, pairs of key and value.
    """
    if error_bin := dict(trailing or ()).get(ERROR_KEY, b""):
        try:
            return error_from_proto(pb.ActionError.FromString(error_bin))
        except DecodeError:
            text = f"{text}, with an ActionError that cannot be read"
    return STATUS_ERRORS.get(status, PluginError)(f"{text} (gRPC status {status})")
