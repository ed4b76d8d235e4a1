"""Loom: a plugin host for voice and AI agents."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .collector import collector_still

if TYPE_CHECKING:
    from loom_sdk import Event, QoS, Result

    from .config import load_settings
    from .host import Host
    from .settings import Settings

__all__ = ["Event", "Host", "QoS", "Result", "Settings", "load_settings"]

_HOMES = {
    "Host": f"{__name__}.host",
    "Settings": f"{__name__}.settings",
    "load_settings": f"{__name__}.config",
}


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: `loom` must meet a Ctrl-C before it imports a host."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with collector_still():
        value = getattr(import_module(_HOMES.get(name, "loom_sdk")), name)
    globals()[name] = value
    return value
