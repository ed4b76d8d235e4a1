"""The four levels of privacy, their order, and what each allows: pure rules, see docs/PRIVACY.md.

    public < sensitive (the default) < private < local-only

All that a plugin is given or makes belongs to a level. What bears no label is `sensitive`, so that
nothing is written or looked up where nobody chose a level. Two levels that meet give the
stricter one; nothing but the operator lowers one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from loom_sdk.errors import InvalidArguments

NAMES: Final = ("public", "sensitive", "private", "local-only")
"""By level, so `NAMES[PRIVATE]` is its name."""
PUBLIC, SENSITIVE, PRIVATE, LOCAL_ONLY = range(4)
DEFAULT: Final = SENSITIVE
"""Of whatever bears no label."""
LEVEL_OF: Final[Mapping[str, int]] = {name: level for level, name in enumerate(NAMES)}
KEY: Final = "privacy"
"""Where an event bears its label, in its metadata. The host writes it: see `labelled`."""
ASKED: Final = "routing.privacy"
"""Where a publisher may ask for a stricter one."""
LABELS: Final = ("private", "local-only")
"""What can be granted as `labels`: the levels that not every granted subscriber may read."""


def parse(text: str, where: str) -> int:
    """The level of a name. Raises InvalidArguments naming `where` and the known ones."""
    level = LEVEL_OF.get(text)
    if level is None:
        raise InvalidArguments(f"{where}: privacy {text!r} is not one of {', '.join(NAMES)}")
    return level


def strictest(*levels: int) -> int:
    """The highest of them; `DEFAULT` of none."""
    return max(levels, default=DEFAULT)


def level_of(metadata: Mapping[str, str]) -> int:
    """The level of an event. A label that nobody knows counts as the strictest."""
    label, asked = metadata.get(KEY), metadata.get(ASKED)
    level = LEVEL_OF.get(label, LOCAL_ONLY) if label else DEFAULT
    return max(level, LEVEL_OF.get(asked, LOCAL_ONLY)) if asked else level


def is_marked(metadata: Mapping[str, str]) -> bool:
    """Whether an event may be of another level than the default."""
    return bool(metadata) and (KEY in metadata or ASKED in metadata)


def labelled(metadata: Mapping[str, str], level: int) -> Mapping[str, str]:
    """The metadata with the label of `level`; the same object where it bears it already."""
    if metadata.get(KEY) == (None if level == DEFAULT else NAMES[level]):
        return metadata
    plain = {key: value for key, value in metadata.items() if key != KEY}
    return plain if level == DEFAULT else {**plain, KEY: NAMES[level]}


def granted(labels: Iterable[str]) -> int:
    """The strictest level that granted labels let a plugin read; `DEFAULT` of none."""
    return max((LEVEL_OF[label] for label in labels), default=DEFAULT)


def check_labels(labels: Iterable[str]) -> None:
    """Raises ValueError for what is no label that can be granted."""
    for label in labels:
        if label not in LABELS:
            raise ValueError(f"labels {label!r}: write one of {', '.join(LABELS)}")


def clearance(placement: str, labels: int) -> int:
    """The strictest label that a plugin may read.

    Args:
        placement: `cloud` where it has a way out of the machine, else `local`.
        labels: what it was granted, see `granted`.
    """
    return min(labels, PRIVATE) if placement == "cloud" else labels


def may_send(level: int, listed: bool) -> bool:
    """Whether something with a way out may be given what is of this level, or send in its turn.

    Args:
        listed: whether the operator named it: in `routing.private_tools` of the turn's agent, or
            by granting it the label.
    """
    return level < PRIVATE or (level == PRIVATE and listed)


def may_serve(level: int, placement: str, listed: bool) -> bool:
    """Whether a plugin may be invoked in a turn of this level; `listed` as in `may_send`."""
    return placement != "cloud" or may_send(level, listed)


def why_not(level: int, name: str) -> str:
    """Why `may_serve` says no, and what to do: for the reasons of a decision."""
    if level == LOCAL_ONLY:
        return f"{name} has a way out of this machine: nothing local-only reaches it"
    return f"{name} has a way out of this machine and is not listed in routing.private_tools"
