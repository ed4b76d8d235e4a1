"""What is to be tested: a plugin's folder, its examples, and what stands in for the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loom_host.manifest import Manifest, load_manifest
from loom_host.settings import HostSettings
from loom_host.tables import check_keys, read_toml
from loom_sdk.errors import ConfigError
from loom_sdk.plugin import CapabilitySpec

STAND_INS = "conformance.toml"
COUNT = 1000
START_S = 30.0
GRACE_S = HostSettings().stop_grace_ms / 1000


@dataclass(frozen=True, slots=True)
class Example:
    """One of the manifest's."""

    spec: CapabilitySpec
    arguments: Mapping[str, Any]
    output: Any = None
    """What the answer must contain; None where the manifest does not say."""
    slow: bool = False
    """It takes two seconds or more."""
    payload: bytes = b""
    """Goes beside the arguments, with its content type."""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class StandIns:
    """`conformance.toml` beside `plugin.toml`: what the plugin finds around it in the test."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Its settings, where the defaults are not those to test with."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, Any] = field(default_factory=dict)
    """By capability that it invokes: the output, in JSON."""
    payloads: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By capability: the `file` below the plugin's folder whose bytes go with each call of it, and
    their `content_type`."""
    pages: Mapping[str, Any] = field(default_factory=dict)
    """By address, with `*` for any text: the body that a server answers with, in JSON or text."""
    events: tuple[Mapping[str, Any], ...] = ()
    """Samples of what it hears: `topic`, `type`, `metadata`, and as payload `text`, or the bytes of
    the `file` below the plugin's folder."""
    skip: Mapping[str, str] = field(default_factory=dict)
    """By id of a check: why it cannot run. It is told as skipped, never as passed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the kit.

    Args:
        count: arguments, events and calls that the checks with many of them make.
        seed: of everything by chance.
        start_s: how long a start may take.
        grace_s: how long it may take to stop.
    """

    folder: Path
    manifest: Manifest
    stand_ins: StandIns
    count: int = COUNT
    seed: int = 0
    start_s: float = START_S
    grace_s: float = GRACE_S

    @property
    def examples(self) -> tuple[Example, ...]:
        """Of all capabilities, in the manifest's order; those that are answered."""
        return tuple(
            replace(
                self.call_of(spec, one.get("arguments", {})),
                output=one.get("output"),
                slow=bool(one.get("slow")),
            )
            for spec in self.manifest.capabilities
            for one in spec.examples
            if "arguments" in one and "error" not in one
        )

    @property
    def refused(self) -> tuple[tuple[Example, str], ...]:
        """Examples of what it must refuse, each with the error's code."""
        return tuple(
            (self.call_of(spec, one["arguments"]), str(one["error"]))
            for spec in self.manifest.capabilities
            for one in spec.examples
            if "error" in one
        )

    def call_of(self, spec: CapabilitySpec, arguments: Mapping[str, Any]) -> Example:
        """With the payload that goes with calls of this capability."""
        beside = self.stand_ins.payloads.get(spec.name)
        if beside is None:
            return Example(spec, arguments)
        payload = (self.folder / beside["file"]).read_bytes()
        return Example(
            spec, arguments, payload=payload, content_type=beside.get("content_type", "")
        )


def plan_of(
    folder: Path,
    *,
    count: int = COUNT,
    seed: int = 0,
    start_s: float = START_S,
    grace_s: float = GRACE_S,
) -> Plan:
    """Raises ManifestError or ConfigError where a file is wrong."""
    folder = folder.absolute()
    manifest = load_manifest(folder / "plugin.toml")
    return Plan(folder, manifest, _stand_ins(folder / STAND_INS), count, seed, start_s, grace_s)


def _stand_ins(path: Path) -> StandIns:
    if not path.exists():
        return StandIns()
    data = read_toml(path)
    check_keys(data, StandIns.__dataclass_fields__, str(path))
    events = data.pop("events", [])
    for key, value in data.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {key} must be a table")
    if not isinstance(events, list) or not all(isinstance(one, dict) for one in events):
        raise ConfigError(f"{path}: events must be [[events]] tables")
    for name, one in data.get("payloads", {}).items():
        if not isinstance(one, dict):
            raise ConfigError(f"{path}: [payloads] {name} must be a table")
        check_keys(one, ("file", "content_type"), f"{path} [payloads] {name}")
        if not _is_beside(path, one.get("file", "")):
            raise ConfigError(f"{path}: [payloads] {name}: `file` must name a file beside it")
    for one in events:
        check_keys(one, ("topic", "type", "metadata", "text", "file"), f"{path} [[events]]")
        if "file" in one and not _is_beside(path, one["file"]):
            raise ConfigError(f"{path}: [[events]]: `file` must name a file beside it")
    return StandIns(**data, events=tuple(events))


def _is_beside(path: Path, name: Any) -> bool:
    """Whether it is a file below the plugin's folder: others are not for the plugin to read."""
    if not isinstance(name, str):
        return False
    found = (path.parent / name).resolve()
    return found.is_file() and found.is_relative_to(path.parent.resolve())
