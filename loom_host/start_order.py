"""Who starts before whom, and whether what starts is what its manifest tells: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from loom_sdk.errors import ConfigError, PluginLoadError

from .handle import PluginHandle
from .runtimes.base import PluginInstance


def dependencies(handles: Iterable[PluginHandle]) -> dict[str, set[str]]:
    """Plugin name to the plugins whose capabilities it invokes."""
    handles = list(handles)
    return {
        user.name: {
            other.name
            for other in handles
            if other is not user
            and any(user.grants.permits("invoke", name) for name in _offers(other))
        }
        for user in handles
    }


def _offers(handle: PluginHandle) -> tuple[str, ...]:
    """Names of what it provides; where only its types tell, what it may."""
    if handle.manifest.offers_by_types:
        return handle.grants.allowed.get("provide", ())
    return tuple(spec.name for spec in handle.manifest.capabilities)


def start_order(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same graph, without edges if they form a circle: then all start at once."""
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError:
        return {name: set() for name in graph}
    return dict(graph)


def check_enforced(instances: Mapping[str, PluginInstance]) -> None:
    """Raises ConfigError where this machine does not hold one of them, by name, to a quota."""
    weak = [
        f"{name}: {quota} is {how}"
        for name, instance in instances.items()
        for quota, how in instance.enforcement.items()
        if how != "enforced"
    ]
    if weak:
        raise ConfigError(
            "host.require_enforced is set, but this machine does not enforce: " + "; ".join(weak)
        )


def check_declaration(handle: PluginHandle, instance: PluginInstance) -> None:
    """What the plugin said at Init must agree with its manifest.

    Raises:
        PluginLoadError: names what differs and which of the two to mend.
    """
    manifest, said = handle.manifest, instance.declaration
    offered = {c.name for c in said.capabilities}
    listed = {c.name for c in manifest.capabilities}
    heard = {s.topic for s in said.subscriptions}
    subscribed = {s.topic for s in manifest.subscribes}
    for extra, what, table in (
        (offered - listed, "offers", "[[capability]]"),
        (heard - subscribed, "subscribes to", "[[events.subscribes]]"),
    ):
        if extra and not said.inferred:
            raise PluginLoadError(
                f"{handle.name} {what} {', '.join(sorted(extra))}, which its plugin.toml does not "
                f"list: add it under {table}",
                plugin_id=handle.spec.id,
            )
    if offered and listed - offered:
        raise PluginLoadError(
            f"{handle.name} lists {', '.join(sorted(listed - offered))} in plugin.toml but its "
            "code does not offer it: remove it or mark a method with @capability",
            plugin_id=handle.spec.id,
        )
