"""The name of a place in a question, by the words around it: there is no list of places here."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from intent_words import Word, words_of

_BEFORE = frozenset({"in", "for", "at", "near", "around", "of", "over", "to", "across"})
_PART = r"(?:morning|afternoon|evening|night|weekend|week|month|year|moment|day|hour)s?"
_DAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_WHEN = re.compile(
    rf"""\b(?: (?:right\ |just\ )?now | today(?:'s)? | tonight | tomorrow(?:\ {_PART})?
    | currently | please
    | (?:later|early|late)(?:\ on)? | at\ present | at\ all | outside
    | (?:(?:in|at|on|over|for|during)\ )?(?:this|next|the|these|coming)\ (?:coming\ |next\ )?
      (?:\w+\ )?{_PART}
    | (?:(?:on|this|next|for)\ )?{_DAY}(?:\ (?:morning|afternoon|evening|night))?
    | (?:in|for)\ (?:degrees\ )?(?:celsius|fahrenheit|centigrade)
    )(?!['\w])""",
    re.IGNORECASE | re.VERBOSE,
)
_NEVER_NAMES = """
a an and any are be can could did do does for has have here i if in is it it's like me my now of on
or our so some tell that the then there this to us was we what what's where will with would you your
how how's going gonna get got give show check know need want right local currently there's outside
inside out up good hot cold warm look looking at over
"""
_NEVER = frozenset(_NEVER_NAMES.split())


def place(text: str, ordinary: Collection[str]) -> str | None:
    """The place that `text` names, as it is written there; None where there is none.

    It is what follows a preposition, else what is written with a capital, else, in a text without
    capitals, words that are none of `ordinary`: `Is it warm in Rome?`, `Rome weather`, `rome
    weather`.
    """
    words = words_of(_WHEN.sub(lambda m: " " * len(m.group()), text))
    words = [w for w in words if not (w.is_mark and w.text not in ",-.'")]
    known = _NEVER | set(ordinary)
    found = _behind_preposition(words) or _capitalised(words, known)
    if not found and text == text.lower():
        found = _strange(words, known)
    if not found:
        return None
    name = text[found[0].begin : found[-1].end]
    return re.sub(r"['’]s?$", "", name).strip(" ,.-") or None


def _behind_preposition(words: Sequence[Word]) -> Sequence[Word] | None:
    """What follows the last preposition, up to a mark that ends it or a verb of the question."""
    for at in range(len(words) - 2, -1, -1):
        if words[at].plain not in _BEFORE:
            continue
        rest = list(words[at + 1 :])
        while rest and rest[0].plain in ("the", "in", "to", ",") and len(rest) > 1:
            rest.pop(0)
        end = next((i for i, word in enumerate(rest) if _ends(rest, i)), len(rest))
        if end:
            return rest[:end]
    return None


def _ends(words: Sequence[Word], at: int) -> bool:
    word = words[at]
    if word.is_mark:
        behind = words[at + 1].text[:1] if at + 1 < len(words) else ""
        return not (word.text in "-'." or (word.text == "," and behind.isupper()))
    return (word.plain in _NEVER and word.plain not in ("the", "and", "of")) or word.is_number


def _capitalised(words: Sequence[Word], known: Collection[str]) -> Sequence[Word] | None:
    """The longest run of names, the first word of a sentence only if it is not a known one."""
    best: list[Word] = []
    run: list[Word] = []
    for at, word in enumerate(words):
        bare = word.plain.removesuffix("'s")
        name = word.text[0].isupper() and bare not in known and not bare.startswith("i'")
        following = words[at + 1 : at + 2]
        comma = word.text == "," and run and following and following[0].text[0].isupper()
        if comma or (name and len(words) > 1):
            run = [*run, word]
            best = max(best, run, key=len)
        else:
            run = []
    return best or None


def _strange(words: Sequence[Word], known: Collection[str]) -> Sequence[Word] | None:
    """The longest run of words that no example has around a place."""
    best: list[Word] = []
    run: list[Word] = []
    for word in words:
        if word.is_mark or word.is_number or word.plain.removesuffix("'s") in known:
            run = []
        else:
            run = [*run, word]
            best = max(best, run, key=len)
    return best or None
