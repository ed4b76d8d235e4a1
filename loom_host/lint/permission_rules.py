"""What the code uses against what `plugin.toml` asks for, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loom_host.grants import asked_for, narrows
from loom_host.sockets import is_socket

from .finding import Finding, finding
from .subject import Subject
from .use import Use

_PLACE = {
    "publish": ("events", "publishes"),
    "subscribe": ("events.subscribes", "topic"),
    "provide": ("capability", "name"),
}
_TOLD = ("publish", "invoke", "network", "secrets", "storage", "env", "devices")
"""Kinds whose use shows in the code: folders and labels are used without a call of the SDK."""
_VERBS = {
    "publish": "publishes to", "invoke": "invokes", "network": "requests",
    "secrets": "reads the secret", "storage": "uses storage", "env": "reads the variable",
    "devices": "uses the device",
}  # fmt: skip
_GIVEN = {"PATH", "HOME", "LANG", "TMPDIR", "TZ", "PYTHONPATH", "LOOM_MODELS"}
"""Variables that a child has anyway, beside those that begin with LOOM_."""


def missing(subject: Subject, uses: Iterable[Use]) -> Iterator[Finding]:
    """Uses that the host will refuse, each permission once."""
    asked, told = asked_for(subject.manifest), set[tuple[str, str | None]]()
    for use in uses:
        wanted = asked.get(use.kind, ())
        if use.kind not in _TOLD or (use.kind, use.value) in told or _is_given(use):
            continue
        if use.value is None and not wanted and use.kind != "env":
            told.add((use.kind, None))
            yield _missing(use, "what it names only when it runs")
        elif use.value is not None and not any(narrows(use.kind, use.value, w) for w in wanted):
            told.add((use.kind, use.value))
            yield _missing(use, "" if use.kind == "storage" else repr(use.value))


def _is_given(use: Use) -> bool:
    named = use.value or ""
    return use.kind == "env" and (named in _GIVEN or named.startswith("LOOM_"))


def _missing(use: Use, named: str) -> Finding:
    what = f"{_VERBS[use.kind]} {named}".rstrip() + ", but plugin.toml does not ask for it"
    # Not sure: where only a setting makes it happen, or an absent variable is foreseen.
    sure = use.sure and use.kind != "env" and use.value is not None
    return finding("permission.missing", what, _fix(use), use.file, use.line, sure=sure)


def _fix(use: Use) -> str:
    if use.kind == "storage":
        return "write storage = true under [permissions]"
    value = use.value or "..."
    if use.kind == "network" and use.value:
        value = use.value.partition(" ")[2]
    table, key = _PLACE.get(use.kind, ("permissions", use.kind))
    return f'write {key} = ["{value}"] under [{table}]'


def unused(subject: Subject, uses: Iterable[Use], *, escapes: bool) -> Iterator[Finding]:
    """What is asked for although no code uses it. Silent about what only running code knows."""
    found = list(uses)
    if escapes:
        return
    for kind, wanted in asked_for(subject.manifest).items():
        its = [use for use in found if use.kind == kind]
        if kind not in _TOLD or any(use.value is None for use in its):
            continue
        # Devices are held by the host, too; who is no guest may reach the network by other ways.
        ways = kind == "devices" or (kind == "network" and subject.manifest.tier != "wasm")
        if ways and not its:
            continue
        for value in wanted:
            if not any(narrows(kind, use.value or "", value) for use in its) and not is_socket(
                value
            ):
                yield _unused(subject, kind, value)


def _unused(subject: Subject, kind: str, value: str) -> Finding:
    table, key = _PLACE.get(kind, ("permissions", kind))
    line = subject.at(table, key, "" if kind == "storage" else value)
    said = "storage" if kind == "storage" else f"{kind} {value!r}"
    what = f"asks for {said}, which no code here uses"
    return finding("permission.unused", what, "take it out: who installs it reads this list",
                   line=line)  # fmt: skip
