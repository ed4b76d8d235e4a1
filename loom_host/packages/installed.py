"""What is installed joins the settings: found, allowed what was consented to, and unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from loom_host.settings import PluginSettings, Settings
from loom_sdk.errors import PluginLoadError

from .lock import load_lock
from .signing import fingerprint
from .store import PackageStore


def with_installed(settings: Settings) -> Settings:
    """The same settings with a table and a plugin path for each installed plugin.

    A table of `loom.toml` goes before: its keys hold, and its `allow` where it has one.

    Raises:
        ConfigError: the lock file is damaged.
    """
    store = PackageStore(settings.host.data_dir)
    plugins, paths = dict(settings.plugins), list(settings.host.plugin_paths)
    for name, locked in load_lock(settings.lock_file).plugins.items():
        folder = store.folder(locked)
        if not folder.is_dir():
            continue  # `loom plugin install` brings it back; `loom check` tells
        own = plugins.get(name, PluginSettings())
        plugins[name] = own if own.allow else replace(own, allow=locked.grants)
        paths.append(str(folder))
    host = replace(settings.host, plugin_paths=tuple(paths))
    return replace(settings, plugins=plugins, host=host)


def check_installed(name: str, folder: Path, settings: Settings) -> None:
    """Of a plugin whose files were installed: they are what was signed, by a key not revoked.

    Raises PluginLoadError that names the file that is not.
    """
    store = PackageStore(settings.host.data_dir)
    if not store.holds(folder):
        return
    lock = load_lock(settings.lock_file)
    locked = lock.plugins.get(name)
    if locked is None or store.folder(locked) != folder:
        raise PluginLoadError(f"{name}: {folder} is not in loom.lock: install it again")
    if locked.key in lock.revoked:
        raise PluginLoadError(
            f"{name} is refused: its key {fingerprint(locked.key)} is revoked "
            f"({lock.revoked[locked.key]}); `loom plugin remove {name}`",
            plugin_id=locked.id,
        )
    store.verified(name, locked)
