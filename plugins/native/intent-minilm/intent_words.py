"""A question as words that know where they stand, and the numbers among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NUMBER = "<n>"
"""What every number is for a comparison of wordings."""
_WORD = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\s\w]")
_ONES_NAMES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_ONES = {name: i for i, name in enumerate(_ONES_NAMES.split())}
_TENS = {name: 10 * i for i, name in enumerate(_TENS_NAMES.split(), 2)}
_BIG = {"thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
NUMBER_WORDS = frozenset([*_ONES, *_TENS, *_BIG, "hundred"])


@dataclass(frozen=True, slots=True)
class Word:
    """One word or mark of a text."""

    text: str
    """As it is written."""
    begin: int
    end: int
    """Its place in the text, `text[begin:end]`."""

    @property
    def plain(self) -> str:
        """Lower case, straight apostrophe."""
        return self.text.lower().replace("’", "'")

    @property
    def is_mark(self) -> bool:
        return not self.text[0].isalnum()

    @property
    def is_number(self) -> bool:
        return self.text[0].isdecimal() or self.plain in NUMBER_WORDS


def words_of(text: str) -> list[Word]:
    return [Word(m.group(), m.start(), m.end()) for m in _WORD.finditer(text)]


def shape(word: Word) -> str:
    """The word for a comparison of wordings: plain, numbers all alike."""
    return NUMBER if word.is_number else word.plain


def number_at(words: Sequence[Word], at: int) -> tuple[float, int] | None:
    """The number that begins at `at` and the place behind it: `twenty five`, `1,200`, `2.5`."""
    if at >= len(words):
        return None
    if words[at].text[0].isdecimal():
        value, after = float(words[at].text.replace(",", "").rstrip(".")), at + 1
    else:
        found = _spelled(words, at)
        if found is None:
            return None
        value, after = found
    if after + 1 < len(words) and words[after].plain == "point":
        return _with_decimals(words, value, after)
    return value, after


def _with_decimals(words: Sequence[Word], value: float, at: int) -> tuple[float, int]:
    """`three point one four`, from the word point."""
    digits, after = "", at + 1
    while after < len(words) and (digit := _digit(words[after])) is not None:
        digits, after = digits + digit, after + 1
    return (value + float(f"0.{digits}"), after) if digits else (value, at)


def _digit(word: Word) -> str | None:
    if word.text.isdecimal():
        return word.text
    one = _ONES.get(word.plain, 10)
    return str(one) if one < 10 else None


def _spelled(words: Sequence[Word], at: int) -> tuple[float, int] | None:
    """`two hundred and five thousand`; an `a` counts before hundred and thousand."""
    total, group, after, seen = 0, 0, at, False
    while after < len(words):
        name = words[after].plain
        following = words[after + 1].plain if after + 1 < len(words) else ""
        if name in _TENS and group % 100 == 0:
            group += _TENS[name]
        elif name in _ONES and (group % 10 == 0 and (_ONES[name] < 10 or group % 100 == 0)):
            group += _ONES[name]
        elif name == "hundred" and seen and group < 100:
            group = (group or 1) * 100
        elif name in _BIG and seen:
            total, group = total + (group or 1) * _BIG[name], 0
        elif name == "a" and not seen and following in ("hundred", *_BIG):
            group = 1
        elif not (name == "and" and seen and group % 100 == 0 and _counts(following)) and not (
            name == "-" and group % 100 >= 20 and _ONES.get(following, 10) < 10
        ):
            break
        seen, after = True, after + 1
    return (float(total + group), after) if seen else None


def _counts(name: str) -> bool:
    return name in _ONES or name in _TENS
