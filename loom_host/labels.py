"""What one plugin may read, what its instance has seen, and at which level it asks the host.

The rules are in `privacy.py`; here is the state of one plugin, held by its handle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from loom_sdk.errors import PermissionDenied

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
    may_serve,
    why_not,
)

if TYPE_CHECKING:
    from .runtimes.base import PluginInstance, PluginSpec
    from .settings import PluginSettings

_ENFORCED = "enforced"


class Kept(Protocol):
    """Where it is kept what a plugin has seen: a `Store`."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes) -> None: ...


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
        self._store: Kept | None = None
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

    def may_read(self, level: int, instance: PluginInstance | None) -> bool:
        """Whether an event or a value of this level may be given to it. A refusal is audited.

        What an agent's own policy asks of it needs no grant.
        """
        placement, granted = self.placement(instance), self._granted
        if placement == "local":
            granted = max(granted, *self.agents.values(), DEFAULT)
        if level <= clearance(placement, granted):
            return True
        self._tell(level, placement)
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
        return max(level, self.agents.get(agent, PUBLIC)) if self.agents else level

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

    def open(self, store: Kept, audit: Audit) -> None:
        """A new instance begins. It has seen what its files may hold; its memory is empty."""
        self.audit, self._store = audit, store
        if not self._has_files:
            self.seen = PUBLIC
        elif kept := store.get(self._key):
            self.seen = max(self.seen, int(kept))

    def saw(self, level: int) -> None:
        self.seen = level
        if level >= PRIVATE and self._has_files and self._store is not None:
            self._store.put(self._key, b"%d" % level)

    @property
    def _has_files(self) -> bool:
        """Whether it may write what the next instance reads, beside the host's storage."""
        return self._spec.tier != "wasm" or bool(self._spec.folders)

    @property
    def _key(self) -> bytes:
        return f"meta/seen/{self._spec.id}".encode()
