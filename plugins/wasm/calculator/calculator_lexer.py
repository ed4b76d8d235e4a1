"""A sum, written or spoken, to tokens: `twelve times 9` is number, `*`, number."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from loom_sdk.errors import ActionFailed

MAX_EXPONENT = 1200
"""Of a literal such as 1e9."""

_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: n for n, word in enumerate(_ONES)} | {
    word: 10 * n for n, word in enumerate(_TENS, start=2)
}
_DIGITS = {word: str(n) for n, word in enumerate(_ONES[:10])} | {"oh": "0"}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = {"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4)}

_PHRASES = {
    "**": "raised to the power of|to the power of|to the power|raised to|to the|**|^",
    "//": "//",
    "*": "multiplied by|times|x|×|·|*",
    "/": "divided by|over|÷|/",
    "+": "added to|plus|+",
    "-": "take away|minus|negative|less|-|−|–",
    "mod": "modulo|mod",
    "%": "percent|per cent|%",
    "squared": "squared|²",
    "cubed": "cubed|³",
    "degrees": "degrees|degree|°",
    "factorial": "factorial|!",
    "thirds": "thirds",
    "quarters": "quarters",
    "of": "of",
}
_WORDS = {
    "sqrt": "square root|sqrt|√",
    "cbrt": "cube root|cbrt",
    "abs": "absolute value|abs",
    "pi": "pi|π",
}
_OPERATORS = {text: name for name, texts in _PHRASES.items() for text in texts.split("|")}
_NAMES = {text: name for name, texts in _WORDS.items() for text in texts.split("|")}


def _alternatives() -> str:
    texts = sorted(_OPERATORS | _NAMES, key=len, reverse=True)
    return "|".join(rf"{re.escape(t)}\b" if t[0] in "abcdefghijklmnopqrstuvwxyz" else re.escape(t)
                    for t in texts).replace(r"\ ", r"\s+")  # fmt: skip


_SPOKEN = "|".join(text.replace(" ", r"\s+") for text in _OPERATORS if text[0].isalpha())
_TOKEN = re.compile(
    r"(?P<skip>\s+|(?:the|a|an|together)\b|away(?=\s+from\b)|[?=.]+\s*$)"
    # A recogniser's mark for a pause before an operator: "12? Times 9."
    rf"|(?P<pause>[?.,]+(?=\s+(?:{_SPOKEN})\b))"
    r"|(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!,?\d)|(?:\d+(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?)"
    rf"|(?P<joined>(?:{'|'.join(_TENS)})-(?:{'|'.join(_ONES[1:10])})\b)"
    rf"|(?P<phrase>{_alternatives()})"
    r"|(?P<word>[a-z]+\d*)|(?P<mark>[(),])"
)


class Token(NamedTuple):
    kind: str
    """"number", "name", "end", or the operator or mark itself in its written form."""
    text: str
    at: int
    """Index of its first character."""
    value: Fraction = Fraction(0)


def syntax_error(text: str, at: int, found: str) -> ActionFailed:
    what = f"{found!r}" if found else "the end"
    return ActionFailed(
        f"cannot read {what} at character {at + 1} of {text[:80]!r}: "
        "write a sum such as '12 * 9' or 'twelve times nine'",
        code="SYNTAX",
    )


def tokenize(text: str) -> list[Token]:
    """Tokens of a sum, number words already joined to numbers; the last is "end".

    Raises:
        ActionFailed: SYNTAX with the position, or TOO_LARGE for a literal.
    """
    lowered, at, depth = text.lower(), 0, 0
    tokens: list[Token] = []
    while at < len(lowered):
        match = _TOKEN.match(lowered, at)
        if match is None:
            raise syntax_error(text, at, text[at])
        kind, found = str(match.lastgroup), match.group()
        if kind == "pause":  # in brackets a comma parts arguments
            kind = "mark" if depth and found == "," else "skip"
        if kind == "number" and depth and "," in found:
            found = found.partition(",")[0]
        if kind != "skip":
            tokens.append(_token(kind, found, at))
        depth += (found == "(") - (found == ")")
        at += len(found)
    tokens.append(Token("end", "", len(text)))
    joined = _NumberJoiner(tokens).joined()
    return [_remainder(token, *joined[i + 1 : i + 2]) for i, token in enumerate(joined)]


def _remainder(token: Token, following: Token | None = None) -> Token:
    """`17 % 5` is a remainder, `15% of 80` and `15 %` are not."""
    operand = following is not None and following.kind in ("number", "name", "(")
    return token._replace(kind="mod") if token.text == "%" and operand else token


def _token(kind: str, found: str, at: int) -> Token:
    if kind == "number":
        return Token("number", found, at, _literal(found))
    if kind == "joined":
        tens, _, ones = found.partition("-")
        return Token("number", found, at, Fraction(_SMALL[tens] + _SMALL[ones]))
    if kind == "phrase":
        phrase = " ".join(found.split())
        if phrase in _OPERATORS:
            return Token(_OPERATORS[phrase], found, at)
        return Token("name", _NAMES[phrase], at)
    if found in _PARTS:
        return Token("number", found, at, _PARTS[found])
    return Token(found if kind == "mark" else "name", found, at)


def _literal(text: str) -> Fraction:
    mantissa, _, exponent = text.replace(",", "").partition("e")
    power = int(exponent or 0)
    if abs(power) > MAX_EXPONENT:
        raise ActionFailed(f"{text} is too large: use smaller numbers", code="TOO_LARGE")
    return Fraction(mantissa) * Fraction(10) ** power


class _NumberJoiner:
    """Reads number words: `three hundred and forty two`, `2.5 million`, `minus two point five`."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._index = tokens, 0

    def joined(self) -> list[Token]:
        found: list[Token] = []
        while self._index < len(self._tokens):
            begin, token = self._index, self._tokens[self._index]
            value = self._number() if self._begins_number(begin) else None
            if value is None or (self._index == begin + 1 and token.kind == "number"):
                found.append(token)
                self._index = begin + 1
            else:
                found.append(Token("number", "", token.at, value))
        return found

    def _word(self) -> str:
        return self._tokens[self._index].text

    def _begins_number(self, index: int) -> bool:
        token = self._tokens[index]
        known = token.text in _SMALL or token.text in _SCALES or token.text == "hundred"
        return token.kind == "number" or known

    def _skip_and(self) -> None:
        following = self._tokens[min(self._index + 1, len(self._tokens) - 1)]
        spoken = following.text in _SMALL or ("-" in following.text and following.kind == "number")
        if self._word() == "and" and spoken:
            self._index += 1

    def _number(self) -> Fraction:
        total, limit = Fraction(0), 10**12
        while True:
            group = self._hundreds()
            if self._word() == "point":
                group = (group or Fraction(0)) + self._decimals()
            scale = _SCALES.get(self._word(), limit)
            if scale >= limit:
                return total + (group or 0)
            total, limit = total + (1 if group is None else group) * scale, scale
            self._index += 1
            self._skip_and()
            if not self._begins_number(self._index):
                return total

    def _hundreds(self) -> Fraction | None:
        value = self._below_hundred()
        if self._word() != "hundred":
            return value
        self._index += 1
        self._skip_and()
        return (1 if value is None else value) * 100 + (self._below_hundred() or Fraction(0))

    def _below_hundred(self) -> Fraction | None:
        token = self._tokens[self._index]
        if token.kind == "number":
            self._index += 1
            return token.value
        if token.text not in _SMALL:
            return None
        self._index += 1
        value, ones = _SMALL[token.text], _SMALL.get(self._word(), 0)
        if value >= 20 and 0 < ones < 10:
            self._index += 1
            value += ones
        return Fraction(value)

    def _decimals(self) -> Fraction:
        """`point five two`, `point 5`; without digits the word stays where it is."""
        index, digits = self._index + 1, ""
        while (text := self._tokens[index].text) in _DIGITS or text.isdecimal():
            digits += _DIGITS.get(text, text)
            index += 1
        if digits:
            self._index = index
        return Fraction(f"0.{digits or 0}")
