"""Finds wake phrases in what a recogniser wrote. Pure functions and one class, no host.

Recognisers write an unusual name in many ways ("Hey, Lume", "Helloom"), so a phrase is matched by
resemblance; and ordinary words resemble it ("Hey, look"), so a short phrase must also stand where
one addresses somebody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
OPENERS = frozenset(
    {"hey", "hi", "hello", "ok", "okay", "yo", "so", "and", "well", "um", "uh", "now", "please"}
)
"""Words after which a name is an address."""
TOKEN_FLOOR = 0.85
"""No word of a phrase may resemble less than this (Jaro-Winkler), or an exact "hey" would carry
"looking" over the mean."""
JOINED_LETTERS = 6
"""Phrases of at least so many letters are also found written as one word."""


def levenshtein(a: str, b: str) -> int:
    """Least number of letters to insert, delete or replace (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def jaro(a: str, b: str) -> float:
    """Jaro's resemblance, 0 to 1: common letters in reach, less half of those out of order."""
    if not a or not b:
        return float(a == b)
    reach = max(0, max(len(a), len(b)) // 2 - 1)
    taken = [False] * len(b)
    common_a = []
    for i, letter in enumerate(a):
        for j in range(max(0, i - reach), min(len(b), i + reach + 1)):
            if not taken[j] and b[j] == letter:
                taken[j] = True
                common_a.append(letter)
                break
    common_b = [letter for letter, used in zip(b, taken, strict=True) if used]
    m = len(common_a)
    if m == 0:
        return 0.0
    swapped = sum(x != y for x, y in zip(common_a, common_b, strict=True)) // 2
    return (m / len(a) + m / len(b) + (m - swapped) / m) / 3


def jaro_winkler(a: str, b: str) -> float:
    """Jaro's resemblance with Winkler's bonus of 0.1 per common first letter, at most four."""
    base = jaro(a, b)
    prefix = 0
    for x, y in zip(a[:4], b[:4], strict=False):
        if x != y:
            break
        prefix += 1
    return base + 0.1 * prefix * (1 - base)


def sound(word: str) -> str:
    """Roughly how an English word sounds: "loom", "lume", "lewm" and "lum" are one."""
    word = re.sub(r"oo|ou|ew|ue|ui|eu", "u", word)
    word = re.sub(r"ph", "f", re.sub(r"ck|c(?![hie])", "k", word))
    word = re.sub(r"(.)\1", r"\1", word)
    return re.sub(r"(?<=[^aeiou])e$", "", word) if len(word) > 2 else word


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the text: as compared, and where it stands."""

    text: str
    start: int
    end: int


def tokens_of(text: str) -> list[Token]:
    """The words in lower case without punctuation."""
    return [
        Token(re.sub(r"['’]", "", found.group().lower()), found.start(), found.end())
        for found in WORD.finditer(text)
    ]


@dataclass(frozen=True, slots=True)
class Match:
    """Where a phrase was found."""

    phrase: str
    score: float
    """Mean Jaro-Winkler resemblance of the words, 1 when exact."""
    end: int
    """Index in the text behind the phrase."""


class Matcher:
    """Finds phrases in texts. Holds the settings in compared form."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._phrases = [(" ".join(words), words) for words in _split(config["phrases"])]
        self._heard_as = _split(config["heard_as"])
        self._banned = {word for words in _split(config["not_heard_as"]) for word in words}
        self._distance: int = config["max_distance"]
        self._threshold: float = config["jaro_winkler_threshold"]
        self._anywhere: bool = config["match_anywhere"]

    def find(self, text: str) -> Match | None:
        """The first place where a phrase is, by the order of the phrases."""
        tokens = tokens_of(text)
        for phrase, words in self._phrases:
            starts = range(len(tokens)) if self._anywhere else range(min(1, len(tokens)))
            for start in starts:
                if match := self._at(text, tokens, start, phrase, words):
                    return match
        return self._alias(text, tokens)

    def _at(
        self, text: str, tokens: list[Token], start: int, phrase: str, words: list[str]
    ) -> Match | None:
        window = tokens[start : start + len(words)]
        score = self._score([token.text for token in window], words)
        if score and (len(words) > 1 or self._addressed(text, tokens, start, score)):
            return Match(phrase, round(score, 3), window[-1].end)
        joined, token = "".join(words), tokens[start]
        if len(words) > 1 and len(joined) >= JOINED_LETTERS:
            near = levenshtein(token.text, joined) <= self._distance
            if near and token.text not in self._banned:
                return Match(phrase, round(jaro_winkler(token.text, joined), 3), token.end)
        return None

    def _score(self, heard: list[str], words: list[str]) -> float:
        """Mean resemblance, or 0 where the words do not count as the phrase."""
        if len(heard) != len(words):
            return 0.0
        pairs = list(zip(heard, words, strict=True))
        if any(token in self._banned and token != word for token, word in pairs):
            return 0.0
        alike = [_alike(token, word) for token, word in pairs]
        mean = sum(alike) / len(alike)
        close = all(
            likeness == 1.0 or levenshtein(token, word) <= min(self._distance, len(word) - 1)
            for likeness, (token, word) in zip(alike, pairs, strict=True)
        )
        return mean if close or (mean >= self._threshold and min(alike) >= TOKEN_FLOOR) else 0.0

    def _addressed(self, text: str, tokens: list[Token], start: int, score: float) -> bool:
        """A one-word phrase may be an ordinary word: it counts where one calls a name.

        That is at the start, after an opener or behind punctuation; if it only resembles the
        phrase, at the start or after a first opener, and set off from the rest. One letter before
        it is a "hey" misheard ("A loom, what is").
        """
        opened = start == 0 or tokens[start - 1].text in OPENERS
        if score < 1.0:
            return opened and start <= 1 and _set_off(text, tokens, start)
        if start == 1 and len(tokens[0].text) == 1 and _set_off(text, tokens, start):
            return True
        return opened or not text[tokens[start - 1].end : tokens[start].start].isspace()

    def _alias(self, text: str, tokens: list[Token]) -> Match | None:
        heard = [token.text for token in tokens]
        for words in self._heard_as:
            if heard[: len(words)] == words and _set_off(text, tokens, len(words) - 1):
                scored = [
                    (jaro_winkler(" ".join(words), phrase), phrase) for phrase, _ in self._phrases
                ]
                score, phrase = max(scored)
                return Match(phrase, round(score, 3), tokens[len(words) - 1].end)
        return None

    def remainder(self, text: str, match: Match) -> str:
        """What follows the phrase, as written; where it is said again, what follows the last.

        Inside a question only a phrase of several words counts, and only with words behind it: a
        name can be what the question is about.
        """
        rest = _from_word(text[match.end :])
        while again := self.find(rest) if rest else None:
            after = _from_word(rest[again.end :])
            if not self._begins(rest, again) and (" " not in again.phrase or not after):
                break
            rest = after
        return rest

    @staticmethod
    def _begins(rest: str, match: Match) -> bool:
        return len(WORD.findall(rest[: match.end])) <= len(match.phrase.split())


def _from_word(text: str) -> str:
    first = WORD.search(text)
    return text[first.start() :].strip() if first else ""


def _set_off(text: str, tokens: list[Token], index: int) -> bool:
    """Whether punctuation or the end follows a word; always in a text that has none at all."""
    if index + 1 == len(tokens):
        return True
    if not text[tokens[index].end : tokens[index + 1].start].isspace():
        return True
    return all(letter.isalnum() or letter.isspace() or letter in "'’" for letter in text)


def _split(phrases: Sequence[str]) -> list[list[str]]:
    split = [[token.text for token in tokens_of(phrase)] for phrase in phrases]
    return [words for words in split if words]


def _alike(token: str, word: str) -> float:
    return 1.0 if token == word or sound(token) == sound(word) else jaro_winkler(token, word)
