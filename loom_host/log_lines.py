"""The log lines of plugins, as `loom logs` gets them over the control socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from loom_sdk.errors import InvalidArguments, PluginUnhealthy

from .hints import did_you_mean
from .host import Host
from .host_api import LEVELS
from .telemetry import Logs


async def log_rows(host: Host, request: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """Entries as `telemetry.Formatter` makes them, the oldest first; then, with `follow`, more.

    A reader that is too slow for what comes gets `{"missed": N}` in place of N entries. Without
    `follow` the last row is `{"dropped": {plugin: N}}`: lines for which quotas had no room.

    Args:
        request: `plugin` (empty: all), `lines` (how many of those that are kept), `level` (the
            least), `follow`.

    Raises:
        InvalidArguments: no such plugin or level.
        PluginUnhealthy: the host is closed.
    """
    plugin, level, lines = _plugin(host, request), _level(request), int(request.get("lines", 100))
    logs = _logs(host)
    kept, follower = logs.follow(plugin or None, level)
    try:
        for entry in kept[-lines:] if lines > 0 else ():
            yield entry
        while request.get("follow"):
            missed, entries = await follower.take()
            if missed:
                yield {"missed": missed}
            for entry in entries:
                yield entry
    finally:
        logs.unfollow(follower)
    handles = [host.plugins[plugin]] if plugin else host.plugins.values()
    dropped = {h.name: h.counters.lines_dropped for h in handles if h.counters.lines_dropped}
    yield {"dropped": dropped}


def _logs(host: Host) -> Logs:
    if host.telemetry.logs is None:
        raise PluginUnhealthy("the host is not running: it keeps no log lines")
    return host.telemetry.logs


def _plugin(host: Host, request: Mapping[str, Any]) -> str:
    name = str(request.get("plugin") or "")
    if not name or name in host.plugins:
        return name
    known = f"it has {', '.join(host.plugins) or 'none'}"
    hint = did_you_mean(name, host.plugins, known)
    raise InvalidArguments(f"this host has no plugin {name!r}: {hint}")


def _level(request: Mapping[str, Any]) -> int:
    name = str(request.get("level") or "debug")
    if name not in LEVELS:
        raise InvalidArguments(f"{name!r} is no log level: use {', '.join(LEVELS)}")
    return LEVELS[name]
