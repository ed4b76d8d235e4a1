"""How times and durations are said."""

from __future__ import annotations

from datetime import datetime

_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def duration(seconds: float) -> str:
    """Such as "1 hour and 30 minutes"; whole seconds, and at least one of them."""
    rest = max(1, round(seconds))
    parts = []
    for size, name in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def moment(when: datetime, hours: int, place: str) -> str:
    """A sentence with time and date; `hours` is 12 or 24."""
    if hours == 24:
        time = f"{when:%H:%M}"
    else:
        time = f"{when.hour % 12 or 12}:{when:%M} {'AM' if when.hour < 12 else 'PM'}"
    where = f"In {place} it" if place else "It"
    return f"{where} is {time} on {when:%A}, {when:%B} {when.day}."
