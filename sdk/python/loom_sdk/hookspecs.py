"""pluggy hooks of the native tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .plugin import Plugin

PROJECT = "loom"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def loom_create_plugin(plugin_id: str, config: dict[str, Any]) -> Plugin | None:
    """Return the plugin object. Only needed where `entry` names a module without a class."""
