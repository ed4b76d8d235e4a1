"""Who may let an agent's tool act: by policy at once, else by a person who is asked in time.

A call of a tool on behalf of an agent is allowed, refused, or put as an event `approval.request` on
`agent.<id>` until somebody answers: a voice agent through `loom.approve`, or `loom approvals`.
No answer in time is a refusal. The broker asks here; a plugin cannot go around it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from loom_sdk import Event
from loom_sdk.errors import InvalidArguments, PermissionDenied
from loom_sdk.events import new_id

from .dispatch import REPEATABLE, Request
from .handle import PluginHandle
from .privacy import DEFAULT, labelled
from .registry import Offer
from .settings import APPROVALS, AgentSettings, ToolPolicy

MAX_PENDING = 16
"""Questions of one agent at once; nobody answers more."""
MAX_ARGUMENTS = 2000
"""Characters of the arguments, as JSON, that are shown to who is asked."""
PRIORITY = 80

Publish = Callable[[str, Event], object]


def _nobody(*_: object) -> None: ...


def policy_for(policy: ToolPolicy, capability: str, effects: str) -> str:
    """`allow`, `ask` or `deny`: the longest pattern that fits, else by what the tool does."""
    fitting = [pattern for pattern in policy.approval if fnmatchcase(capability, pattern)]
    if fitting:
        exact = capability if capability in fitting else max(fitting, key=len)
        return policy.approval[exact]
    return "ask" if effects == "once" else "allow"


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that waits for an answer."""

    id: str
    agent: str
    caller: str
    capability: str
    arguments: str
    """JSON, cut to MAX_ARGUMENTS."""
    asked_unix_ms: float
    expires_unix_ms: float
    answer: asyncio.Future[bool] = field(repr=False, compare=False)

    def row(self) -> dict[str, Any]:
        """For `loom approvals` and for the event, whose values are texts."""
        return {
            "id": self.id,
            "agent": self.agent,
            "caller": self.caller,
            "capability": self.capability,
            "arguments": self.arguments,
            "expires_unix_ms": round(self.expires_unix_ms),
        }


