"""The nouns of the memory: what is kept, which of it is meant, how much of it stays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ROW_BYTES = 128
"""Counted for an item beside its texts: its row and its places in the indexes. Its vector is not
counted: with 384 dimensions it takes 1.5 KB."""
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to remember."""

    text: str
    role: str = ""
    user: str = ""
    session: str = ""
    time_ms: int = 0
    """Unix time in milliseconds when it happened."""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that it counts."""
        texts = (self.text, self.role, self.user, self.session, json.dumps(dict(self.metadata)))
        return ROW_BYTES + sum(len(text.encode()) for text in texts)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items; an empty field takes all."""

    spaces: tuple[str, ...] = ()
    level: int = 3
    """Of privacy: nothing stricter."""
    user: str = ""
    session: str = ""
    role: str = ""
    since_ms: int = 0
    until_ms: int = 0
    """Before this time; 0: no bound."""
    ids: tuple[int, ...] = ()

    @property
    def narrow(self) -> bool:
        """Whether it asks for more than the index of vectors knows itself."""
        return bool(
            self.user or self.session or self.role or self.since_ms or self.until_ms or self.ids
        )

    def where(self) -> tuple[str, list[Any]]:
        """A condition on `item` with its values."""
        parts, values = ["level <= ?"], [self.level]
        texts: dict[str, Any] = {
            "user = ?": self.user, "session = ?": self.session, "role = ?": self.role,
            "time_ms >= ?": self.since_ms, "time_ms < ?": self.until_ms,
        }  # fmt: skip
        for part, value in texts.items():
            if value:
                parts.append(part)
                values.append(value)
        for column, among in (("space", self.spaces), ("id", self.ids)):
            if among:
                parts.append(f"{column} in (select value from json_each(?))")
                values.append(json.dumps(among))
        return " and ".join(parts), values


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept; 0: no limit. Items and bytes of each space, oldest go first."""

    items: int = 0
    bytes: int = 0
    age_days: float = 0


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of length 1, one after the other, little-endian float32."""

    model: str
    dimensions: int
    data: bytes

    def __getitem__(self, row: int) -> bytes:
        size = self.dimensions * FLOAT_BYTES
        return self.data[row * size : (row + 1) * size]

    @property
    def key(self) -> str:
        """Vectors of different models cannot be compared."""
        return f"{self.model}/{self.dimensions}"
