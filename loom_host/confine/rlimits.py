"""Resource limits of this process."""

from __future__ import annotations

import resource
from collections.abc import Mapping

NAMES = {
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "file_size": resource.RLIMIT_FSIZE,
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
}
"""`data` counts writable private memory; address space is no limit that a wasm engine can live
with, since it reserves 4 GiB for every linear memory."""


def limit(wanted: Mapping[str, int]) -> str:
    """Lower soft and hard limits, never raising one. Raises KeyError for an unknown name."""
    for name, value in wanted.items():
        kind = NAMES[name]
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    return ""


def data_now() -> int:
    """Bytes of writable private memory of this process, as `data` counts them."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"VmData:"):
                return int(line.split()[1]) * 1024
    return 0
