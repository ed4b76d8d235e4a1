"""Bounded exact arithmetic on fractions, and the functions that leave it."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction

from loom_sdk.errors import ActionFailed

MAX_BITS = 4096
"""Size of a numerator or denominator: 1,233 decimal digits."""
MAX_FACTORIAL = 450
MAX_ROOT = 64
MAX_EXP = 2700
"""e to this power, with DIGITS, is just below MAX_BITS."""
DIGITS = 40
"""Digits kept of an irrational value; trigonometry is in 64-bit floats: 15."""

PI = Fraction("3.14159265358979323846264338327950288419716939937510")
E = Fraction("2.71828182845904523536028747135266249775724709369996")
_CONTEXT = Context(prec=DIGITS)


def too_large(what: str) -> ActionFailed:
    return ActionFailed(f"{what} is too large: use smaller numbers", code="TOO_LARGE")


def no_value(what: str) -> ActionFailed:
    return ActionFailed(f"{what} has no real value", code="DOMAIN")


def bounded(value: Fraction) -> Fraction:
    """The value itself. Raises ActionFailed(TOO_LARGE) above MAX_BITS."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise too_large("the result")
    return value


def divide(left: Fraction, right: Fraction) -> Fraction:
    return left / nonzero(right)


def nonzero(value: Fraction) -> Fraction:
    if value == 0:
        raise ActionFailed("cannot divide by zero: change the divisor", code="DIVISION_BY_ZERO")
    return value


def decimal_of(value: Fraction) -> Decimal:
    return _CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator))


