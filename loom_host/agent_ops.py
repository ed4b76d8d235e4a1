"""What the control socket can do with agents: `agent.list`, `create`, `start`, `stop`, `delete`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_sdk.errors import InvalidArguments

from .agents import Agents


async def answer(agents: Agents, request: Mapping[str, Any]) -> Any:
    """Rows as of `Agents`, which also says what it raises."""
    verb, name = str(request["op"]).partition(".")[2], str(request.get("name", ""))
    if verb == "list":
        return agents.list()
    if verb == "create":
        return agents.create(
            name,
            str(request["plugin"]),
            parameters=request.get("parameters", {}),
            durable=bool(request.get("durable", False)),
            mailbox=int(request.get("mailbox", 0)),
            subscribe=request.get("subscribe", ()),
        )
    if verb == "start":
        return agents.start(name)
    if verb == "stop":
        return await agents.stop(name)
    if verb == "delete":
        return agents.delete(name)
    raise InvalidArguments(f"nothing can {verb!r} an agent")
