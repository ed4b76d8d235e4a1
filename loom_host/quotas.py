"""Limits of a plugin: what the manifest asks, what the operator sets, what the default is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .hints import did_you_mean

_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
_UNITS |= {"KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}
_SIZES = ("memory", "output_bytes", "log_bytes", "storage_bytes", "file_size", "folder_bytes")


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits in their base units; 0 means none where that is allowed."""

    memory: int = 256 * 1024**2
    """Bytes."""
    cpu: float = 0.0
    """Seconds of processor time per call; 0: no limit beside the deadline."""
    deadline_ms: int = 30_000
    """Longest time of one call or event handler."""
    concurrency: int = 1
    """Calls and events at once; more wait within their deadline."""
    rate: float = 0.0
    """Calls per second, 0: no limit."""
    output_bytes: int = 16 * 1024**2
    """Largest result or sum of streamed items of one call, JSON and payload together."""
    log_bytes: int = 1024**2
    """Log text per minute."""
    storage_bytes: int = 16 * 1024**2
    processes: int = 64
    """Threads count."""
    open_files: int = 1024
    file_size: int = 64 * 1024**2
    """Largest file that it may write, in bytes."""
    folder_bytes: int = 64 * 1024**2
    """Bytes of files in each folder that it may write."""
    cpu_share: float = 0.0
    """Processors that it may keep busy, 0: all."""
    publish_rate: float = 1000.0
    """Events that it may publish in a second, 0: no limit."""
    host_calls: float = 20_000.0
    """Requests to the host in a second, of whatever kind, 0: no limit."""
    host_calls_per_call: int = 100_000
    """Requests to the host by one call or event handler, 0: no limit."""
    log_rate: float = 1000.0
    """Log lines in a second, 0: no limit."""
    fuel: int = 0
    """Instructions of a wasm guest per call; 0: not metered, which runs up to 1.8 times as fast."""
    tables: int = 100_000
    """Elements of each table of a wasm guest."""


HELD_BY_HOST = (
    "concurrency", "rate", "output_bytes", "log_bytes", "log_rate", "storage_bytes",
    "publish_rate", "host_calls", "host_calls_per_call",
)  # fmt: skip
"""Quotas that the host holds every tier to, whatever the plugin's isolation."""


def parse_size(value: Any) -> int:
    """Bytes of `64`, `"64MiB"` or `"64 MB"`. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", value) if isinstance(value, str) else None
    if match is None or match.group(2).upper() not in _UNITS:
        raise ValueError(f"{value!r} is not a size: use bytes or text such as '64MiB'")
    return int(match.group(1)) * _UNITS[match.group(2).upper()]


def parse_quotas(table: Mapping[str, Any], base: Quotas | None = None) -> Quotas:
    """`base` with the table's keys changed. Raises ValueError that names the key and the fix."""
    known = {item.name: item for item in fields(Quotas)}
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            hint = did_you_mean(key, known, f"known: {', '.join(known)}")
            raise ValueError(f"unknown quota {key!r}: {hint}")
        changes[key] = parse_size(value) if key in _SIZES else _number(key, value)
    return replace(base or Quotas(), **changes)


def tightest(asked: Quotas, ceiling: Mapping[str, Any]) -> Quotas:
    """What the manifest asks, overruled key by key by what the operator wrote."""
    return parse_quotas(ceiling, asked)


def _number(key: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise ValueError(f"quota {key} must be a finite number of at least 0, not {value!r}")
    if key in ("cpu", "rate", "cpu_share", "publish_rate", "host_calls", "log_rate"):
        return float(value)
    if key in ("concurrency", "deadline_ms", "open_files") and value < 1:
        raise ValueError(f"quota {key} must be at least 1, not {value!r}")
    return int(value)
