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


@hookspec
def loom_plugin_started(plugin_id: str, plugin: Plugin) -> None:
    """Called after `Plugin.start` returned."""


@hookspec
def loom_plugin_stopped(plugin_id: str) -> None:
    """Called after `Plugin.stop` returned."""
