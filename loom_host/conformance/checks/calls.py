"""schema.*, output.valid and calls.*: what the examples promise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import cycle, islice
from typing import Any

from loom_host.conformance.cancelled import STOP_S, cancelled
from loom_host.conformance.comparison import shown
from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.plan import Example
from loom_host.conformance.subject import Answered, Subject
from loom_host.schema_check import compiled
from loom_sdk.errors import (
    ActionFailed,
    DeadlineExceeded,
    InvalidArguments,
    LoomError,
    PluginError,
    encode,
)

INTO_S = 0.3
"""After the start of a slow call: then it is at work."""
AT_ONCE, ROUNDS = 8, 5
MOST_REFUSED = 50
ODD: tuple[Any, ...] = (None, [], {}, "", -(2**40), 1.5, True)


def of_example(one: Answered) -> str:
    return f"{one.example.spec.name} with {shown(one.example.arguments)}"


async def schema_examples(subject: Subject) -> None:
    for example, code in subject.plan.refused:
        if wrong := await _not_refused(subject, example, code):
            raise Fault(f"{example.spec.name} with {shown(example.arguments)}: {wrong}")
    if subject.plan.refused and not subject.plan.examples:
        return
    for one in await subject.first():
        if wrong := one.differs():
            raise Fault(f"{of_example(one)}: {wrong}")


async def _not_refused(subject: Subject, example: Example, code: str) -> str:
    """What came in place of the error; empty where that came."""
    try:
        answer = await subject.call(example)
    except LoomError as error:
        found = encode(error).code
        return "" if found == code else f"{found}, and not {code}: {error.message}"
    return f"it must be refused with {code}, but is answered with {shown(answer.output)}"


async def schema_output(subject: Subject) -> None:
    answered = [one for one in await subject.first() if one.error is None]
    with_schema = [one for one in answered if one.example.spec.output_schema]
    if not with_schema:
        raise Skip("no example of a capability with an output schema is answered")
    for one in with_schema:
        for error in _validator(one.example.spec.output_schema).iter_errors(one.output):
            where = "/".join(map(str, error.instance_path))
            raise Fault(f"{of_example(one)}: its answer {where} does not fit: {error.message}")


def _validator(schema: Any) -> Any:
    try:
        return compiled(schema)
    except ValueError as error:
        raise Skip("the schema is wrong: see schema.valid") from error


async def output_valid(subject: Subject) -> None:
    answered = await subject.first()
    for one in answered:
        if isinstance(one.error, ActionFailed) and one.error.code == "OUTPUT_NOT_JSON":
            raise Fault(f"{of_example(one)}: {one.error.message}")
        if type(one.error) is PluginError:
            raise Fault(f"{of_example(one)}: {one.error.message}")
        try:
            json.dumps(one.output, allow_nan=False).encode()
            json.dumps(one.output, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise Fault(f"{of_example(one)}: its answer is no UTF-8 JSON: {error}") from error
    if all(one.error is not None for one in answered):
        raise Skip("none of its examples is answered: see schema.examples")


async def schema_refuses(subject: Subject) -> None:
    host, tried = await subject.host(), 0
    for example in subject.plan.examples:
        if not example.spec.input_schema or tried >= MOST_REFUSED:
            continue
        validator = _validator(example.spec.input_schema)
        for arguments in _spoiled(dict(example.arguments)):
            if validator.is_valid(arguments):
                continue
            tried += 1
            try:
                await host.invoke(example.spec.name, arguments)
            except InvalidArguments:
                continue
            except LoomError as error:
                raise Fault(_served(example.spec.name, arguments, type(error).__name__)) from error
            raise Fault(_served(example.spec.name, arguments, "an answer"))
    if not tried:
        raise Skip("its input schemas refuse nothing that could be tried")


def _served(name: str, arguments: Any, end: str) -> str:
    return f"{name} with {shown(arguments)}, which its schema refuses, gives {end}"


def _spoiled(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same with one thing wrong, maybe."""
    for key in arguments:
        yield {name: value for name, value in arguments.items() if name != key}
        for odd in ODD:
            yield {**deepcopy(arguments), key: odd}
    yield {**arguments, "no-such-argument": 1}


async def calls_deadline(subject: Subject) -> None:
    for one in await subject.first():
        if isinstance(one.error, DeadlineExceeded):
            limit = subject.plan.manifest.quotas.deadline_ms
            raise Fault(
                f"{of_example(one)} does not end within the plugin's own deadline_ms = {limit}: "
                "ask for more, or say `slow = true` in the example"
            )


async def calls_concurrent(subject: Subject) -> None:
    """Several times over: what calls share may well go right once."""
    at_once = min(subject.plan.manifest.quotas.concurrency, AT_ONCE)
    if at_once < 2:
        raise Skip("its quota concurrency is 1: it serves one call at a time")
    held = [
        one
        for one in await subject.first()
        if not one.differs() and one.example.spec.effects != "once"
    ]
    stated = [one for one in held if one.example.output is not None]
    if not stated:
        raise Skip("no example with an output and effects none or idempotent is answered rightly")
    turn = cycle(stated)
    for _ in range(ROUNDS):
        calls = [subject.ask(one.number, one.example) for one in islice(turn, at_once)]
        for one in await asyncio.gather(*calls):
            if wrong := one.differs():
                raise Fault(f"{of_example(one)}, one of {at_once} calls at once: {wrong}")


async def calls_cancel(subject: Subject) -> None:
    slow = [one for one in subject.plan.examples if one.slow]
    if not slow:
        raise Skip("it has no example with `slow = true`")
    for example in slow:
        handle = await subject.handle()
        before, restarts = handle.instance, handle.counters.restarts
        call = asyncio.create_task(subject.call(example))
        await asyncio.sleep(INTO_S)
        if call.done():
            end = call.exception()
            why = f"fails: {end}" if end is not None else "has ended"
            raise Fault(f"{example.spec.name} is called slow, but after {INTO_S:g} s it {why}")
        if not await cancelled(subject, call):
            raise Fault(
                f"{example.spec.name} is still at work {STOP_S:g} s after it was cancelled: look "
                "at ctx.cancelled() now and then, and let CancelledError through"
            )
        if handle.instance is not before or handle.counters.restarts != restarts:
            raise Fault(f"the plugin was killed because {example.spec.name} did not stop")


SCHEMA = (
    Check("schema.examples", "each example is answered with what it says", schema_examples),
    Check("schema.output", "answers fit the output schema", schema_output),
    Check("output.valid", "answers are UTF-8 JSON", output_valid),
    Check("schema.refuses", "what the input schema refuses is refused", schema_refuses),
)
CALLS = (
    Check("calls.deadline", "its examples end within its own deadline", calls_deadline),
    Check("calls.concurrent", "calls at once give what they give alone", calls_concurrent),
    Check("calls.cancel", "a call that is cancelled stops", calls_cancel),
)
