"""quotas.trip: a probe in the plugin's place runs into each of the plugin's quotas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

from loom_host.confine.report import ENFORCED
from loom_host.conformance.kit import Check, Fault
from loom_host.conformance.room import LEAST_MEMORY, MIB, roomy
from loom_host.conformance.stage import probe_host, probe_of
from loom_host.conformance.subject import Subject
from loom_host.host import Host
from loom_host.manifest import Manifest
from loom_host.quotas import HELD_BY_HOST, Quotas
from loom_sdk.errors import DeadlineExceeded, LoomError, QuotaExceeded

TIMEOUT_MS = 15_000
BACK_S = 10.0
"""For a probe that was killed by one trial to serve again before the next."""
KERNEL = {"open_files": "OSError 24", "processes": "BlockingIOError 11", "file_size": "OSError 27"}
"""What the kernel refuses inside the child, which is told of it: EMFILE, EAGAIN, EFBIG."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One quota: how the probe goes over it.

    Args:
        most: what is tried is the manifest's own limit, or this where that is greater.
        unit: how much of the quota the probe takes each time.
    """

    quota: str
    most: float
    press: str
    unit: float = 1
    least: float = 0
    """The probe itself needs so much."""
    extra: int = 50

    def limit(self, own: Quotas) -> Any:
        wanted = max(min(getattr(own, self.quota), self.most), self.least)
        return type(getattr(Quotas(), self.quota))(wanted)

    def times(self, limit: float) -> int:
        return int(limit / self.unit) + self.extra


GROUPS = (
    (
        Trial("publish_rate", 20, "publish"),
        Trial("storage_bytes", 20_000, "put", 1000),
        Trial("output_bytes", 20_000, "emit", 1000, least=100),
        Trial("log_bytes", 20_000, "shout", 1000),
        Trial("concurrency", 2, "hold"),
        Trial("open_files", 1024, "open", extra=0),
        Trial("file_size", 2 * MIB, "lengthen", MIB, least=MIB, extra=1),
        Trial("processes", 256, "thread", extra=0),
        Trial("memory", 64 * MIB, "hoard", MIB),
    ),
    (Trial("host_calls_per_call", 30, "get"),),
    (Trial("host_calls", 30, "get"), Trial("log_rate", 20, "log")),
    (Trial("deadline_ms", 500, "spin", least=100),),
    (Trial("rate", 10, "get"),),
    (Trial("cpu", 0.3, "burn"),),
    (Trial("fuel", 10**9, "burn", least=10**8),),
    (Trial("folder_bytes", MIB, "fill", MIB),),
)
"""Those in one group share a probe and do not get into each other's way; who ends it is last."""
FREE_AT_0 = (
    "rate", "cpu", "publish_rate", "host_calls", "host_calls_per_call", "log_rate", "fuel",
    "memory", "folder_bytes",
)  # fmt: skip
"""Where 0 is no limit, there is nothing to run into."""
TIERS = {
    "native": (*HELD_BY_HOST, "deadline_ms"),
    "wasm": (*HELD_BY_HOST, "deadline_ms", "memory", "cpu", "fuel"),
    "grpc": (*HELD_BY_HOST, "deadline_ms", "memory", "cpu", "folder_bytes", *KERNEL),
}
"""What each tier knows and a plugin can run into."""


async def quotas_trip(subject: Subject) -> str:
    """A note of the quotas that were not tried, with why."""
    manifest, tier = subject.plan.manifest, subject.tier
    groups = [tried for group in GROUPS if (tried := list(_tried(group, manifest.quotas, tier)))]
    found = await asyncio.gather(
        *(_group(manifest, tier, group) for group in groups), return_exceptions=True
    )
    held: dict[str, str] = {}
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
        held |= outcome
    names = {trial.quota for group in groups for trial in group if _holds(trial.quota, held)}
    return _note({one.name for one in fields(Quotas)} - names, held)


def _holds(quota: str, held: Mapping[str, str]) -> bool:
    """Whether the probe can run into it: a part is enough, but for what is not even looked at."""
    how = held.get(quota, ENFORCED)
    return how == ENFORCED or (how.startswith("partial") and quota != "folder_bytes")


def _note(untried: set[str], held: Mapping[str, str]) -> str:
    told: dict[str, list[str]] = {}
    for name in sorted(untried):
        why = "nothing to run into" if _holds(name, held) else held[name]
        told.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in told.items())


