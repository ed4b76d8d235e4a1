"""Topic patterns: tokens joined by dots, `*` for one token, `>` for one or more at the end."""

from __future__ import annotations

from .errors import BusError


def check_topic(topic: str) -> None:
    """Raises BusError unless `topic` can be published to."""
    tokens = topic.split(".")
    if not all(tokens) or "*" in tokens or ">" in tokens or any(c.isspace() for c in topic):
        raise BusError(
            f"{topic!r} is not a topic: use tokens joined by dots, such as 'audio.mic'; "
            "'*' and '>' are for subscriptions"
        )


def check_pattern(pattern: str) -> None:
    """Raises BusError unless `pattern` can be subscribed to."""
    tokens = pattern.split(".")
    if not all(tokens) or ">" in tokens[:-1] or any(c.isspace() for c in pattern):
        raise BusError(
            f"{pattern!r} is not a topic pattern: '*' stands for one token, "
            "'>' for the rest and only at the end, such as 'audio.*' or 'agent.>'"
        )


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic fits a pattern. `>` needs at least one token, as in NATS."""
    if pattern == topic:
        return True
    wanted, given = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        w in ("*", g) for w, g in zip(wanted, given, strict=True)
    )


def covers(allowed: str, asked: str) -> bool:
    """Whether every topic that fits `asked` also fits `allowed`."""
    a, b = allowed.split("."), asked.split(".")
    for i, token in enumerate(a):
        if token == ">":
            return len(b) > i
        if i >= len(b) or b[i] == ">" or (b[i] == "*" and token != "*"):
            return False
        if token not in ("*", b[i]):
            return False
    return len(a) == len(b)
