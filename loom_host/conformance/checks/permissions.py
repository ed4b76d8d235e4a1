"""permissions.asked: the manifest asks for all that the plugin does."""

from __future__ import annotations

from loom_host.conformance.kit import Check, Fault
from loom_host.conformance.subject import Subject
from loom_host.grants import KINDS, Grants, asked_for


async def permissions_asked(subject: Subject) -> None:
    """Looks at what was denied so far. What is asked for and not had is not the plugin's fault."""
    await subject.host()
    manifest = subject.plan.manifest
    asked = Grants(manifest.name, asked_for(manifest))
    missing = {
        f"{one.kind}:{one.value}"
        for one in subject.denied()
        if one.kind in KINDS and one.plugin == manifest.name
        if not asked.permits(one.kind, one.value)
    }
    if missing:
        raise Fault(
            f"it was denied {', '.join(sorted(missing)[:5])}, which its plugin.toml does not ask "
            "for: add it under [permissions], or under [events] publishes; or do without"
        )


PERMISSIONS = (
    Check("permissions.asked", "its manifest asks for all that it does", permissions_asked),
)
