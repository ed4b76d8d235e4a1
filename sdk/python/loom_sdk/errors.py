"""Every error that Loom raises, in one tree, with the one table that maps them to the wire.

LoomError
  ConfigError  ManifestError  ModelMissing
  PluginError(plugin_id)
    PluginLoadError  PluginCrashed  PluginUnhealthy  ProtocolMismatch
    PermissionDenied(permission)  QuotaExceeded(quota, limit, used)  DeadlineExceeded
  CapabilityError
    CapabilityNotFound  InvalidArguments  ActionFailed(code)  NoProvider  OutcomeUnknown
  BusError  StorageError
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class LoomError(Exception):
    """Root of the tree."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def details(self) -> dict[str, Any]:
        """What, beside the message, must survive the wire."""
        return {}


class ConfigError(LoomError):
    """`loom.toml` or the environment is wrong; the message names the key and the fix."""


class ManifestError(LoomError):
    """A `plugin.toml` is wrong; the message names the file, the key and the fix."""


class ModelMissing(LoomError):
    """A model file is not on this machine; the message names the pull command."""


class PluginError(LoomError):
    """Something about one plugin."""

    def __init__(self, message: str = "", *, plugin_id: str = "") -> None:
        super().__init__(message)
        self.plugin_id = plugin_id

    def details(self) -> dict[str, Any]:
        return {"plugin_id": self.plugin_id}


class PluginLoadError(PluginError):
    """The plugin's code could not be loaded or did not start."""


class PluginCrashed(PluginError):
    """The plugin's process or instance ended while it was needed."""


class PluginUnhealthy(PluginError):
    """The plugin is not ready to serve: stopped, failed, or failing its health checks."""


class ProtocolMismatch(PluginError):
    """Host and plugin share no version of the contract."""


class PermissionDenied(PluginError):
    """The plugin lacks a grant; the message names the line that would allow it."""

    def __init__(self, message: str = "", *, plugin_id: str = "", permission: str = "") -> None:
        super().__init__(message, plugin_id=plugin_id)
        self.permission = permission

    def details(self) -> dict[str, Any]:
        return {"plugin_id": self.plugin_id, "permission": self.permission}


class QuotaExceeded(PluginError):
    """A limit was hit: `used` is what was measured against `limit`, in the quota's own unit."""

    def __init__(
        self,
        message: str = "",
        *,
        plugin_id: str = "",
        quota: str = "",
        limit: float = 0,
        used: float = 0,
    ) -> None:
        text = message or f"{plugin_id}: quota {quota} exceeded (limit {limit}, used {used})"
        super().__init__(text, plugin_id=plugin_id)
        self.quota, self.limit, self.used = quota, limit, used

    def details(self) -> dict[str, Any]:
        return {
            "plugin_id": self.plugin_id,
            "quota": self.quota,
            "limit": self.limit,
            "used": self.used,
        }


class DeadlineExceeded(PluginError):
    """The call did not end within its time."""


class CapabilityError(LoomError):
    """Something about one invocation."""


class CapabilityNotFound(CapabilityError):
    """Nobody offers the capability."""


class InvalidArguments(CapabilityError):
    """The arguments do not fit the capability's schema, or the idempotency id was reused."""


class ActionFailed(CapabilityError):
    """The plugin's own code failed; `code` is the plugin's, CAPABILITY_ERROR by default.

    `data` is what the plugin says of the failure beside the message: any JSON value. It is lost on
    the way to another process where it is longer than `MAX_DATA`.
    """

    def __init__(
        self, message: str = "", *, code: str = "CAPABILITY_ERROR", data: Any = None
    ) -> None:
        super().__init__(message)
        self.code, self.data = code, data

    def details(self) -> dict[str, Any]:
        return {} if self.data is None else {"data": self.data}


class NoProvider(CapabilityError):
    """Providers exist, but none may or can serve this call; the message lists why."""


class OutcomeUnknown(CapabilityError):
    """A call with effects `once` broke off: it may or may not have happened."""


class BusError(LoomError):
    """A topic or a subscription is malformed, or the bus is closed."""


class StorageError(LoomError):
    """The store refused or failed."""


class Mapping(NamedTuple):
    """One row of the error table."""

    code: str
    status: str
    """Name of the `ActionStatus`."""
    grpc: str
    """Name of the gRPC status code."""
    retryable: bool


