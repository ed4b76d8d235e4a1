"""Quotas in which the probe has room for all but what is being tried."""

from __future__ import annotations

from typing import Any

from loom_host.manifest import Manifest

MIB = 1024**2
LEAST_MEMORY = {"native": 0, "wasm": 64 * MIB, "grpc": 192 * MIB}
"""The probe is Python: so much a guest, or a child with its libraries, takes to live."""
_UNLIMITED = (
    "rate", "cpu", "publish_rate", "host_calls", "host_calls_per_call", "log_rate", "fuel",
    "cpu_share",
)  # fmt: skip


def roomy(manifest: Manifest, tier: str) -> dict[str, Any]:
    """Of the manifest's quotas only those that its process is made with, and none too tight."""
    own = manifest.quotas
    return dict.fromkeys(_UNLIMITED, 0) | {
        "memory": max(own.memory, LEAST_MEMORY[tier]),
        "deadline_ms": 20_000,
        "concurrency": 4,
        "output_bytes": 16 * MIB,
        "log_bytes": 16 * MIB,
        "storage_bytes": 16 * MIB,
        "processes": max(own.processes, 64),
        "open_files": max(own.open_files, 256),
        "file_size": 64 * MIB,
        "folder_bytes": 64 * MIB,
        "tables": max(own.tables, 100_000),
    }
