"""What of the grpc tier's sandbox holds on this machine, for `loom check`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loom_host.confine.report import ENFORCED
from loom_host.handle import PluginHandle


def sandboxed(handles: Iterable[PluginHandle]) -> dict[str, str]:
    """Plugin to its profile, for those that are child processes of this host."""
    from loom_host.runtimes.grpc.sandbox import profile_of

    return {h.name: profile_of(h.spec) for h in handles if _is_child(h)}


def _is_child(handle: PluginHandle) -> bool:
    return handle.spec.tier == "grpc" and handle.spec.remote is None


def layers_here() -> dict[str, str]:
    """Layer to `enforced`, `partial: why` or `unenforced: why`, as a strict plugin would have."""
    from loom_host.runtimes.grpc import machine

    return machine.layers()


def weak(layers: Mapping[str, str], profiles: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(subject, message, what to do) for each layer that some plugin lacks."""
    from loom_host.runtimes.grpc import machine

    found = [
        (name, 'sandbox = "none": nothing is isolated', f'[plugins.{name}] sandbox = "strict"')
        for name, profile in profiles.items()
        if profile == "none"
    ]
    if len(found) < len(profiles):
        found += [
            ("grpc", f"{layer} is {how}", machine.fix_of(layer))
            for layer, how in layers.items()
            if how != ENFORCED
        ]
    return found