class Approvals:
    """The policies of all agents, and the calls that wait.

    Args:
        find: the providers of a capability, as `Registry.find`.
        agents: `[agents]` of the settings.
        publish: takes a topic and an event, and does not wait.
    """

    def __init__(
        self,
        find: Callable[[str], list[Offer]],
        agents: Mapping[str, AgentSettings] | None = None,
        publish: Publish = _nobody,
    ) -> None:
        self._policies = {name: agent.tools for name, agent in (agents or {}).items()}
        self._agents_of: dict[str, tuple[str, ...]] = {}
        for name, agent in (agents or {}).items():
            if agent.plugin:
                self.adopt(name, agent)
        self._find, self._publish = find, publish
        self._pending: dict[str, Pending] = {}

    def note(self, handle: PluginHandle) -> None:
        """A plugin that is an agent by its manifest is one without a table, too."""
        if handle.manifest.type == "agent":
            self._agents_of.setdefault(handle.name, (handle.name,))

    def adopt(self, agent: str, settings: AgentSettings) -> None:
        """An agent is served by a plugin from now on, under its own policy."""
        others = [name for name in self.agents_of(settings.plugin) if name != agent]
        self._agents_of[settings.plugin] = (*others, agent)
        self._policies[agent] = settings.tools

    def dismiss(self, agent: str, plugin: str) -> None:
        """It is not, any more; the plugin stays an agent."""
        others = tuple(name for name in self._agents_of.get(plugin, ()) if name != agent)
        self._agents_of[plugin] = others or (plugin,)

    def agent_for(self, plugin: str) -> str:
        """The agent that a plugin is, the last one where it is several; empty for others."""
        return self.agents_of(plugin)[-1] if plugin in self._agents_of else ""

    def agents_of(self, plugin: str) -> tuple[str, ...]:
        """All agents that a plugin is; none for other plugins."""
        return self._agents_of.get(plugin, ())

    def _behind(self, request: Request) -> list[str]:
        """The agents a call may be made for: one where that is sure, else all of the plugin."""
        own = self.agents_of(request.caller)
        found = [request.agent] if request.agent else []
        desk = request.parent.desk if request.parent is not None else None
        found += (desk.agent,) if desk is not None and desk.agent in own else own
        if not found and request.caller.startswith("client/"):
            found = [request.caller]
        return list(dict.fromkeys(found))

    async def guard(self, request: Request, offers: list[Offer]) -> None:
        """Returns once a tool may be called for a request. Raises PermissionDenied.

        What the host itself calls, and what no agent stands behind, is not asked about; nor is
        again what was settled with effects as strict, when the providers changed meanwhile.
        """
        agents, effects = self._behind(request), strictest(offers)
        if not any(offer.spec.tool for offer in offers) or request.approved:
            return
        if not agents or request.caller == "host" or request.settled in (effects, "once"):
            return
        name = offers[0].spec.name
        await self.settle(agents, request.caller, name, effects, request.arguments, request.level)
        request.settled = effects

    def verdict(self, agent: str, capability: str, effects: str) -> str:
        """`allow`, `ask` or `deny` for a tool on behalf of an agent."""
        return policy_for(self._policies.get(agent) or ToolPolicy(), capability, effects)

    async def approve(
        self, caller: str, capability: str, arguments: Mapping[str, Any], level: int = DEFAULT
    ) -> None:
        """Returns once a call may be made. For whoever is not a plugin, such as an MCP client:
        `[agents.CALLER.parameters]` has its policy.

        Args:
            level: of privacy, of what the arguments tell.

        Raises:
            PermissionDenied: by policy, by a person, or since nobody answered.
            CapabilityNotFound: nobody offers the capability.
        """
        offers = self._find(capability)
        name, agent = offers[0].spec.name, self.agent_for(caller) or caller
        await self.settle([agent], caller, name, strictest(offers), arguments, level)

    async def settle(
        self,
        agents: list[str],
        caller: str,
        capability: str,
        effects: str,
        arguments: Mapping[str, Any],
        level: int,
    ) -> None:
        """As `approve`, by the strictest policy of several agents; the first of them is asked."""
        verdicts = [self.verdict(agent, capability, effects) for agent in agents]
        verdict = max(verdicts, key=APPROVALS.index)
        if verdict == "deny":
            line = f'tools.approval."{capability}" = "ask"'
            raise _denied(caller, capability, f"its policy denies it; {_where(agents[0])}: {line}")
        if verdict == "ask":
            await self._ask(agents[0], caller, capability, arguments, level)

    async def _ask(
        self,
        agent: str,
        caller: str,
        capability: str,
        arguments: Mapping[str, Any],
        level: int,
    ) -> None:
        if sum(pending.agent == agent for pending in self._pending.values()) >= MAX_PENDING:
            raise _denied(caller, capability, f"{MAX_PENDING} calls wait for an answer already")
        limit_s = (self._policies.get(agent) or ToolPolicy()).approval_timeout_s
        pending = _pending(agent, caller, capability, arguments, limit_s)
        self._pending[pending.id] = pending
        self._tell(pending, "approval.request", level)
        outcome = "withdrawn"
        try:
            async with asyncio.timeout(limit_s):
                outcome = "allowed" if await pending.answer else "denied"
        except TimeoutError:
            outcome = "expired"
        finally:
            del self._pending[pending.id]
            self._tell(pending, "approval.result", level, status=outcome)
        if outcome == "denied":
            raise _denied(caller, capability, "the answer was no")
        if outcome == "expired":
            raise _denied(caller, capability, f"nobody allowed it within {limit_s:g} s")

    def answer(self, id: str, allow: bool, agents: tuple[str, ...] = ()) -> dict[str, Any]:
        """Settle a call that waits; what it was.

        Args:
            agents: whose calls alone may be answered; empty: all, for the operator.

        Raises:
            InvalidArguments: nothing of that id waits, any more.
        """
        pending = self._pending.get(id)
        if pending is None or (agents and pending.agent not in agents) or pending.answer.done():
            known = ", ".join(row["id"] for row in self.rows()) or "none"
            raise InvalidArguments(f"no call waits for an approval {id!r}; waiting: {known}")
        pending.answer.set_result(allow)
        return pending.row()

    def rows(self) -> list[dict[str, Any]]:
        """The calls that wait, the oldest first."""
        return [pending.row() for pending in self._pending.values() if not pending.answer.done()]

    def serve(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One request of the control socket: the list, or the answer to one (`id`, `allow`)."""
        if "id" not in request:
            return self.rows()
        return [self.answer(str(request["id"]), request.get("allow") is True)]

    def _tell(self, pending: Pending, kind: str, level: int, **more: str) -> None:
        row = {key: str(value) for key, value in pending.row().items()} | more
        metadata = labelled({"approval_id": row.pop("id"), **row}, level)
        event = Event(kind, metadata=metadata, source="host", priority=PRIORITY)
        self._publish(f"agent.{_token(pending.agent)}", event)


def strictest(offers: list[Offer]) -> str:
    """What a call may do, whichever of the providers gets it."""
    effects = [offer.spec.effects for offer in offers]
    return next((effect for effect in effects if effect not in REPEATABLE), effects[0])


def _pending(
    agent: str, caller: str, capability: str, arguments: Mapping[str, Any], limit_s: float
) -> Pending:
    text = json.dumps(arguments, ensure_ascii=False)
    now = time.time() * 1000
    return Pending(
        new_id(),
        agent,
        caller,
        capability,
        text if len(text) <= MAX_ARGUMENTS else f"{text[:MAX_ARGUMENTS]}…",
        now,
        now + limit_s * 1000,
        asyncio.get_running_loop().create_future(),
    )


def _denied(caller: str, capability: str, why: str) -> PermissionDenied:
    return PermissionDenied(
        f"{caller} may not act with {capability}: {why}",
        plugin_id=caller,
        permission=f"approval:{capability}",
    )


def _where(agent: str) -> str:
    return f"to be asked, write in [agents.{agent}.parameters]"


def _token(agent: str) -> str:
    """An agent's name as one token of a topic."""
    return "".join("_" if c in ".*>" or c.isspace() else c for c in agent) or "_"
