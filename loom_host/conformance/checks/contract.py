"""contract.*: the words that host and plugin exchange."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import grpc

from loom_host.conformance.by_hand import TOKEN_KEY, Hand, by_hand
from loom_host.conformance.by_session import admitted_to_session, session
from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.plan import Example
from loom_host.conformance.subject import Subject
from loom_host.manifest import EFFECTS
from loom_host.runtimes.base import Declaration
from loom_host.runtimes.grpc.init import declared
from loom_host.schema_compare import input_differences, output_differences
from loom_sdk.errors import LoomError
from loom_sdk.plugin import CapabilitySpec

OURS, NEVER = "1", "99"
"""Versions of the contract: this one, and one that there is not."""
MISMATCH = "PROTOCOL_MISMATCH"


async def contract_offers(subject: Subject) -> str:
    manifest = subject.plan.manifest
    if manifest.offers_by_types:
        raise Skip("its manifest lists nothing: what it says at Init is what it offers")
    said = await _declaration(subject)
    written = {spec.name: spec for spec in manifest.capabilities}
    for spec in said.capabilities:
        if spec.name not in written:
            raise Fault(f"at Init it offers {spec.name!r}, which plugin.toml does not list: add it")
        promised = written[spec.name].effects
        if EFFECTS.index(spec.effects) > EFFECTS.index(promised):
            raise Fault(
                f"at Init {spec.name} has effects {spec.effects!r}, in plugin.toml {promised!r}: "
                "say the same in both, for the host repeats calls by it"
            )
    left = written.keys() - {spec.name for spec in said.capabilities}
    if said.capabilities and left:
        raise Fault(f"at Init it does not offer {', '.join(sorted(left))} of plugin.toml")
    topics = {spec.topic for spec in manifest.subscribes}
    if more := {spec.topic for spec in said.subscriptions} - topics:
        raise Fault(f"at Init it hears {', '.join(sorted(more))}, which plugin.toml does not list")
    if left:
        raise Skip("it says nothing at Init: its plugin.toml alone tells what it offers")
    return "; ".join(_differences(written, said.capabilities))


def _differences(
    written: Mapping[str, CapabilitySpec], said: Iterable[CapabilitySpec]
) -> list[str]:
    """Where the schemas of plugin.toml promise what those of the code do not."""
    found = []
    for spec in said:
        listed = written[spec.name]
        if listed.input_schema and spec.input_schema:
            more = input_differences(listed.input_schema, spec.input_schema)
            found += [f"{spec.name}: input of plugin.toml: {text}" for text in more]
        if listed.output_schema and spec.output_schema:
            more = output_differences(listed.output_schema, spec.output_schema)
            found += [f"{spec.name}: output of plugin.toml: {text}" for text in more]
    return found


async def _declaration(subject: Subject) -> Declaration:
    """Of the running one; of a child that the host has refused by hand."""
    try:
        instance = (await subject.handle()).instance
    except Skip:
        if subject.tier != "grpc":
            raise
        async with by_hand(subject) as hand:
            try:
                return declared(hand.spec, await hand.init((OURS,)))
            except (grpc.aio.AioRpcError, LoomError) as error:
                raise Skip("Init is not answered: see lifecycle.start") from error
    if instance is None:
        raise Skip("it has ended: see lifecycle.start")
    return instance.declaration


async def contract_version(subject: Subject) -> None:
    said = await _talk(subject)
    response = _readable(said.chosen, (OURS, NEVER))
    if response.HasField("error") or response.api_version != OURS:
        what = response.error.code or f"api_version {response.api_version!r}"
        raise Fault(f'asked to choose from ["1", "99"] it answers {what}: it must choose "1"')
    response = _readable(said.refused, (NEVER,))
    if response.error.code != MISMATCH:
        what = response.error.code or f"api_version {response.api_version!r}"
        raise Fault(
            f'to a host that speaks only "99" it answers {what}: it must refuse with the error '
            f"{MISMATCH} unless its own version is among api_versions"
        )


def _readable(answer: Any, versions: tuple[str, ...]) -> Any:
    if isinstance(answer, grpc.aio.AioRpcError):
        raise Fault(f"Init with api_versions {list(versions)}: {_told(answer)}") from answer
    return answer


async def contract_token(subject: Subject) -> None:
    for what, end in (await _talk(subject)).admitted.items():
        if not isinstance(end, grpc.aio.AioRpcError):
            raise Fault(f"it serves a caller with {what}: {_ADMIT}")
        if end.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise Fault(f"called with {what} it answers {_told(end)}: {_ADMIT}")


_ADMIT = "compare the metadata loom-token with LOOM_TOKEN, else refuse with UNAUTHENTICATED"


async def contract_stream(subject: Subject) -> None:
    talk = await _talk(subject)
    if not talk.streams:
        raise Skip("it has no examples to call")
    for name, messages in (*talk.streams.items(), *talk.sessions.items()):
        _check_stream(name, messages)


def _check_stream(name: str, messages: Any) -> None:
    if isinstance(messages, Fault):
        raise Fault(f"{name}: {messages}") from messages
    if isinstance(messages, TimeoutError):
        return  # for calls.deadline to say
    if isinstance(messages, grpc.aio.AioRpcError):
        if messages.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return  # for calls.deadline to say
        raise Fault(f"{name}: the stream of its answer breaks off: {_told(messages)}")
    if None in messages:
        return  # not readable: for output.valid to say
    ends = [index for index, message in enumerate(messages) if not message.item]
    if not ends:
        raise Fault(f"{name}: its answer has no end: send one last message without item")
    if ends != [len(messages) - 1]:
        more = len(messages) - 1 - ends[0]
        raise Fault(
            f"{name}: {more} message(s) follow the one that ends its answer: send items, then "
            "exactly one message without item"
        )


def _told(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name} {error.details() or ''}".strip()


@dataclass(slots=True)
class Talk:
    """What two or three children said; an error where they broke off."""

    chosen: Any
    """Of Init with a version to choose from."""
    streams: dict[str, Any]
    """Messages of one answer by capability."""
    sessions: dict[str, Any]
    """The same in a Session, where it has one."""
    admitted: dict[str, Any]
    """Answers to callers without the token."""
    refused: Any
    """Of Init without a version that there is."""


_done: WeakKeyDictionary[Subject, Talk] = WeakKeyDictionary()


async def _talk(subject: Subject) -> Talk:
    """Once for each subject: of few children, since a start costs more than all that is said."""
    await subject.host()
    if subject not in _done:
        async with by_hand(subject) as hand:
            chosen = await _ended(hand.init((OURS, NEVER)))
            streams = await _streams(hand.messages, subject)
        async with by_hand(subject) as hand:
            admitted = {
                "no token": await _ended(hand.init((OURS,), ())),
                "another token": await _ended(hand.init((OURS,), ((TOKEN_KEY, "f" * 32),))),
            }
            refused = await _ended(hand.init((NEVER,)))
            if (inside := await _ended(admitted_to_session(hand, ()))) is not None:
                admitted["no token in Session"] = inside
        sessions = {}
        if inside is not None:
            async with by_hand(subject) as hand:
                sessions = await _in_session(hand, subject)
        _done[subject] = Talk(chosen, streams, sessions, admitted, refused)
    return _done[subject]


async def _in_session(hand: Hand, subject: Subject) -> dict[str, Any]:
    """As `_streams`; nothing of a child without Session."""
    try:
        async with session(hand) as taker:
            return await _streams(taker.messages, subject) if taker is not None else {}
    except (Fault, grpc.aio.AioRpcError) as error:
        return {"Session": error}


async def _streams(
    messages: Callable[[Example], Awaitable[Any]], subject: Subject
) -> dict[str, Any]:
    """One for each capability."""
    found: dict[str, Any] = {}
    for example in subject.plan.examples:
        if not example.slow and example.spec.name not in found:
            found[example.spec.name] = await _ended(messages(example))
    return found


async def _ended(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except (grpc.aio.AioRpcError, Fault, TimeoutError) as error:
        return error


GRPC = ("grpc",)
CONTRACT = (
    Check("contract.offers", "it says at Init what plugin.toml says", contract_offers),
    Check("contract.version", "it speaks version 1, and refuses others", contract_version, GRPC),
    Check("contract.token", "it refuses callers without the token", contract_token, GRPC),
    Check("contract.stream", "an answer is items and one end", contract_stream, GRPC),
)
