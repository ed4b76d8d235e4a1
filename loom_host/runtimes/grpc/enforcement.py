"""Which quotas really hold for a child, said of each by the layers that it reported."""

from __future__ import annotations

from collections.abc import Mapping

from loom_host.confine.report import ENFORCED
from loom_host.quotas import HELD_BY_HOST

_NOT_STRICT = 'partial: its data and cache folder are looked at only in sandbox = "strict"'
_NO_SANDBOX = 'unenforced: sandbox = "none"'


def enforcement_of(
    profile: str,
    layers: Mapping[str, str],
    *,
    network: bool = False,
    counts_processes: bool = False,
) -> dict[str, str]:
    """Quota to `enforced`, `partial: why` or `unenforced: why`.

    Args:
        layers: what the child reported, empty without a sandbox.
        network: it was granted TCP, and so shares the host's network.
        counts_processes: RLIMIT_NPROC counts its processes and no others.
    """
    held = dict.fromkeys(("deadline_ms", *HELD_BY_HOST), ENFORCED)
    cgroup = layers.get("cgroup", _NO_SANDBOX)
    rlimits = layers.get("rlimits", ENFORCED)
    held["open_files"] = held["file_size"] = rlimits
    held["memory"] = cgroup
    if cgroup != ENFORCED:
        weaker = "the child is watched by resident memory, what it starts by RLIMIT_DATA"
        held["memory"] = f"partial: {weaker}; {_why(cgroup)}"
    held["cpu"] = cgroup
    if cgroup != ENFORCED:
        held["cpu"] = f"partial: what it starts counts when it has ended; {_why(cgroup)}"
    held["cpu_share"] = cgroup
    held["processes"] = cgroup
    if cgroup != ENFORCED and counts_processes:
        held["processes"] = rlimits
    held["folder_bytes"] = ENFORCED if profile == "strict" else _NOT_STRICT
    held["network"] = _network(layers, network)
    held["filesystem"] = _filesystem(profile, layers)
    return held


def _network(layers: Mapping[str, str], granted: bool) -> str:
    namespaces = layers.get("namespaces", _NO_SANDBOX)
    if granted:
        return "partial: a tcp grant shares the host's network, Landlock narrows TCP to its port"
    if namespaces == ENFORCED or layers.get("seccomp") != ENFORCED:
        return namespaces
    open_still = "no sockets of the internet, but Unix sockets that its user may write to"
    return f"partial: {open_still}; {_why(namespaces)}"


def _filesystem(profile: str, layers: Mapping[str, str]) -> str:
    namespaces = layers.get("namespaces", _NO_SANDBOX)
    if ENFORCED not in (namespaces, layers.get("landlock")):
        return namespaces
    if profile == "standard":
        return 'partial: sandbox = "standard" may read what the host\'s user may'
    return ENFORCED


def _why(state: str) -> str:
    return state.partition(": ")[2]
