"""What one plugin may read, what its instance has seen, and at which level it asks the host.

The rules are in `privacy.py`; here is the state of one plugin, held by its handle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from loom_sdk.errors import PermissionDenied, PluginLoadError

from .grants import Audit, Grants, line_to_allow
from .privacy import (
    DEFAULT,
    LEVEL_OF,
    LOCAL_ONLY,
    NAMES,
    PRIVATE,
    PUBLIC,
    clearance,
    granted,
    is_marked,
    level_of,
    may_send,
    may_serve,
    why_not,
)
from .sockets import is_socket

if TYPE_CHECKING:
    from .runtimes.base import PluginInstance, PluginSpec
    from .settings import PluginSettings

_ENFORCED = "enforced"


class Labels:
    """Of one plugin.

    Args:
        cloud: whether its manifest says that it is; that it were local is not believed.
    """

    def __init__(
        self, spec: PluginSpec, grants: Grants, settings: PluginSettings, *, cloud: bool = False
    ) -> None:
        self._spec, self._grants, self._cloud = spec, grants, cloud
        self._trusted = spec.first_party or (settings.trusted and spec.tier == "native")
        self._floor = LEVEL_OF[settings.privacy] if settings.privacy else PUBLIC
        self._stated = bool(settings.privacy)
        self.agents: dict[str, int] = {}
        """Level by the policy of each agent that the plugin is."""
        self.seen = PUBLIC
        """The strictest level that reached the instance."""
        self.audit: Audit | None = None
        self._granted = granted(grants.allowed.get("labels", ()))
        self._told: set[int] = set()

    def placement(self, instance: PluginInstance | None) -> str:
        """`cloud` where data may leave the machine through it, else `local`; see docs/PRIVACY.md.

        Only trusted code is taken for local where nothing holds it from the network.
        """
        spec = self._spec
        if self._cloud or spec.remote is not None or self._grants.allowed.get("network"):
            return "cloud"
        if self._trusted:
            return "local"
        if spec.tier == "native":
            return "cloud"
        if spec.tier == "grpc" and instance is not None:
            return "local" if instance.enforcement.get("network") == _ENFORCED else "cloud"
        return "cloud" if spec.sandbox == "none" else "local"

    def clearance(self, instance: PluginInstance | None) -> int:
        """The strictest level that it may read. What its agents' policies ask needs no grant."""
        placement, labels = self.placement(instance), self._granted
        if placement == "local":
            labels = max(labels, *self.agents.values(), DEFAULT)
        return clearance(placement, labels)

    def may_read(self, level: int, instance: PluginInstance | None) -> bool:
        """Whether an event or a value of this level may be given to it. A refusal is audited."""
        if level <= self.clearance(instance):
            return True
        self._tell(level, self.placement(instance))
        return False

    def _tell(self, level: int, placement: str) -> None:
        if self.audit is None or level in self._told:
            return
        self._told.add(level)
        self.audit.note(self._spec.name, "labels", NAMES[level], self._remedy(level, placement))

    def _remedy(self, level: int, placement: str) -> str:
        name = self._spec.name
        if placement == "cloud" and level == LOCAL_ONLY:
            return f"# nothing does: {name} has a way out of this machine, see docs/PRIVACY.md"
        return line_to_allow(self._grants, "labels", NAMES[level])

    def check_read(self, level: int, instance: PluginInstance | None) -> None:
        """Raises PermissionDenied where `may_read` says no."""
        if not self.may_read(level, instance):
            raise PermissionDenied(
                f"{self._spec.name} may not read what is {NAMES[level]}; `loom why-denied` tells "
                "what would allow it",
                plugin_id=self._spec.id,
                permission=f"labels:{NAMES[level]}",
            )

    def listed(self, private_tools: tuple[str, ...]) -> bool:
        """Whether the operator named it for private turns, by list or by label."""
        return self._spec.name in private_tools or self._granted >= PRIVATE

    def refusal(
        self,
        level: int,
        private_tools: tuple[str, ...],
        agent: str,
        instance: PluginInstance | None,
    ) -> str:
        """Why a call of this level may not reach it, with what would allow it; empty where it may.

        A refusal is audited.
        """
        listed = self.listed(private_tools)
        if level < PRIVATE or may_serve(level, self.placement(instance), listed):
            return ""
        line = self.remedy(level, agent)
        if self.audit is not None:
            self.audit.note(self._spec.name, "privacy", NAMES[level], line)
        return f"{why_not(level, self._spec.name)}; {line}"

    def remedy(self, level: int, agent: str) -> str:
        """The lines of `loom.toml` that let it send at this level, or that nothing does."""
        name = self._spec.name
        if level > PRIVATE:
            return f"# nothing lets {name} have what is local-only, see docs/PRIVACY.md"
        if not agent:
            return line_to_allow(self._grants, "labels", NAMES[PRIVATE])
        tools = f'routing.private_tools = ["{name}"]  # beside those that are there'
        return f"[agents.{agent}.parameters]\n{tools}"

    def count(self, level: int, what: str, instance: PluginInstance | None) -> None:
        """Log in the audit that something not public went to one with a way out."""
        if level > PUBLIC and self.audit is not None and self.placement(instance) == "cloud":
            self.audit.count(self._spec.name, "privacy", f"{NAMES[level]}: {what}")

    # -- what it serves

    def enter(self, level: int) -> int:
        """It is given something of this level: the level of what it does with that."""
        if level < self._floor:
            level = self._floor
        if level > self.seen:
            self.saw(level)
        return level

    def of_event(self, agent: str, metadata: Mapping[str, str]) -> int:
        """The level of an event for it: the stricter of its label and its agent's policy."""
        level = level_of(metadata) if is_marked(metadata) else DEFAULT
        own = self.agents.get(agent, PUBLIC)
        return own if own > level else level

    def asks_at(self, level: int | None) -> int:
        """The level of what it asks of the host.

        Args:
            level: of the call that it asks for; None where it is none that the host knows.
        """
        if level is None:
            own = max(self._floor, *self.agents.values(), PUBLIC)
            return max(self.seen, own if self._stated or self.agents else DEFAULT)
        # Code that is not trusted may mix up its calls, so that all count as the strictest.
        return level if self._trusted or level > self.seen else self.seen

    # -- what outlives an instance

    def open(self, audit: Audit) -> None:
        """A new instance begins. It has seen what its files may hold; its memory is empty.

        Raises PluginLoadError where it has a socket, which nobody can close for a while, and may
        have kept what must not leave.
        """
        self.audit = audit
        if not self._has_files():
            self.seen = PUBLIC
        elif self._mark is not None and self._mark.is_file():
            self.seen = max(self.seen, LEVEL_OF.get(self._mark.read_text(), LOCAL_ONLY))
        network = self._grants.allowed.get("network", ())
        dialled = self._spec.remote is not None or any(is_socket(rule) for rule in network)
        if dialled and not may_send(self.seen, self.listed(())):
            raise PluginLoadError(
                f"{self._spec.name} may not start with {', '.join(network) or 'an address'}: its "
                f"files may hold what is {NAMES[self.seen]}. Take the grant away, or empty "
                f"{self._spec.data_dir} and {self._spec.cache_dir}",
                plugin_id=self._spec.id,
            )

    def saw(self, level: int) -> None:
        self.seen = level
        if level >= PRIVATE and self.audit is not None and self._mark is not None:
            self._mark.parent.mkdir(parents=True, exist_ok=True)
            self._mark.write_text(NAMES[level])

    def _has_files(self) -> bool:
        """Whether it may have written what the next instance reads, beside the host's storage."""
        spec = self._spec
        if any(folder.writable for folder in spec.folders) or spec.remote is not None:
            return True
        if spec.tier == "wasm":
            return False
        held = spec.tier == "grpc" and spec.sandbox != "none"
        return not held or any(map(_has_entries, (spec.data_dir, spec.cache_dir)))

    @property
    def _mark(self) -> Path | None:
        """The file that tells the next instance's level: beside its own folder, not inside."""
        folder = self._spec.data_dir
        return folder.with_name(f"{folder.name}.seen") if folder.name else None


def _has_entries(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is not None
