"""Exact arithmetic for agents: text as written or as spoken in, number and sentence out.

    sum     := product (("+" | "-") product)*
    product := unary (("*" | "/" | "//" | "mod" | "of") unary)*
    unary   := ("-" | "+") unary | power
    power   := postfix ("**" unary)?
    postfix := atom ("%" | "!" | "squared" | "cubed" | "degrees" | "thirds" | "quarters")*
    atom    := number | "pi" | "e" | "(" sum ")" | function "(" sum ("," sum)* ")"
             | function "of"? power | verb sum (word sum)+

Numbers are fractions, so `0.1 + 0.2` is 0.3. What is irrational is worked out with 40 digits
(trigonometry: 15) and shown with 12. `%` before an operand is the remainder, else a hundredth.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from typing import Annotated, TypedDict

from calculator_functions import PI, E, Functions, bounded, decimal_of, divide, nonzero, too_large
from calculator_lexer import Token, syntax_error, tokenize

from loom_sdk import Plugin, tool

MAX_LENGTH = 500
"""Characters of an expression."""
MAX_DEPTH = 40
SHOWN_DIGITS = 12
EXACT_DIGITS = 20
"""A decimal fraction of up to so many digits is written out in full."""
SPOKEN_PLACES = 4

Binary = Callable[[Fraction, Fraction], Fraction]
_SUMS: dict[str, Binary] = {"+": operator.add, "-": operator.sub}
_PRODUCTS: dict[str, Binary] = {
    "*": operator.mul,
    "of": operator.mul,
    "/": divide,
    "//": lambda a, b: Fraction(a // nonzero(b)),
    "mod": lambda a, b: a % nonzero(b),
}
_VERBS: dict[str, tuple[tuple[str, ...], Binary]] = {
    "multiply": (("by", "and", ","), operator.mul),
    "divide": (("by",), divide),
    "add": (("and", "to", ","), operator.add),
    "subtract": (("from",), lambda a, b: b - a),
    "take": (("from",), lambda a, b: b - a),
    "sum": (("and", ","), operator.add),
    "product": (("and", ","), operator.mul),
    "difference": (("and",), operator.sub),
}
_SAID = {
    "+": "plus", "-": "minus", "*": "times", "/": "divided by", "**": "to the power of",
    "//": "divided in whole by", "%": "percent", "mod": "modulo", "sqrt": "the square root of",
    "cbrt": "the cube root of", "abs": "the absolute value of", "ln": "the natural logarithm of",
}  # fmt: skip
MAX_SAID_TOKENS = 9
_POSTFIXES = ("%", "factorial", "squared", "cubed", "degrees", "thirds", "quarters")
_SHARES = {"%": 100, "thirds": 3, "quarters": 4}


class Answer(TypedDict):
    result: Annotated[str, "the number, in full or with 12 significant digits"]
    speech: Annotated[str, "the sentence to be spoken"]


class Calculator(Plugin):
    """Evaluates sums. Needs no grant."""

    @tool("calculator.evaluate", effects="none")
    def evaluate(self, ctx: object, expression: str) -> Answer:
        """Work out a sum with numbers.

        Args:
            expression: the sum, such as "12 * 9" or "twelve times nine"

        Raises:
            ActionFailed: SYNTAX with the position, DIVISION_BY_ZERO, TOO_LARGE, or DOMAIN
                where there is no real value.
        """
        return calculate(expression)


def calculate(expression: str) -> Answer:
    """As `Calculator.evaluate`, without a plugin around it."""
    if len(expression) > MAX_LENGTH:
        raise too_large(f"a sum of {len(expression)} characters")
    parser = _Parser(expression)
    value = parser.parse()
    text = written(value)
    exact = parser.functions.exact and Fraction(text) == value
    said = spoken(value, exact)
    return {"result": text, "speech": f"{sentence(parser.tokens)} is {said}."}


class _Parser:
    """Recursive descent; one method for each rule of the module's grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.tokens = tokenize(text)
        self.functions = Functions()
        self._index = self._depth = 0

    def parse(self) -> Fraction:
        value = self._sum()
        if self._peek().kind != "end":
            raise self._error()
        return value

    def _peek(self, ahead: int = 0) -> Token:
        return self.tokens[min(self._index + ahead, len(self.tokens) - 1)]

    def _take(self, *kinds: str) -> str:
        """Steps over a token of one of these kinds; returns which, or an empty text."""
        kind = self._peek().kind
        if kind not in kinds:
            return ""
        self._index += 1
        return kind

    def _error(self) -> Exception:
        token = self._peek()
        end = self._peek(1).at if token.kind != "end" else len(self._text)
        return syntax_error(self._text, token.at, self._text[token.at : end].strip())

    def _binary(self, rule: Callable[[], Fraction], table: dict[str, Binary]) -> Fraction:
        value = rule()
        while kind := self._take(*table):
            value = self.functions.settle(table[kind](value, rule()))
        return value

    def _sum(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise too_large("the nesting of brackets")
        value = self._binary(self._product, _SUMS)
        self._depth -= 1
        return value

    def _product(self) -> Fraction:
        return self._binary(self._unary, _PRODUCTS)

    def _unary(self) -> Fraction:
        sign = 1
        while kind := self._take("-", "+"):
            sign = -sign if kind == "-" else sign
        return sign * self._power()

    def _power(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise too_large("the nesting of powers")
        value = self._postfix()
        if self._take("**"):
            value = self.functions.settle(self.functions.power(value, self._unary()))
        self._depth -= 1
        return value

    def _postfix(self) -> Fraction:
        value = self._atom()
        while kind := self._take(*_POSTFIXES):
            value = self.functions.settle(self._applied(kind, value))
        return value

    def _applied(self, kind: str, value: Fraction) -> Fraction:
        if kind in _SHARES:
            return value / _SHARES[kind]
        if kind == "degrees":
            return value * PI / 180
        if kind == "factorial":
            return self.functions.factorial(value)
        return self.functions.power(value, Fraction(2 if kind == "squared" else 3))

    def _atom(self) -> Fraction:
        token = self._peek()
        if self._take("number"):
            return bounded(token.value)
        if self._take("("):
            value = self._sum()
            self._expect(")")
            return value
        name = "factorial" if token.kind == "factorial" else token.text
        if token.text in ("pi", "e"):
            self._index += 1
            return self.functions.approximate(decimal_of(PI if token.text == "pi" else E))
        if token.text in _VERBS:
            self._index += 1
            return self._verb(*_VERBS[token.text])
        if token.kind in ("name", "factorial") and name in self.functions:
            self._index += 1
            return self.functions.call(name, self._arguments())
        raise self._error()

    def _expect(self, kind: str) -> None:
        if not self._take(kind):
            raise self._error()

    def _arguments(self) -> list[Fraction]:
        if not self._take("("):
            self._take("of")
            return [self._power()]
        values = [self._sum()]
        while self._take(","):
            values.append(self._sum())
        self._expect(")")
        return values

    def _verb(self, separators: tuple[str, ...], apply: Binary) -> Fraction:
        """`multiply 3 by 4`, `the sum of 3, 4 and 5`."""
        if self._peek().kind == "of" or self._peek().text == "between":
            self._index += 1
        value = self._sum()
        if self._peek().text not in separators:
            raise self._error()
        while self._peek().text in separators:
            self._index += 2 if self._peek(1).text == "and" else 1
            value = self.functions.settle(apply(value, self._sum()))
        return value


def written(value: Fraction) -> str:
    """A whole number or short decimal in full, else 12 significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    places = 0
    while places <= EXACT_DIGITS and (value * 10**places).denominator != 1:
        places += 1
    whole = value * 10**places
    if whole.denominator == 1 and len(str(abs(whole.numerator))) <= EXACT_DIGITS:
        return f"{Decimal(whole.numerator).scaleb(-places):f}"
    rounded = Context(prec=SHOWN_DIGITS).plus(decimal_of(value)).normalize()
    small = -6 <= rounded.adjusted() <= EXACT_DIGITS
    return f"{rounded:f}" if small else f"{rounded:e}"


def spoken(value: Fraction, exact: bool) -> str:
    """The number as a sentence names it: at most 4 decimal places, "about" where rounded."""
    size = abs(value)
    sign = "minus " if value < 0 else ""
    if size >= 10**15 or 0 < size < Fraction(1, 10**SPOKEN_PLACES):
        digits = Context(prec=3).plus(decimal_of(size)).normalize()
        power = digits.adjusted()
        mantissa = digits.scaleb(-power).normalize()
        about = "" if exact and Fraction(digits) == size else "about "
        exponent = f"minus {-power}" if power < 0 else str(power)
        return f"{about}{sign}{mantissa:f} times 10 to the power of {exponent}"
    rounded = round(size * 10**SPOKEN_PLACES) / Fraction(10**SPOKEN_PLACES)
    about = "" if exact and rounded == size else "about "
    return f"{about}{sign}{written(rounded)}"


def sentence(tokens: list[Token]) -> str:
    """The sum in words that a voice reads well, or "The result" where it is long or nested."""
    nested = any(token.text in _VERBS or token.kind in "(," for token in tokens[:-1])
    if nested or not 2 <= len(tokens) - 1 <= MAX_SAID_TOKENS:
        return "The result"
    text = " ".join(map(_said, tokens[:-1])).replace(" of of ", " of ")
    return text[0].upper() + text[1:]


def _said(token: Token) -> str:
    if token.kind == "number":
        return token.text if token.text.isalpha() else written(token.value)
    name = token.text if token.kind == "name" else token.kind
    return _SAID.get(name, name)