class Functions:
    """The functions by name. `exact` turns False once an irrational value was rounded."""

    def __init__(self) -> None:
        self.exact = True
        one: dict[str, Callable[[Fraction], Fraction]] = {
            "sqrt": lambda x: self.root(x, 2),
            "cbrt": lambda x: self.root(x, 3),
            "abs": abs,
            "floor": lambda x: Fraction(math.floor(x)),
            "ceil": lambda x: Fraction(math.ceil(x)),
            "ln": self._ln,
            "exp": self._exp,
            "factorial": self.factorial,
            "log2": lambda x: self._log(x, Fraction(2)),
        }
        names = ("sin", "cos", "tan", "asin", "acos", "atan")
        one |= {name: self._trigonometric(name) for name in names}
        self._one = one
        self._many: dict[str, Callable[..., Fraction]] = {
            "min": min,
            "max": max,
            "gcd": lambda *xs: Fraction(math.gcd(*map(_whole, xs))),
            "lcm": lambda *xs: Fraction(math.lcm(*map(_whole, xs))),
            "round": _round,
            "log": self._log,
        }

    def __contains__(self, name: str) -> bool:
        return name in self._one or name in self._many

    def call(self, name: str, values: list[Fraction]) -> Fraction:
        """Raises ActionFailed: SYNTAX for a wrong number of arguments, DOMAIN, TOO_LARGE."""
        most = 1 if name in self._one else 2 if name in ("round", "log") else 100
        if not 1 <= len(values) <= most:
            raise ActionFailed(f"{name} takes at most {most} numbers", code="SYNTAX")
        if name in self._one:
            return bounded(self._one[name](values[0]))
        if name in ("min", "max"):
            return min(values) if name == "min" else max(values)
        return bounded(self._many[name](*values))

    def approximate(self, value: Decimal | float) -> Fraction:
        self.exact = False
        return Fraction(value)

    def settle(self, value: Fraction) -> Fraction:
        """Keeps a rounded value from growing digits that mean nothing."""
        return bounded(value) if self.exact else bounded(Fraction(decimal_of(bounded(value))))

    def power(self, base: Fraction, exponent: Fraction) -> Fraction:
        """`base ** exponent`, exact where the result is rational and small roots reach it."""
        if base == 0 and exponent < 0:
            nonzero(base)
        if exponent.denominator == 1:
            return self._whole_power(base, exponent.numerator)
        if base < 0:
            raise no_value("a fraction power of a negative number")
        if exponent.denominator <= MAX_ROOT:
            root = self.root(base, exponent.denominator)
            if self.exact:
                return self._whole_power(root, exponent.numerator)
        if base == 0:
            return base
        return self._exp(exponent * self._ln(base))

    def _whole_power(self, base: Fraction, exponent: int) -> Fraction:
        if base in (0, 1, -1):
            return base if exponent % 2 else base * base if exponent else Fraction(1)
        size = max(base.numerator.bit_length(), base.denominator.bit_length()) - 1
        if abs(exponent) * max(size, 1) > MAX_BITS:
            raise too_large("the power")
        return bounded(base**exponent)

    def root(self, value: Fraction, degree: int) -> Fraction:
        if value < 0:
            if degree % 2 == 0:
                raise no_value("an even root of a negative number")
            return -self.root(-value, degree)
        above, below = (_whole_root(n, degree) for n in value.as_integer_ratio())
        if above is not None and below is not None:
            return Fraction(above, below)
        number = decimal_of(value)
        if degree == 2:
            return self.approximate(_CONTEXT.sqrt(number))
        return self.approximate(_CONTEXT.power(number, _CONTEXT.divide(Decimal(1), degree)))

    def factorial(self, value: Fraction) -> Fraction:
        number = _whole(value)
        if number < 0:
            raise no_value("the factorial of a negative number")
        if number > MAX_FACTORIAL:
            raise too_large(f"the factorial of {number}")
        return Fraction(math.factorial(number))

    def _ln(self, value: Fraction) -> Fraction:
        if value <= 0:
            raise no_value("the logarithm of a number that is not positive")
        return Fraction(0) if value == 1 else self.approximate(_CONTEXT.ln(decimal_of(value)))

    def _exp(self, value: Fraction) -> Fraction:
        if abs(value) > MAX_EXP:
            raise too_large("the exponent")
        return Fraction(1) if value == 0 else self.approximate(_CONTEXT.exp(decimal_of(value)))

    def _log(self, value: Fraction, base: Fraction = Fraction(10)) -> Fraction:
        if base <= 0 or base == 1:
            raise no_value("a logarithm to this base")
        before = self.exact
        raw = self._ln(value) / self._ln(base)
        near = round(raw)
        if abs(near) <= MAX_BITS and self._is_power(base, near, value):
            self.exact = before
            return Fraction(near)
        return raw

    def _is_power(self, base: Fraction, exponent: int, value: Fraction) -> bool:
        try:
            return self._whole_power(base, exponent) == value
        except ActionFailed:
            return False

    def _trigonometric(self, name: str) -> Callable[[Fraction], Fraction]:
        def call(value: Fraction) -> Fraction:
            if abs(value) > 10**15:
                raise too_large(f"the angle of {name}")
            try:
                result: float = getattr(math, name)(float(value))
            except ValueError:
                raise no_value(f"{name} of a number outside -1 to 1") from None
            if name == "tan" and abs(result) > 10**15:
                raise no_value("the tangent of a right angle")
            if value == 0 and result in (0, 1):
                return Fraction(result)
            return self.approximate(round(result, 15))

        return call


def _whole(value: Fraction) -> int:
    if value.denominator != 1:
        raise no_value("this function of a number that is not whole")
    return value.numerator


def _round(value: Fraction, digits: Fraction = Fraction(0)) -> Fraction:
    """Halves away from zero, as people do."""
    places = _whole(digits)
    if abs(places) > MAX_EXP // 4:
        raise too_large("the number of digits")
    scaled = value * Fraction(10) ** places
    whole = math.floor(abs(scaled) + Fraction(1, 2))
    return Fraction(whole if scaled >= 0 else -whole) / Fraction(10) ** places


def _whole_root(value: int, degree: int) -> int | None:
    """The exact root by Newton's method on integers, None where there is none."""
    if value < 2:
        return value
    root = 1 << -(-value.bit_length() // degree)
    while (step := ((degree - 1) * root + value // root ** (degree - 1)) // degree) < root:
        root = step
    return root if root**degree == value else None
