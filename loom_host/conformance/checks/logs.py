"""logs.*: what a plugin prints and logs while its examples run."""

from __future__ import annotations

from loom_host.conformance.fresh import fresh
from loom_host.conformance.kit import Check, Fault
from loom_host.conformance.subject import Subject

LOG_QUOTAS = ("log_bytes", "log_rate")
REPLACED = "\N{REPLACEMENT CHARACTER}"
"""The host's, for bytes that are no UTF-8. No example holds one."""


async def logs_readable(subject: Subject) -> None:
    told = await fresh(subject)
    for line in told.lines:
        if REPLACED in line or not _is_utf8(line):
            raise Fault(f"this line of its output is not UTF-8: {line[:200]!a}")
    try:
        told.raw.decode()
    except UnicodeDecodeError as error:
        shown = told.raw[max(error.start - 40, 0) : error.end + 40]
        raise Fault(f"its output is not UTF-8: {shown!r}") from error


def _is_utf8(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


async def logs_flood(subject: Subject) -> None:
    told = await fresh(subject)
    over = ", ".join(quota for quota in LOG_QUOTAS if told.hits.get(quota))
    if over or told.dropped:
        raise Fault(
            f"its examples, each called once, run into its quota {over or 'log_bytes'}: "
            f"{told.dropped} lines were lost; log less, or ask for more"
        )


LOGS = (
    Check("logs.readable", "what it prints and logs is UTF-8", logs_readable, ("grpc", "native")),
    Check("logs.flood", "its examples do not run into its log quota", logs_flood),
)