TABLE: dict[type[LoomError], Mapping] = {
    ConfigError: Mapping("CONFIG_ERROR", "ACTION_ERROR", "FAILED_PRECONDITION", False),
    ManifestError: Mapping("MANIFEST_ERROR", "ACTION_ERROR", "FAILED_PRECONDITION", False),
    ModelMissing: Mapping("MODEL_MISSING", "ACTION_ERROR", "FAILED_PRECONDITION", False),
    PluginError: Mapping("PLUGIN_ERROR", "ACTION_ERROR", "INTERNAL", False),
    PluginLoadError: Mapping("PLUGIN_LOAD_ERROR", "ACTION_ERROR", "FAILED_PRECONDITION", False),
    PluginCrashed: Mapping("PLUGIN_CRASHED", "ACTION_RETRYABLE", "UNAVAILABLE", True),
    PluginUnhealthy: Mapping("PLUGIN_UNHEALTHY", "ACTION_RETRYABLE", "UNAVAILABLE", True),
    ProtocolMismatch: Mapping("PROTOCOL_MISMATCH", "ACTION_ERROR", "FAILED_PRECONDITION", False),
    PermissionDenied: Mapping("PERMISSION_DENIED", "ACTION_ERROR", "PERMISSION_DENIED", False),
    QuotaExceeded: Mapping("QUOTA_EXCEEDED", "ACTION_ERROR", "RESOURCE_EXHAUSTED", False),
    DeadlineExceeded: Mapping("DEADLINE_EXCEEDED", "ACTION_TIMEOUT", "DEADLINE_EXCEEDED", False),
    CapabilityError: Mapping("CAPABILITY_ERROR", "ACTION_ERROR", "UNKNOWN", False),
    CapabilityNotFound: Mapping("CAPABILITY_NOT_FOUND", "ACTION_ERROR", "NOT_FOUND", False),
    InvalidArguments: Mapping("INVALID_ARGUMENTS", "ACTION_ERROR", "INVALID_ARGUMENT", False),
    ActionFailed: Mapping("CAPABILITY_ERROR", "ACTION_ERROR", "UNKNOWN", False),
    NoProvider: Mapping("NO_PROVIDER", "ACTION_RETRYABLE", "UNAVAILABLE", True),
    OutcomeUnknown: Mapping("OUTCOME_UNKNOWN", "ACTION_ERROR", "ABORTED", False),
    BusError: Mapping("BUS_ERROR", "ACTION_ERROR", "INVALID_ARGUMENT", False),
    StorageError: Mapping("STORAGE_ERROR", "ACTION_ERROR", "DATA_LOSS", False),
    LoomError: Mapping("LOOM_ERROR", "ACTION_ERROR", "UNKNOWN", False),
}
_BY_CODE = {row.code: kind for kind, row in TABLE.items() if kind is not CapabilityError}


MAX_DATA = 16_384
"""Longest `ActionFailed.data` in JSON text that travels: an error must fit a frame of 64 KiB."""


class ErrorInfo(NamedTuple):
    """An error as it travels: `ActionError` of the proto, `action-error` of the WIT."""

    code: str
    message: str
    details: str
    """JSON object."""


def mapping_of(error: BaseException) -> Mapping:
    """The row of the nearest class in the tree; foreign errors count as a failed action."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return TABLE[ActionFailed]


def encode(error: BaseException) -> ErrorInfo:
    """Any exception as it travels. A foreign one becomes CAPABILITY_ERROR with its class named."""
    if isinstance(error, ActionFailed):
        return ErrorInfo(error.code, error.message, _data_text(error))
    if isinstance(error, LoomError):
        return ErrorInfo(mapping_of(error).code, error.message, json.dumps(error.details()))
    return ErrorInfo("CAPABILITY_ERROR", f"{type(error).__name__}: {error}", "{}")


def _data_text(error: ActionFailed) -> str:
    """The details of a plugin's own failure; none where they are not JSON or too long to travel."""
    try:
        text = json.dumps(error.details())
    except (TypeError, ValueError, RecursionError):
        return "{}"
    return text if len(text) <= MAX_DATA else "{}"


def with_code(code: str, message: str) -> str:
    """A message for people: a code that is the plugin's own stands before it."""
    return message if not code or code in _BY_CODE else f"{code}: {message}"


def told(error: BaseException) -> str:
    """The error for people: its message, after its code where that is the plugin's own."""
    return with_code(str(getattr(error, "code", "")), encode(error).message)


def decode(info: ErrorInfo) -> LoomError:
    """The reverse of `encode`; a code that is not in the table is the plugin's own."""
    kind = _BY_CODE.get(info.code, ActionFailed)
    if kind is ActionFailed:
        return ActionFailed(info.message, code=info.code, data=_details_of(info).get("data"))
    details = _details_of(info)
    if kind is QuotaExceeded:
        return QuotaExceeded(
            info.message,
            plugin_id=str(details.get("plugin_id", "")),
            quota=str(details.get("quota", "")),
            limit=_number(details.get("limit")),
            used=_number(details.get("used")),
        )
    if kind is PermissionDenied:
        return PermissionDenied(
            info.message,
            plugin_id=str(details.get("plugin_id", "")),
            permission=str(details.get("permission", "")),
        )
    if issubclass(kind, PluginError):
        return kind(info.message, plugin_id=str(details.get("plugin_id", "")))
    return kind(info.message)


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0


def _details_of(info: ErrorInfo) -> dict[str, Any]:
    try:
        details = json.loads(info.details or "{}")
    except (ValueError, RecursionError):
        return {}
    return details if isinstance(details, dict) else {}
