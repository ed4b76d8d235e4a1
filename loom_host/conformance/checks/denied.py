"""permissions.denied: in the plugin's place a probe is denied all that was not asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loom_host.confine.report import ENFORCED
from loom_host.conformance.kit import Check, Fault
from loom_host.conformance.outside import VARIABLE, Outside, devices, outside
from loom_host.conformance.room import roomy
from loom_host.conformance.stage import probe_host, probe_of
from loom_host.conformance.subject import Subject
from loom_host.grants import Grants, asked_for, grant
from loom_host.host import Host
from loom_host.manifest import Manifest

TOPICS = ("conformance.unasked", "loom.conformance", "audio.mic")
CAPABILITIES = ("conformance.unasked", "loom.tools", "llm.chat")
SECRETS = ("conformance-unasked",)
TIMEOUT_MS = 10_000
UNTOLD = "unenforced: it is not told"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that the probe tries."""

    what: str
    of: str
    by_grant: bool
    """Whether the host denies it, for want of a grant; else the kernel or the guest's engine."""


async def permissions_denied(subject: Subject) -> str:
    """A note of what nothing holds the tier to."""
    manifest, tier = subject.plan.manifest, subject.tier
    everything = asked_for(manifest)
    grants = grant(manifest.name, manifest, everything)
    async with outside() as around, probe_host(manifest, tier, roomy(manifest, tier)) as host:
        tried, notes = _host_denies(grants, around)
        more, unheld = _tier_denies(host, manifest, tier, around)
        for attempt in (*tried, *more):
            await _deny(host, attempt)
        if around.reached or not around.untouched():
            raise Fault("the probe was told no, but reached a server or changed a file anyway")
    return "; ".join((*notes, *unheld))


async def _deny(host: Host, attempt: Attempt) -> None:
    arguments = {"what": attempt.what, "of": attempt.of}
    asked = await host.invoke("conformance.attempt", arguments, timeout_ms=TIMEOUT_MS)
    answer: Mapping[str, str] = asked.output
    doing = f"{attempt.what} {attempt.of!r}"
    if "got" in answer:
        raise Fault(
            f"{doing} is not denied, although plugin.toml does not ask for it: the probe got "
            f"{answer['got']!r}"
        )
    if attempt.by_grant and answer["error"] != "PermissionDenied":
        raise Fault(
            f"{doing} ends with {answer['error']}, not with PermissionDenied: {answer['message']}"
        )


def _host_denies(grants: Grants, around: Outside) -> tuple[list[Attempt], list[str]]:
    """What is tried, and a note for each kind of which everything was asked for."""
    kinds: dict[str, tuple[str, Sequence[str]]] = {
        "publish": ("publish", TOPICS),
        "invoke": ("invoke", CAPABILITIES),
        "secret": ("secrets", SECRETS),
        "http": ("network", (around.url, "http://conformance.invalid")),
    }
    tried: list[Attempt] = []
    notes: list[str] = []
    for what, (kind, values) in kinds.items():
        unasked = list(_unasked(grants, kind, values))
        tried += [Attempt(what, value, by_grant=True) for value in unasked]
        notes += [] if unasked else [f"{kind}: it asks for everything"]
    if not grants.permits("storage", "own"):
        tried += [Attempt(what, "conformance", by_grant=True) for what in ("keep", "kept", "keys")]
    return tried, notes


def _unasked(grants: Grants, kind: str, values: Sequence[str]) -> Iterator[str]:
    for value in values:
        asked = f"GET {value}" if kind == "network" else value
        if not grants.permits(kind, asked):
            yield value


def _tier_denies(
    host: Host, manifest: Manifest, tier: str, around: Outside
) -> tuple[list[Attempt], list[str]]:
    """What is tried of the machine, and a note for each part of it that nothing keeps it from."""
    instance = probe_of(host).instance
    assert instance is not None
    if tier == "native":
        return [], ["unenforced: environment, files, network and devices, which are the host's"]
    held = dict.fromkeys(("filesystem", "network"), ENFORCED)
    if tier == "grpc":  # a guest has nothing of the machine, whatever else is said of it
        held = {name: instance.enforcement.get(name, UNTOLD) for name in held}
    tried = [Attempt("environment", VARIABLE, by_grant=False)]
    files, sockets = held["filesystem"], held["network"]
    if files == ENFORCED:
        tried.append(Attempt("read", str(around.file), by_grant=False))
    if not files.startswith("unenforced"):
        found = [] if manifest.permissions.devices else devices()
        tried.append(Attempt("write", str(around.file), by_grant=False))
        tried += [Attempt("device", path, by_grant=False) for path in found]
    if sockets == ENFORCED:
        ways = {"tcp": around.tcp_port, "udp": around.udp_port, "unix": around.unix}
        tried += [Attempt(what, str(of), by_grant=False) for what, of in ways.items()]
    return tried, [f"{name}: {how}" for name, how in held.items() if how != ENFORCED]


DENIED = Check(
    "permissions.denied", "what it did not ask for is denied in its place", permissions_denied
)
