"""The tables [storage] and [event_log] of `loom.toml` -> their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_sdk.errors import BusError, ConfigError
from loom_sdk.topics import check_pattern

from .quotas import parse_size
from .settings import EventLogSettings, StorageSettings
from .tables import typed


def storage_of(table: Mapping[str, Any], where: str) -> StorageSettings:
    """Raises ConfigError."""
    return StorageSettings(**typed(StorageSettings, table, f"{where} [storage]"))


def event_log_of(table: Mapping[str, Any], where: str) -> EventLogSettings:
    """Raises ConfigError: a pattern is malformed, or a limit is no number or size."""
    place = f"{where} [event_log]"
    size = table.get("max_bytes", EventLogSettings().max_bytes)
    try:
        table = {**table, "max_bytes": parse_size(size)}
    except ValueError as error:
        raise ConfigError(f"{place} max_bytes: {error}") from error
    settings = EventLogSettings(**typed(EventLogSettings, table, place))
    for pattern in settings.topics:
        try:
            check_pattern(pattern)
        except BusError as error:
            raise ConfigError(f"{place} topics: {error}") from error
    return settings
