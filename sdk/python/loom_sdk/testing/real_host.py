"""The plugin's folder in a real host, for a test: what is installed for users is what runs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from loom_sdk.errors import PluginLoadError

GROUP, NAME = "loom.testing", "real_host"
"""The entry point by which `loom-host` offers it: the SDK does not depend on the host."""


def real_host(folder: Path | str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """`async with real_host(folder, tier="wasm") as host`: a running `loom_host.Host`.

    Args:
        folder: holds `plugin.toml`.
        options: `tier`, `config`, `allow` (permissions; default all but the network),
            `settings` (further tables of `loom.toml`) and `build` (first do what
            `loom plugin build` does).

    Raises:
        PluginLoadError: `loom-host` is not installed.
        LoomError: when entered: the plugin did not start; the message tells why.
    """
    found = entry_points(group=GROUP, name=NAME)
    if not found:
        raise PluginLoadError("a real host needs loom-host: pip install loom-host")
    (point,) = found
    manager: AbstractAsyncContextManager[Any] = point.load()(folder, **options)
    return manager
