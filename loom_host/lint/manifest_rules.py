"""Rules about `plugin.toml` by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from loom_host.hints import did_you_mean
from loom_host.manifest import TABLES
from loom_host.quotas import Quotas

from .finding import Finding, finding
from .python_code import PythonCode
from .subject import Subject
from .toml_lines import TomlLines

SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][\da-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][\da-zA-Z-]*))*)?"
    r"(\+[\da-zA-Z-]+(\.[\da-zA-Z-]+)*)?"
)
"""semver.org, version 2.0.0."""


def without_unknown(
    data: Mapping[str, Any], lines: TomlLines
) -> tuple[dict[str, Any], list[Finding]]:
    """The tables without the keys that nobody knows, and a finding for each of those."""
    found: list[Finding] = []

    def pruned(table: Any, name: str, index: int = 0) -> Any:
        if not isinstance(table, Mapping):
            return table
        known = _known(name)
        for key in table:
            if key not in known:
                found.append(_unknown(str(key), name, known, lines.key(name, str(key), index)))
        return {key: value for key, value in table.items() if key in known}

    clean: dict[str, Any] = pruned(data, "")
    for name in ("plugin", "storage", "permissions", "quotas", "events"):
        if name in clean:
            clean[name] = pruned(clean[name], name)
    for holder, key, name in (
        (clean, "capability", "capability"),
        (clean.get("events"), "subscribes", "events.subscribes"),
    ):
        if isinstance(holder, dict) and isinstance(holder.get(key), list):
            holder[key] = [pruned(table, name, i) for i, table in enumerate(holder[key])]
    listed = clean.get("capability")
    for index, table in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(table, dict) and isinstance(table.get("examples"), list):
            name, those = "capability.examples", table["examples"]
            table["examples"] = [pruned(one, name, index) for one in those]
    return clean, found


def _known(table: str) -> tuple[str, ...]:
    return tuple(item.name for item in fields(Quotas)) if table == "quotas" else TABLES[table]


def _unknown(key: str, table: str, known: tuple[str, ...], line: int) -> Finding:
    where = f"[{table}]" if table else "plugin.toml"
    fix = did_you_mean(key, known, f"take it out; known: {', '.join(known)}")
    return finding("manifest.unknown-key", f"{where} has no key {key!r}", fix, line=line)


def manifest_findings(subject: Subject, code: PythonCode) -> Iterator[Finding]:
    manifest, lines = subject.manifest, subject.lines
    if not SEMVER.fullmatch(manifest.version):
        what = f"version {manifest.version!r} is not MAJOR.MINOR.PATCH"
        fix = 'write it as in semver.org, such as version = "1.4.0"'
        yield finding("manifest.version", what, fix, line=lines.key("plugin", "version"))
    if not manifest.license:
        fix = 'write an SPDX name under [plugin], such as license = "MIT"'
        yield finding("manifest.licence", "it says no license", fix, line=lines.table("plugin"))
    yield from _quotas(subject)
    for index, table in enumerate(subject.data.get("capability", ())):
        if manifest.capabilities[index].tool:
            yield from _tool(index, table, subject, code)


def _quotas(subject: Subject) -> Iterator[Finding]:
    table = subject.data.get("quotas", {})
    if lacking := [key for key in ("memory", "deadline_ms") if key not in table]:
        default = Quotas()
        have = {
            "memory": f"{default.memory // 1024**2} MiB",
            "deadline_ms": f"{default.deadline_ms} ms",
        }
        what = f"no quota {' and '.join(lacking)}: it gets {' and '.join(have[k] for k in lacking)}"
        write = {"memory": 'memory = "64MiB"', "deadline_ms": "deadline_ms = 2000"}
        fix = f"write what it needs under [quotas]: {', '.join(write[k] for k in lacking)}"
        yield finding("quotas.unset", what, fix, line=subject.lines.table("quotas"))


def _tool(
    index: int, table: Mapping[str, Any], subject: Subject, code: PythonCode
) -> Iterator[Finding]:
    name = str(table["name"])
    line = subject.lines.key("capability", "name", index)
    offer = code.offers.get(name)
    if not table.get("description") and not (offer and offer.documented):
        fix = "say in one sentence what it does: description, or the method's docstring"
        yield finding("capability.description", f"{name} is a tool without one", fix, line=line)
    if "effects" not in table:
        what = f"{name} says no effects, which means once: it is never repeated, and asks first"
        fix = 'write effects = "none", "idempotent" or, where that is so, "once"'
        yield finding("capability.effects", what, fix, line=line)
