"""What a check is and what may come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .plan import Plan
    from .subject import Subject

TIERS = ("native", "wasm", "grpc")
Status = Literal["passed", "failed", "skipped"]


class Fault(Exception):
    """The plugin fails the check; the text says what it did and what to change."""


class Skip(Exception):
    """The check cannot run here; the text says why. A check that cannot run never passes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one check."""

    check: str
    tier: str
    """Empty for what is looked at once for all tiers."""
    status: Status
    reason: str = ""
    """Of a check that passed: a note, mostly none."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that every plugin owes. `run` returns where it holds, else raises Fault or Skip.

    A text that it returns is a note for the reader, such as what the tier cannot enforce.
    """

    id: str
    title: str
    run: Callable[[Subject], Awaitable[str | None]]
    tiers: tuple[str, ...] = TIERS


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """A check that needs no host: of the plugin's files alone."""

    id: str
    title: str
    run: Callable[[Plan], None]


@dataclass(frozen=True, slots=True)
class OverCheck:
    """A check over all tiers, once each has run."""

    id: str
    title: str
    run: Callable[[Sequence[Subject]], str | None]
    needs: tuple[str, ...] = ()
    """Ids of the checks whose findings it looks at."""
