"""The sandbox of one child: what is decided before it starts, and what it reports when it is in.

    host -> bubblewrap (namespaces) -> enter.py (all other layers, on itself) -> the plugin

Profiles: `strict` sees only what it needs and is a user of its own; `standard` may read what the
host's user may; `none` is started as it is. See docs/SANDBOX.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from loom_host import confine
from loom_host.confine import cgroups
from loom_host.confine.report import ENFORCED, Unavailable
from loom_host.runtimes.base import PluginSpec

from .gate import Gate
from .machine import bubblewrap, filter_of, kernel_is, own_namespaces
from .reach import reach_of
from .users import OwnUser, Users, closed_to_others
from .view import Places, View, users_file

DATA_FLOOR = 96 * 1024**2
"""Writable memory that gRPC's threads reserve; with less a child hangs at its start."""
_OF_BUBBLEWRAP = 2
"""Processes of its own: one that waits, and the first of the namespace."""
_ENTER = Path(confine.__file__).with_name("enter.py")


def profile_of(spec: PluginSpec) -> str:
    return spec.sandbox or ("standard" if spec.first_party else "strict")


class Sandbox:
    """Made in the thread that spawns, `admit`ted on the loop, released when the child is gone.

    Raises:
        PluginLoadError: a grant cannot be read.
    """

    def __init__(
        self,
        spec: PluginSpec,
        command: Sequence[str],
        env: Mapping[str, str],
        places: Places,
        users: Users,
    ) -> None:
        self.profile = profile_of(spec)
        self.layers: dict[str, str] = {}
        self.reach = reach_of(spec.id, spec.grants)
        self._spec, self._places = spec, places
        everything = self.profile == "standard"
        self._view = View(places, self.reach, everything, spec.folders, spec.code)
        self._wrap = bubblewrap()
        self._user: OwnUser | None = None
        self.group: cgroups.Group | None = None
        self._gate = Gate()
        self.descriptors = [self._gate.descriptor]
        try:
            self._user, self._no_user = self._own_user(users)
            self.group, self._cgroup = self._own_group()
            self.env = self._environment(env)
            self.command = self._command(command)
        except BaseException:
            self.release()
            raise

    @property
    def wrapped(self) -> bool:
        return not self._wrap.problem

    @property
    def counts_processes(self) -> bool:
        """Whether RLIMIT_NPROC, which counts a user's processes, counts this plugin's alone: it
        has a user of its own, or a user namespace, in which Linux counts apart since 5.14.
        """
        apart = self.wrapped and os.geteuid() != 0 and kernel_is(5, 14)
        return self._user is not None or apart

    def _own_user(self, users: Users) -> tuple[OwnUser | None, str]:
        if self.profile == "standard":
            return None, "the profile standard keeps the host's user"
        if written := [folder for folder in self._spec.folders if folder.writable]:
            return None, f"it may write in {written[0].path}, as the host's user"
        try:
            user = users.claim(self._spec.id)
        except Unavailable as error:
            return None, str(error)
        own = (self._places.data, self._places.cache, self._places.private)
        ways = () if self.wrapped else tuple(path.parent for path in own)
        granted = (folder.path for folder in self._spec.folders)
        needed = [*self._view.readable, *granted, *ways]
        shut = closed_to_others((p for p in needed if p.exists()), parents=not self.wrapped)
        if shut is None:
            user.give(own)
            return user, ""
        user.release()
        return None, f"{shut} is closed to other users: chmod o+rx {shut}"

    def _own_group(self) -> tuple[cgroups.Group | None, str]:
        quotas = self._spec.quotas
        processes = quotas.processes and quotas.processes + _OF_BUBBLEWRAP
        wanted = {"memory": quotas.memory, "processes": processes}
        wanted["cpu"] = int(quotas.cpu_share * cgroups.CPU_PERIOD_US)
        limits = {name: value for name, value in wanted.items() if value} | {"cpu_time": 1}
        try:
            group = cgroups.create(group_name(self._places.private), limits)
        except Unavailable as error:
            return None, f"unenforced: {error}"
        return group, f"partial: {group.missing}" if group.missing else ENFORCED

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        own = {"TMPDIR": "/tmp"} if self.wrapped else {}
        for folder in self._spec.folders:
            name = f"LOOM_FOLDER_{folder.name.upper().replace('-', '_')}"
            own[name] = self._view.seen(folder, self.wrapped)
        return {**env, **own, **self.reach.env}

    def _command(self, command: Sequence[str]) -> list[str]:
        python = [sys.executable, "-u", "-I", "-S", str(_ENTER), str(self._gate.descriptor)]
        module = "-m" in command and command[0] == sys.executable
        words = [*python, *(command[command.index("-m") :] if module else command)]
        if not self.wrapped:
            return words
        number = self._user.number if self._user else 0
        files = users_file(number, self._places.data)
        passwd, group = map(self._in_memory, files)
        shared = own_namespaces(network=bool(self.reach.ports))
        options = [*shared, "--hostname", "plugin", "--die-with-parent"]
        return [self._wrap.path, *options, *self._view.bubblewrap(passwd, group), "--", *words]

    def _in_memory(self, content: bytes) -> int:
        descriptor = os.memfd_create("loom")
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        self.descriptors.append(descriptor)
        return descriptor

    def spawned(self, pid: int) -> None:
        """In the thread that spawned it, while bubblewrap works: the kernel takes 10 ms over the
        first to join, and none over those that follow.
        """
        self.started()
        if self.group is not None:
            with suppress(OSError):
                self.group.join(pid)

    def started(self) -> None:
        """The child has what it inherits."""
        for descriptor in self.descriptors[1:]:
            os.close(descriptor)
        del self.descriptors[1:]
        self._gate.started()

    async def admit(self, hold: Callable[[int], None]) -> None:
        """Let the child in, once `hold` knows its process id and it is in its control group.

        Raises PluginLoadError when it ends first.
        """
        pid = await self._gate.hello()
        hold(pid)
        if self.group is not None:
            try:
                if not self.group.holds(pid):
                    self.group.join(pid)
            except OSError as error:
                self._cgroup = f"unenforced: {error}"
        self.layers = await self._gate.order(self._order())
        self._gate.close()

    def _order(self) -> dict[str, Any]:
        namespaces = ENFORCED if self.wrapped else f"unenforced: {self._wrap.problem}"
        outer = {"namespaces": namespaces, "cgroup": self._cgroup}
        if self.wrapped:
            outer["parent_death"] = ENFORCED
        program, no_filter = filter_of(self.reach.inet)
        return {
            "outer": outer,
            "limits": self._limits(),
            "user": self._user.number if self._user else 0,
            "no_user": self._no_user,
            "parent": 0 if self.wrapped else os.getpid(),
            "paths": self._view.rights(self.wrapped),
            "ports": None if self.reach.loopback else list(self.reach.ports),
            "filter": program,
            "no_filter": no_filter,
        }

    def _limits(self) -> dict[str, int]:
        quotas = self._spec.quotas
        limits = {"open_files": quotas.open_files, "core": 0}
        if quotas.file_size:
            limits["file_size"] = quotas.file_size
        if quotas.memory:
            limits["data"] = quotas.memory + DATA_FLOOR
        if self.counts_processes and quotas.processes:
            limits["processes"] = quotas.processes
        return limits

    async def aclose(self) -> None:
        """As `release`, but what takes its time to die does not hold up the event loop."""
        self._gate.close()
        if self.group is not None:
            await self.group.end()
        self._give_back()

    def release(self) -> None:
        """After the child is gone: end what has escaped it, give everything back. Idempotent."""
        if self.group is not None:
            self.group.kill()
        self._give_back()

    def _give_back(self) -> None:
        self.started()
        self._gate.close()
        if self.group is not None:
            self.group.remove()
        user, self._user = self._user, None
        if user is not None:
            user.release()


def group_name(private: Path) -> str:
    """Of the control group of the child with that private folder."""
    return f"{private.parent.name}-{private.name}"


def places_of(spec: PluginSpec, program: str, private: Path, host_socket: Path) -> Places:
    """Makes what is missing of the plugin's own folders."""
    for folder in (spec.data_dir, spec.cache_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Places(
        spec.folder.resolve(), Path(program), spec.data_dir, spec.cache_dir, private, host_socket
    )
