"""All agents of a host: created, started, stopped, deleted; and which plugin serves which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_host.agent_check import check_agent, serial
from loom_host.broker import Broker
from loom_host.handle import PluginHandle
from loom_host.hints import did_you_mean
from loom_host.privacy import LEVEL_OF
from loom_host.pump import Pump
from loom_host.settings import AgentSettings, Policy
from loom_host.storage import Batch, agent_prefix
from loom_sdk.errors import InvalidArguments

from .agent import Agent
from .kept import Kept
from .performer import Performer
from .pump import AgentPump, PumpParts, Who


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What agents need of their host."""

    pump: PumpParts
    broker: Broker
    plugins: Mapping[str, PluginHandle]
    pumps: list[Pump]
    """Of all plugins; those of agents are among them."""
    folder: Path | None
    """Where agents that are created at run time are kept; None: nowhere."""
    grace_s: float


class Agents:
    """As `host.agents`. Every method raises InvalidArguments for a name that is not there."""

    def __init__(self, parts: AgentParts, tables: Mapping[str, AgentSettings]) -> None:
        self._parts = parts
        self._kept = Kept(parts.folder)
        self._performer = Performer(parts.broker, parts.pump.bus)
        self._agents = {
            name: Agent(name, own, "loom.toml", "running")
            for name, own in tables.items()
            if own.plugin
        }

    # -- with the host and its plugins

    def recall(self) -> None:
        """Take up those that were created in an earlier life of the host. Raises StorageError."""
        for name, (own, ran) in self._kept.load().items():
            if name not in self._agents:
                state = "running" if ran else "stopped"
                self._take_up(Agent(name, own, "created", state))

    def open(self, handle: PluginHandle) -> None:
        """Let the plugin hear: through its agents, where it has any or is one."""
        found = [agent for agent in self._agents.values() if agent.settings.plugin == handle.name]
        if not found and handle.manifest.type == "agent" and handle.name not in self._agents:
            own = AgentSettings(plugin=handle.name)
            found = [Agent(handle.name, own, "plugin", "running")]
            self._agents[handle.name] = found[0]
        for agent in found:
            if agent.state == "running":
                self._open(agent, handle)
        if not found:
            self._begin(Pump(*self._plain(handle, "")))

    async def aclose(self) -> None:
        """Break off what agents still want done."""
        await self._performer.aclose()

    # -- lifecycle

    def list(self) -> list[dict[str, Any]]:
        """Each as plain data: name, plugin, state, what waits."""
        return [self._row(agent) for agent in self._agents.values()]

    def create(
        self,
        name: str,
        plugin: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        durable: bool = False,
        mailbox: int = 0,
        subscribe: Iterable[str] = (),
        policy: Policy | None = None,
    ) -> dict[str, Any]:
        """Make an agent that does nothing before it is started. It is kept for later starts.

        Raises:
            InvalidArguments: there is one of that name, or no such plugin runs.
            ConfigError: the plugin cannot be run that way.
        """
        if name in self._agents:
            raise InvalidArguments(
                f"there is an agent {name} ({self._agents[name].state}): delete it, or take "
                "another name"
            )
        handle = self._plugin(plugin)
        own = AgentSettings(
            plugin=plugin,
            policy=policy or Policy(),
            parameters=dict(parameters or {}),
            durable=durable,
            mailbox=mailbox,
            subscribe=tuple(subscribe),
        )
        check_agent(name, own, handle.manifest)
        agent = Agent(name, own, "created")
        self._take_up(agent)
        self._save(agent)
        return self._row(agent)

    def start(self, name: str) -> dict[str, Any]:
        """Let it hear. Raises InvalidArguments where it runs."""
        agent = self._known(name)
        agent.check("start")
        self._open(agent, self._plugin(agent.settings.plugin))
        agent.state = "running"
        self._save(agent)
        return self._row(agent)

    async def stop(self, name: str) -> dict[str, Any]:
        """Hear nothing more; what is in hand ends. A durable one's log stays for its next start,
        what waits for another is handled within `stop_grace_ms` or becomes dead letters.

        Raises InvalidArguments where it does not run.
        """
        agent = self._known(name)
        agent.check("stop")
        agent.state = "stopping"
        pump, agent.pump = agent.pump, None
        try:
            if pump is not None and pump in self._parts.pumps:
                await pump.retire(self._parts.grace_s, f"agent {name} was stopped")
                await pump.finish()
                self._parts.pumps.remove(pump)
        finally:
            agent.state = "stopped"
            self._save(agent)
        return self._row(agent)

    def delete(self, name: str) -> dict[str, Any]:
        """Forget it, with its state and its log. Raises InvalidArguments where it runs."""
        agent = self._known(name)
        agent.check("delete")
        row = self._row(agent) | {"state": "deleted"}
        del self._agents[name]
        self._parts.broker.approvals.dismiss(name, agent.settings.plugin)
        batch = Batch()
        for key, _ in self._parts.pump.store.scan(agent_prefix(name)):
            batch.delete(key)
        if len(batch):
            self._parts.pump.store.write(batch)
        self._kept.drop(name)
        return row

    # -- inside

    def _take_up(self, agent: Agent) -> None:
        self._agents[agent.name] = agent
        self._parts.broker.adopt(agent.name, agent.settings.policy)
        self._parts.broker.approvals.adopt(agent.name, agent.settings)

    def _known(self, name: str) -> Agent:
        if name not in self._agents:
            known = ", ".join(self._agents) or "none"
            hint = did_you_mean(name, self._agents, f"there are: {known}")
            raise InvalidArguments(f"there is no agent {name!r}; {hint}")
        return self._agents[name]

    def _plugin(self, name: str) -> PluginHandle:
        handle = self._parts.plugins.get(name)
        if handle is None or handle.state == "stopped":
            known = ", ".join(self._parts.plugins) or "none"
            raise InvalidArguments(f"no plugin {name!r} runs here; there are: {known}")
        return handle

    def _open(self, agent: Agent, handle: PluginHandle) -> None:
        if agent.policy:
            handle.labels.agents[agent.policy] = LEVEL_OF[agent.settings.policy.privacy]
        if serial(handle.manifest):
            who = Who(agent.name, agent.settings, agent.policy, self._performer.take)
            agent.pump = AgentPump(self._parts.pump, handle, who)
        else:
            agent.pump = Pump(*self._plain(handle, agent.name))
        self._begin(agent.pump)

    def _plain(self, handle: PluginHandle, agent: str) -> tuple[Any, ...]:
        parts = self._parts.pump
        return parts.bus, parts.tracer, handle, agent, parts.on_handled

    def _begin(self, pump: Pump) -> None:
        pump.start()
        self._parts.pumps.append(pump)

    def _save(self, agent: Agent) -> None:
        if agent.origin == "created":
            self._kept.put(agent.name, agent.settings, agent.state == "running")

    def _row(self, agent: Agent) -> dict[str, Any]:
        own, handle = agent.settings, self._parts.plugins.get(agent.settings.plugin)
        heard = agent.pump.subscriptions if agent.pump is not None else []
        return {
            "name": agent.name,
            "plugin": own.plugin,
            "state": agent.state,
            "plugin_state": handle.state if handle is not None else "absent",
            "durable": own.durable,
            "origin": agent.origin,
            "waiting": agent.pump.waiting if agent.pump is not None else 0,
            "hears": [subscription.pattern for subscription in heard],
        }
