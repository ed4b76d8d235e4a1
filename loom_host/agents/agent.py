"""One agent: its name, its settings, its state of life."""

from __future__ import annotations

from dataclasses import dataclass

from loom_host.pump import Pump
from loom_host.settings import AgentSettings
from loom_sdk.errors import InvalidArguments

FROM = {
    "start": ("created", "stopped"),
    "stop": ("running",),
    "delete": ("created", "stopped"),
}
"""In which states what may be done; to one that is `stopping`, nothing."""


@dataclass(slots=True, eq=False)
class Agent:
    """What the host knows of it. `Agents` alone changes it."""

    name: str
    settings: AgentSettings
    origin: str
    """`loom.toml`, `plugin` where a plugin of type agent has no table, or `created` at run time."""
    state: str = "created"
    pump: Pump | None = None
    """What carries its events; None unless it runs and its plugin is there."""

    def check(self, verb: str) -> None:
        """Raises InvalidArguments where it is in no state for that."""
        if self.state not in FROM[verb]:
            raise InvalidArguments(
                f"agent {self.name} is {self.state}: to {verb} it, it must be "
                f"{' or '.join(FROM[verb])}"
            )

    @property
    def policy(self) -> str:
        """Whose routing policy holds: its own where it has a table."""
        return "" if self.origin == "plugin" else self.name
