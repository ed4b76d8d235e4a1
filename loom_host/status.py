"""What a running host tells of itself, as plain data: the rows of `loom ps` and its siblings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .grants import missing, reach
from .handle import PluginHandle
from .host import Host
from .runtimes.base import PluginSpec
from .start_order import dependencies


def plugin_row(host: Host, handle: PluginHandle) -> dict[str, Any]:
    """One plugin: identity, state, counters, memory in bytes, what is not enforced."""
    usage = handle.instance.usage() if handle.instance is not None else None
    counters = handle.counters
    if usage is not None:
        counters.peak_memory = max(counters.peak_memory, usage.peak_memory_bytes)
    enforcement = handle.instance.enforcement if handle.instance is not None else {}
    return {
        "name": handle.name,
        "id": handle.spec.id,
        "version": handle.spec.version,
        "tier": handle.spec.tier,
        "isolation": _isolation(handle.spec),
        "state": handle.state,
        "reason": handle.reason,
        "pid": usage.pid if usage else 0,
        "calls": counters.calls,
        "events": counters.events,
        "errors": counters.errors,
        "restarts": counters.restarts,
        "swaps": counters.swaps,
        "note": handle.note,
        "denials": host.audit.denied.get(handle.name, 0),
        "quota_hits": counters.quota_hits,
        "hits": dict(counters.hits),
        "in_flight": len(handle.inflight),
        "lines_dropped": counters.lines_dropped,
        "memory": usage.memory_bytes if usage else 0,
        "peak_memory": counters.peak_memory,
        "placement": handle.placement,
        "circuit": handle.circuit.state,
        "circuit_reason": handle.circuit.explain(time.monotonic()),
        "unenforced": {k: v for k, v in enforcement.items() if v != "enforced"},
        "layers": dict(getattr(handle.instance, "layers", {})),
        "usage": dict(usage.extra) if usage else {},
        "limits": asdict(handle.spec.quotas),
    }


def _isolation(spec: PluginSpec) -> str:
    """Of a wasm plugin `thread` or `process`, of a child its sandbox, `remote`, else empty."""
    if spec.remote is not None:
        return "remote"
    if spec.tier == "wasm":
        return "process" if spec.confined else "thread"
    return (
        spec.sandbox or ("standard" if spec.first_party else "strict")
        if spec.tier == "grpc"
        else ""
    )


def plugin_rows(host: Host) -> list[dict[str, Any]]:
    return [plugin_row(host, handle) for handle in host.plugins.values()]


def refusals(host: Host) -> list[dict[str, Any]]:
    return [asdict(refusal) for refusal in host.audit.refusals]


def capability_rows(host: Host) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "providers": [offer.handle.name for offer in offers],
            "effects": offers[0].spec.effects if offers else "",
            "tool": bool(offers and offers[0].spec.tool),
            "description": offers[0].spec.description if offers else "",
        }
        for name, offers in host.broker.capabilities().items()
    ]


def reach_row(handle: PluginHandle, handles: Sequence[PluginHandle] = ()) -> dict[str, Any]:
    """A plugin's reach in words, also through others of `handles`; what it asked for in vain."""
    others = {other.name: other.grants for other in handles}
    through = [others[name] for name in _invoked(handle.name, dependencies(handles))]
    return {
        "name": handle.name,
        "id": handle.spec.id,
        "tier": handle.spec.tier,
        "reach": reach(handle.manifest, handle.grants, _tier(handle), through) + _kept_out(handle),
        "asked_not_granted": [f"{k}:{v}" for k, v in missing(handle.manifest, handle.grants)],
    }


def _kept_out(handle: PluginHandle) -> list[str]:
    if handle.placement == "local":
        return []
    private = "" if handle.labels.listed(()) else ", private ones only where their agent lists it"
    return [f"has a way out: local-only turns do not reach it{private}"]


def _invoked(name: str, graph: Mapping[str, set[str]]) -> list[str]:
    """The plugins that it can invoke, itself or by way of others; sorted."""
    seen, waiting = {name}, [name]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return sorted(seen - {name})


def _tier(handle: PluginHandle) -> str:
    """`open` for a child process without a sandbox, `remote` for none of this machine's."""
    spec = handle.spec
    if spec.remote is not None:
        return "remote"
    return "open" if spec.tier == "grpc" and spec.sandbox == "none" else spec.tier
