"""Lengths of time as people say them, in seconds."""

from __future__ import annotations

from collections.abc import Sequence

from intent_words import Word, number_at

_UNITS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86_400,
          "week": 604_800, "s": 1, "m": 60, "h": 3600}  # fmt: skip
_SHARES = {"half": 0.5, "quarter": 0.25}
_ARTICLES = ("a", "an", "one")


def duration(words: Sequence[Word]) -> float | None:
    """Seconds of the first length of time in a text; parts that follow each other are added.

    `5 minutes`, `one minute thirty`, `an hour and a half`, `two and a half hours`, `half an hour`,
    `three quarters of an hour`, `1 hour, 20 minutes and 5 seconds`, `a 90 second` timer.
    """
    for at in range(len(words)):
        if (part := _part(words, at)) is None:
            continue
        total, at = part
        while (part := _part(words, _behind_and(words, at))) is not None:
            total, at = total + part[0], part[1]
        return total
    return None


def _behind_and(words: Sequence[Word], at: int) -> int:
    while at < len(words) and words[at].plain in ("and", ",", "plus"):
        at += 1
    return at


def _part(words: Sequence[Word], at: int) -> tuple[float, int] | None:
    """One amount with its unit, and the place behind it."""
    amount = _share(words, at) or _amount(words, at)
    if amount is None:
        return None
    value, after = amount
    while _word(words, after) in ("-", "of", "an", "a"):
        after += 1
    size = _unit(words, after)
    if size is None:
        return None
    after += 1
    if _phrase(words, after, 3) in ("and a half", "and a quarter"):
        return (value + _SHARES[words[after + 2].plain]) * size, after + 3
    rest = number_at(words, after)
    if rest and size in (60, 3600) and rest[0] < 60 and _unit(words, rest[1]) is None:
        return value * size + rest[0] * size / 60, rest[1]
    return value * size, after


def _amount(words: Sequence[Word], at: int) -> tuple[float, int] | None:
    if (found := number_at(words, at)) is not None:
        value, after = found
        if _phrase(words, after, 3) in ("and a half", "and a quarter"):
            return value + _SHARES[words[after + 2].plain], after + 3
        return value, after
    if _phrase(words, at, 3) == "a couple of":
        return 2.0, at + 3
    if _word(words, at) in _ARTICLES:
        return 1.0, at + 1
    return None


def _share(words: Sequence[Word], at: int) -> tuple[float, int] | None:
    """`half`, `a quarter`, `three quarters`, `half a`; the unit follows."""
    count, after = 1.0, at
    if (found := number_at(words, at)) is not None:
        count, after = found
    elif _word(words, at) == "a":
        after = at + 1
    share = _SHARES.get(_word(words, after).removesuffix("s"))
    return None if share is None else (count * share, after + 1)


def _unit(words: Sequence[Word], at: int) -> int | None:
    name = _word(words, at)
    return _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))


def _word(words: Sequence[Word], at: int) -> str:
    return words[at].plain if at < len(words) else ""


def _phrase(words: Sequence[Word], at: int, count: int) -> str:
    return " ".join(word.plain for word in words[at : at + count])
