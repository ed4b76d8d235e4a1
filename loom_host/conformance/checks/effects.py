"""effects.*: a call that may be repeated changes nothing when it is."""

from __future__ import annotations

from loom_host.conformance.comparison import shown
from loom_host.conformance.kit import Check, Fault, Skip
from loom_host.conformance.subject import Answered, Subject
from loom_host.storage.keys import plugin_prefix


async def effects_repeat(subject: Subject) -> None:
    for one in await _repeatable(subject):
        again = await subject.ask(one.number, one.example)
        if again.error is None and again.output == one.output:
            subject.steady.add(one.number)
        if wrong := again.differs():
            raise Fault(
                f"{one.example.spec.name} with {shown(one.example.arguments)} has effects "
                f"{one.example.spec.effects!r}, and when it is asked again {wrong}"
            )


async def effects_storage(subject: Subject) -> None:
    for one in await _repeatable(subject):
        await subject.ask(one.number, one.example)
        once = await _stored(subject)
        await subject.ask(one.number, one.example)
        twice = await _stored(subject)
        if changed := sorted(key for key, _ in once.items() ^ twice.items()):
            name = changed[0].rpartition(b"\0")[2].decode(errors="replace")
            raise Fault(
                f"{one.example.spec.name} has effects {one.example.spec.effects!r}, but done twice "
                f"it leaves the storage otherwise than done once: the key {name!r} differs"
            )


async def _repeatable(subject: Subject) -> list[Answered]:
    """Answers that were right at first, of what says that it may be repeated."""
    found = [one for one in await subject.first() if one.example.spec.effects != "once"]
    if not found:
        raise Skip("no example has effects none or idempotent")
    right = [one for one in found if not one.differs()]
    if not right:
        raise Skip("none of its examples is answered rightly: see schema.examples")
    return right


async def _stored(subject: Subject) -> dict[bytes, bytes]:
    host = await subject.host()
    return dict(host.store.scan(plugin_prefix(subject.plan.manifest.id)))


EFFECTS = (
    Check("effects.repeat", "asked again it answers the same", effects_repeat),
    Check("effects.storage", "done twice it leaves what done once does", effects_storage),
)
