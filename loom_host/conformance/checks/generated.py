"""input.generated: whatever its schema allows, the plugin answers or refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import chain, zip_longest

from loom_host.conformance.comparison import shown
from loom_host.conformance.drawing import arguments_of
from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.plan import Example
from loom_host.conformance.subject import Answered, Subject
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    LoomError,
    OutcomeUnknown,
    PluginCrashed,
    PluginError,
    PluginUnhealthy,
    QuotaExceeded,
)

BUDGET_S = 8.0
"""For all calls; a slow plugin is asked less often, and the note says so."""
AT_ONCE = 8
UNEXPECTED = ("CAPABILITY_ERROR", "OUTPUT_NOT_JSON")
"""The code of exceptions that were not meant for the caller, and of failures without a code."""
DEADLY = ("memory", "cpu", "fuel", "processes", "folder_bytes", "log_bytes")
"""Quotas whose excess may end the plugin or its call."""
NO_EXAMPLE = -1
BY_CHANCE = ("network", "invoke", "filesystem")
"""What made-up arguments may make a plugin ask for: nobody's wish, and no fault of its manifest."""


async def input_generated(subject: Subject) -> str | None:
    await subject.host()
    cases, made = list(_cases(subject)), 0
    if not cases:
        raise Skip("it has no capability for which arguments could be drawn")
    quotas = subject.plan.manifest.quotas
    at_once = min(quotas.concurrency, AT_ONCE)
    denied, began = subject.denied(), time.monotonic()
    try:
        while made < len(cases) and time.monotonic() - began < BUDGET_S:
            await _try(subject, cases[made : made + at_once])
            made += at_once
            if quotas.rate:
                await asyncio.sleep(max(0.0, began + made / quotas.rate - time.monotonic()))
    finally:
        subject.forgive(denied, BY_CHANCE)
    return f"{made} of {len(cases)} calls in {BUDGET_S:g} s" if made < len(cases) else None


def _cases(subject: Subject) -> Iterator[Example]:
    """Of all capabilities in turn, of each the shortest arguments first."""
    plan = subject.plan
    if not plan.manifest.capabilities:
        return
    each = max(plan.count // len(plan.manifest.capabilities), 1)
    drawn = []
    for spec in plan.manifest.capabilities:
        try:
            found = arguments_of(spec, each, plan.seed)
        except ValueError as error:
            raise Skip("the schema is wrong: see schema.valid") from error
        drawn.append([plan.call_of(spec, arguments) for arguments in found])
    for one in chain.from_iterable(zip_longest(*drawn)):
        if one is not None:
            yield one


async def _try(subject: Subject, cases: list[Example]) -> None:
    """Raises Fault that names the first of these that fails by itself, else one that did."""
    asked = [subject.ask(NO_EXAMPLE, one) for one in cases]
    wrong = [one for one in await asyncio.gather(*asked) if _wrong(one.error)]
    if not wrong:
        return
    if len(cases) > 1 and not isinstance(wrong[0].error, ActionFailed):
        for one in wrong:  # one of them took the others with it
            alone = await subject.ask(one.number, one.example)
            if _wrong(alone.error):
                wrong.insert(0, alone)
                break
    if not isinstance(wrong[0].error, ActionFailed):
        await subject.stop()  # with what is left of it
    raise _fault(wrong[0])


def _fault(one: Answered) -> Fault:
    return Fault(
        f"{one.example.spec.name} with {shown(one.example.arguments)}, which its schema allows, "
        f"{_wrong(one.error)}: answer it, refuse it with an error and a code of its own, or "
        "narrow the schema"
    )


def _wrong(error: LoomError | None) -> str:
    """What is not to be; empty for a refusal, whoever refuses."""
    if isinstance(error, DeadlineExceeded):
        return "does not end within its deadline_ms"
    if isinstance(error, PluginCrashed | PluginUnhealthy | OutcomeUnknown):
        return f"ends the plugin ({error.message.splitlines()[0][:300]})"
    if isinstance(error, QuotaExceeded) and error.quota in DEADLY:
        return f"goes over its quota {error.quota}"
    if type(error) is PluginError:
        return f"gives what cannot be read ({error.message[:300]})"
    if isinstance(error, ActionFailed) and error.code in UNEXPECTED:
        return f"fails unexpectedly ({error.code} {error.message[:300]})"
    return ""


GENERATED = Check(
    "input.generated", "whatever its schema allows is answered or refused", input_generated
)