def _tried(group: tuple[Trial, ...], own: Quotas, tier: str) -> Iterator[Trial]:
    for trial in group:
        free = trial.quota in FREE_AT_0 and not getattr(own, trial.quota)
        if trial.quota in TIERS[tier] and not free:
            more = LEAST_MEMORY[tier] if trial.quota == "memory" else trial.least
            yield replace(trial, least=more)


async def _group(manifest: Manifest, tier: str, trials: list[Trial]) -> Mapping[str, str]:
    """What its instance says of each quota. Raises Fault where one does not trip."""
    limits = {trial.quota: trial.limit(manifest.quotas) for trial in trials}
    quotas = roomy(manifest, tier) | limits
    asking = replace(
        manifest,
        publishes=(*manifest.publishes, "conformance.probe"),
        permissions=replace(manifest.permissions, storage=True),
    )
    async with probe_host(asking, tier, quotas) as host:
        instance = probe_of(host).instance
        held = dict(instance.enforcement) if instance is not None else {}
        for trial in trials:
            if _holds(trial.quota, held):
                await _trip(host, trial, limits)
                async with asyncio.timeout(BACK_S):
                    await probe_of(host).ready()
    return held


async def _trip(host: Host, trial: Trial, limits: Mapping[str, Any]) -> None:
    limit = limits[trial.quota]
    if trial.quota in KERNEL:
        return await _kernel(host, trial, limit)
    ways = {"concurrency": _crowd, "rate": _hurry, "host_calls": _again}
    try:
        await ways.get(trial.quota, _once)(host, trial, limits)
    except DeadlineExceeded as error:
        if trial.quota != "deadline_ms":
            raise _other(trial, limit, error) from error
    except LoomError as error:
        if not isinstance(error, QuotaExceeded) or error.quota != trial.quota:
            raise _other(trial, limit, error) from error
    else:
        raise Fault(f"the quota {trial.quota} = {limit:g} does not trip: nothing refuses the probe")


def _other(trial: Trial, limit: float, error: LoomError) -> Fault:
    return Fault(
        f"over the quota {trial.quota} = {limit:g} the probe gets {type(error).__name__} "
        f"and not that quota's own error: {error.message}"
    )


async def _press(host: Host, trial: Trial, times: int, timeout_ms: int = TIMEOUT_MS) -> Any:
    arguments = {"what": trial.press, "times": times}
    return (await host.invoke("conformance.press", arguments, timeout_ms=timeout_ms)).output


async def _once(host: Host, trial: Trial, limits: Mapping[str, Any]) -> None:
    await _press(host, trial, trial.times(limits[trial.quota]))


async def _kernel(host: Host, trial: Trial, limit: float) -> None:
    """The call goes on: the plugin is told by the kernel, not ended by the host."""
    said = await _press(host, trial, trial.times(limit))
    if said != KERNEL[trial.quota]:
        raise Fault(f"the quota {trial.quota} = {limit:g} does not trip: {said}")


async def _again(host: Host, trial: Trial, limits: Mapping[str, Any]) -> None:
    """In many calls, each within what one may ask."""
    limit = limits[trial.quota]
    each = max(min(25, int(limits.get("host_calls_per_call", 25))), 1)
    for _ in range(int(limit * 3 / each) + 5):
        await _press(host, trial, each)


async def _hurry(host: Host, trial: Trial, limits: Mapping[str, Any]) -> None:
    """More calls at once than there may be in a second. They wait for nothing."""
    calls = [_press(host, trial, 0) for _ in range(int(limits["rate"]) * 2 + 2)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end


async def _crowd(host: Host, trial: Trial, limits: Mapping[str, Any]) -> None:
    """One call more than there are places, while those are taken."""
    slots = probe_of(host).slots
    crowd = [asyncio.create_task(_press(host, trial, 1)) for _ in range(limits["concurrency"])]
    try:
        async with asyncio.timeout(BACK_S):
            while slots.active < limits["concurrency"]:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.005)
        await _press(host, replace(trial, press="get"), 0, timeout_ms=200)
    finally:
        for one in crowd:
            one.cancel()
        with suppress(LoomError):
            await asyncio.gather(*crowd, return_exceptions=True)


TRIP = Check("quotas.trip", "each of its quotas trips in its place", quotas_trip)
