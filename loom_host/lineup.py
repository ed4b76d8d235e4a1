"""Who plays: the plugins that run, those that are switched off and why, and safe mode."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from loom_sdk.errors import ConfigError, LoomError, PluginLoadError

from .assembly import chosen, hint_at, known, make_handle, manifests_of
from .discovery import is_first_party
from .handle import PluginHandle
from .manifest import Manifest
from .settings import Settings

log = logging.getLogger("loom.lineup")

FIRST_PARTY, SAFE_MODE = "first-party", "safe mode"


def line_up(settings: Settings) -> list[PluginHandle]:
    """All that are to run, and after them, `stopped`, those that are switched off.

    Raises ConfigError or PluginLoadError that name the line to mend.
    """
    if not settings.plugins:
        return []
    manifests = manifests_of(settings)
    handles = []
    for name in chosen(settings, manifests):
        try:
            handles.append(make_handle(name, manifests[name], settings))
        except PluginLoadError as error:
            log.error("%s", error.message)
            raise
    return handles + switched_off(settings, manifests)


def switched_off(settings: Settings, manifests: Mapping[str, Manifest]) -> list[PluginHandle]:
    """Plugins with `enabled = false`, stopped for the reason that their callers are told.

    One whose settings are wrong is left out: it shall not keep the host from starting.
    """
    handles = []
    for name, own in settings.plugins.items():
        if own.enabled:
            continue
        try:
            handle = make_handle(name, manifests[name], settings)
        except LoomError as error:
            log.warning("%s", error.message)
            continue
        why = f"disabled: {own.reason}" if own.reason else "disabled in loom.toml"
        handle.become("stopped", why)
        handles.append(handle)
    return handles


def only(settings: Settings, words: Collection[str]) -> Settings:
    """The same, with every other plugin switched off.

    Args:
        words: names of plugins; `first-party` stands for all that ship with the host.

    Raises:
        ConfigError: a word is no plugin with a table.
    """
    for word in words:
        if word != FIRST_PARTY and word not in settings.plugins:
            raise ConfigError(f"--only: {word!r} has no table; {hint_at(word, settings.plugins)}")
    manifests = manifests_of(settings)
    plugins = {}
    for name, own in settings.plugins.items():
        here = FIRST_PARTY in words and not own.address and not own.mcp  # those may be any code
        shipped = here and is_first_party(known(name, manifests))
        wanted = shipped or name in words or not own.enabled
        plugins[name] = own if wanted else replace(own, enabled=False, reason=SAFE_MODE)
    return replace(settings, plugins=plugins)


def remake(
    name: str, settings: Settings, now: PluginHandle | None, tier: str, config: Mapping[str, Any]
) -> PluginHandle:
    """A fresh handle, enabled, from the `plugin.toml` and code that are there now.

    Args:
        now: the one there is, whose settings hold where `tier` and `config` say nothing else.

    Raises:
        ConfigError, ManifestError or PluginLoadError: names the line to mend.
    """
    if now is None and name not in settings.plugins:
        raise ConfigError(f"{name!r} has no table; {hint_at(name, settings.plugins)}")
    own = settings.plugins[name] if now is None else now.settings
    merged = {**own.config, **config}
    wanted = replace(own, enabled=True, reason="", tier=tier or own.tier, config=merged)
    alone = replace(settings, plugins={name: wanted})
    return make_handle(name, known(name, manifests_of(alone)), alone)
