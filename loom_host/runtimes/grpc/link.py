"""How the host talks to one child: by a Session, or by unary calls where it has none."""

from __future__ import annotations

from typing import Any, Protocol

from loom_sdk import Call, Event, Result


class Link(Protocol):
    """Calls to one child. Beside LoomErrors they raise LinkLost and grpc's own errors."""

    async def invoke(self, call: Call) -> Result: ...

    async def handle_event(self, event: Event) -> int: ...

    async def health(self) -> Any:
        """The child's `HealthStatus`."""
        ...

    async def shutdown(self, grace_ms: int) -> None: ...

    def works_on(self, call_id: str) -> bool:
        """Whether the child is known to work on something that was given up."""
        ...

    async def stopped(self, call_id: str) -> None:
        """Returns once the child does not work any more on a call or event that was given up."""
        ...

    def lose(self, error: Exception | None = None) -> None:
        """The child is gone: end all that waits for it, with LinkLost."""
        ...

    async def aclose(self) -> None: ...
