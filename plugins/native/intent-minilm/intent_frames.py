"""Where the wanted words begin and end, learned from where they do in the examples.

A question is cut into three: what is said before, the wanted words, what is said behind. Each cut
is scored by how often the examples have such words, and such neighbours, in such a part; the best
one of all cuts is taken. Questions are short, so that all of them are tried.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from intent_words import NUMBER, Word, shape, words_of

EDGE = "^"
_COMMON_WORDS = """
a an the is are was be am i you he she it we they my your our his her and or of to in on at for from
with by as that this what how who when where which not do does did have has had can will would about
up out
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_POLITE = ("please", "can you", "could you", "would you", "can you please", "could you please",
           "i want to", "i would like to", "i'd like to", "i need to", "hey", "ok", "okay",
           "hello", "so", "now", "just", "well", "will you", "let's", "for me")  # fmt: skip
_BEHIND = ("please", "for me", "for me please", "thanks", "thank you", "now", "right now")
_WANTED_COMMON, _WANTED_RARE = 1 / 200, 1 / 2500
"""Chance of a word among wanted words that no example tells anything of."""
_STRANGE = 1 / 12_000
"""Chance of a word outside of them that no example has there."""
_FOREIGN = 1e-6
"""Chance of a word among wanted ones of a closed kind that no example has there."""
_BACKOFF = 0.15
"""Of a known word next to one that it never follows in the examples."""
_FLOOR = 0.01
"""Chance of a cut at a word where no example has one."""
_OTHER_SIDE = 0.3
"""Share of a word that the examples only have on the other side: orders change."""
_AT_MARK = {":": 4.0, ",": 1.5, ";": 1.5}
"""What a mark adds to the log chance of a cut; transcripts have some."""
_LONGEST = 60


class Side:
    """The words on one side of what is wanted, read away from the question's edge."""

    def __init__(self) -> None:
        self.other: Side = self
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._after: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()

    def learn(self, words: Sequence[str], count: int = 1) -> None:
        for before, word in zip([EDGE, *words], words, strict=False):
            self._pairs[before, word] += count
            self._after[before] += count
            self._words[word] += count
        self._ends[words[-1] if words else EDGE] += count

    def learn_polite(self, phrase: Sequence[str]) -> None:
        """Words that may come first, with nothing said of where they lead."""
        for before, word in zip([EDGE, *phrase], phrase, strict=False):
            self._pairs[before, word] += 1
            self._after[before] += 1
            self._words[word] += 1

    def chances(self, words: Sequence[str]) -> list[float]:
        """Log chance that the first n of `words` stand here and the wanted ones follow, by n."""
        total, found = 0.0, [self._cut(EDGE)]
        for before, word in zip([EDGE, *words], words, strict=False):
            total += self._step(before, word)
            found.append(total + self._cut(word))
        return found

    def _step(self, before: str, word: str) -> float:
        alone = _BACKOFF * (self._share(word) + _OTHER_SIDE * self.other._share(word))
        pair = self._pairs[before, word] / (self._after[before] + 1)
        return math.log(max(pair + alone, _STRANGE))

    def _share(self, word: str) -> float:
        return self._words[word] / max(1, self._words.total())

    def _cut(self, last: str) -> float:
        seen = self._words[last] if last != EDGE else self._ends.total()
        if not seen:
            return math.log(_FLOOR / 4)
        return math.log((self._ends[last] + _FLOOR) / (seen + 1))


class Frames:
    """Learned from one argument of one tool."""

    def __init__(self, rows: Iterable[tuple[str, str]], *, closed: bool = False) -> None:
        """`rows`: questions, and the words of each that are wanted.

        `closed`: the wanted words are always of those that the examples have, as in sums.
        """
        self._before, self._behind = Side(), Side()
        self._before.other, self._behind.other = self._behind, self._before
        self._wanted: Counter[str] = Counter()
        self._closed = closed
        for phrase in _POLITE:
            self._before.learn_polite(phrase.split())
        for phrase in _BEHIND:
            self._behind.learn(phrase.split()[::-1])
        for question, value in rows:
            self._learn(question, value)

    def _learn(self, question: str, value: str) -> None:
        at = question.lower().find(value.lower())
        if at < 0 or not value:
            return
        words = _spoken(question)
        self._before.learn([shape(w) for w in words if w.end <= at])
        behind = [shape(w) for w in words if w.begin >= at + len(value)]
        self._behind.learn(behind[::-1])
        self._wanted.update(shape(w) for w in _spoken(value))

    def best(self, text: str) -> str:
        """The wanted words of `text` as they are written; empty for a text without words."""
        words = _spoken(text)[:_LONGEST]
        if not words:
            return ""
        shapes = [shape(word) for word in words]
        before = self._before.chances(shapes)
        behind = self._behind.chances(shapes[::-1])[::-1]
        inside = [0.0]
        for name in shapes:
            inside.append(inside[-1] + math.log(self._chance(name)))
        for at, mark in enumerate(_marks(text, words), 1):
            before[at] += mark
            behind[at] += mark
        cuts = [(b, e) for b in range(len(words)) for e in range(b + 1, len(words) + 1)]
        begin, end = max(
            cuts, key=lambda cut: before[cut[0]] + behind[cut[1]] + inside[cut[1]] - inside[cut[0]]
        )
        return _with_marks(text, words[begin].begin, words[end - 1].end)

    def _chance(self, name: str) -> float:
        if self._closed:
            return max(_FOREIGN, self._wanted[name] / max(1, self._wanted.total()))
        return _WANTED_COMMON if name in _COMMON or name == NUMBER else _WANTED_RARE


def _spoken(text: str) -> list[Word]:
    """The words without the marks, which nobody speaks."""
    return [word for word in words_of(text) if not word.is_mark]


def _marks(text: str, words: Sequence[Word]) -> list[float]:
    """What the mark behind each word but the last adds to a cut there."""
    return [_AT_MARK.get(text[word.end : word.end + 1], 0.0) for word in words[:-1]]


def _with_marks(text: str, begin: int, end: int) -> str:
    """`text[begin:end]` with the signs that belong to its first and last word."""
    while begin and text[begin - 1] in "-+($€£":
        begin -= 1
    while end < len(text) and text[end] in "%)°":
        end += 1
    return text[begin:end]
