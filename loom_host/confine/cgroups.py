"""A control group for one process: memory, processors and processes. Versions 1 and 2.

v1   a folder below this process's own in each controller's hierarchy
v2   a folder below this process's own, where that one may hand its controllers down
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from .report import Unavailable

PREFIX = "loom-"
"""Folders are `loom-PID-NAME`, PID that of the process that made them."""
_FILES = {
    1: {"memory": "memory.limit_in_bytes", "processes": "pids.max", "cpu": "cpu.cfs_quota_us"},
    2: {"memory": "memory.max", "processes": "pids.max", "cpu": "cpu.max"},
}
_CONTROLLERS = {"memory": "memory", "processes": "pids", "cpu": "cpu", "cpu_time": "cpuacct"}
_ON_2 = {"cpuacct": "cpu"}
CPU_PERIOD_US = 100_000
"""What the kernel's default is in both versions."""
END_S, LOOK_S = 1.0, 0.001
"""So long killed processes may take to leave their group; how often that is looked at."""


class Group:
    """One control group; its folders in as many hierarchies as the limits need."""

    def __init__(self, folders: list[Path], missing: str) -> None:
        self.folders, self.missing = folders, missing

    def join(self, pid: int) -> str:
        """Move a process in. Before it drops its user and before it forks.

        Returns what of the limits does not hold.
        """
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))
        return self.missing

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed for memory in this group."""
        for folder in self.folders:
            for name in ("memory.oom_control", "memory.events"):
                with contextlib.suppress(OSError):
                    found = re.search(r"^oom_kill (\d+)$", (folder / name).read_text(), re.M)
                    if found and int(found[1]):
                        return True
        return False

    def kill(self) -> None:
        """SIGKILL to every process in the group, until there is none. Blocks, at most END_S."""
        deadline = time.monotonic() + END_S
        while self.strike() and time.monotonic() < deadline:
            time.sleep(LOOK_S)

    async def end(self) -> None:
        """As `kill`, on an event loop that goes on meanwhile."""
        import asyncio  # what wasm workers are forked from does without

        deadline = time.monotonic() + END_S
        while self.strike() and time.monotonic() < deadline:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(LOOK_S)

    def strike(self) -> int:
        """SIGKILL to every process in the group, once; how many there were."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
        members = self.members()
        for pid in members:
            self._kill(pid)
        return len(members)

    def _kill(self, pid: int) -> None:
        """By a descriptor taken while it was a member: the number may be another's by now."""
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                if pid in self.members():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def members(self) -> set[int]:
        """Process ids; 0 for one that is outside of this process's own pid namespace."""
        found: set[int] = set()
        for folder in self.folders:
            with contextlib.suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        return found

    def holds(self, pid: int) -> bool:
        """Whether a process is in it, in every hierarchy."""
        with contextlib.suppress(OSError):
            return all(
                str(pid) in (folder / "cgroup.procs").read_text().split() for folder in self.folders
            )
        return False

    def peak_memory(self) -> int:
        """The most bytes that were in use at once, 0 where it is not known."""
        return self._number("memory.max_usage_in_bytes") or self._number("memory.peak")

    def cpu_s(self) -> float | None:
        """Seconds of processor time of all that ever ran in it; None where it is not known."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                return int((folder / "cpuacct.usage").read_text()) / 1e9
            with contextlib.suppress(OSError):
                found = re.search(r"^usage_usec (\d+)$", (folder / "cpu.stat").read_text(), re.M)
                if found:
                    return int(found[1]) / 1e6
        return None

    def _number(self, name: str) -> int:
        for folder in self.folders:
            with contextlib.suppress(OSError, ValueError):
                return int((folder / name).read_text())
        return 0

    def remove(self) -> None:
        """After its processes are reaped. Leaves what the kernel still holds to `sweep`."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def create(name: str, limits: dict[str, int]) -> Group:
    """A new group below this process's own.

    Args:
        limits: `memory` in bytes, `processes` as a number (threads count), `cpu` in microseconds
            per CPU_PERIOD_US, `cpu_time` to have it metered, whatever the value.

    Raises:
        Unavailable: there is no hierarchy that this user may make groups in.
    """
    folders: list[Path] = []
    missing, why = [], "no memory controller is mounted"
    for key, value in limits.items():
        try:
            folder, version = _parent(_CONTROLLERS[key])
            folder = folder / f"{PREFIX}{os.getpid()}-{name}"
            folder.mkdir(exist_ok=True)
            if key in _FILES[version]:
                (folder / _FILES[version][key]).write_text(str(value))
        except (OSError, Unavailable) as error:
            why = str(error)
            missing.append(f"{key} is not limited ({why})")
        else:
            if folder not in folders:
                folders.append(folder)
    if not folders:
        raise Unavailable(f"no control group: {why}")
    return Group(folders, "; ".join(missing))


def sweep() -> None:
    """Remove the groups that processes which are gone have left."""
    for controller in _CONTROLLERS.values():
        with contextlib.suppress(OSError, Unavailable):
            parent, _ = _parent(controller)
            for folder in parent.glob(f"{PREFIX}*-*"):
                maker = folder.name.split("-")[1]
                if maker.isdigit() and not os.path.exists(f"/proc/{maker}"):
                    with contextlib.suppress(OSError):
                        folder.rmdir()


def _parent(controller: str) -> tuple[Path, int]:
    """This process's own folder for a controller, and the hierarchy's version."""
    own = _own_groups(Path("/proc/self/cgroup").read_text().splitlines())
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if controller in own and (mount := _mounted(mounts, "cgroup", controller)):
        return _inside(mount, own[controller]), 1
    if "" in own and (mount := _mounted(mounts, "cgroup2", "")):
        folder = _inside(mount, own[""])
        _hand_down(folder, _ON_2.get(controller, controller))
        return folder, 2
    raise Unavailable(f"the {controller} controller is in no mounted hierarchy")


def find(name: str) -> Group:
    """The group that any process below this one's own has made as `name`; maybe without folders."""
    folders: set[Path] = set()
    for controller in _CONTROLLERS.values():
        with contextlib.suppress(OSError, Unavailable):
            folders.update(_parent(controller)[0].glob(f"{PREFIX}*-{name}"))
    return Group(sorted(folders), "")


def _hand_down(folder: Path, controller: str) -> None:
    if controller not in (folder / "cgroup.controllers").read_text().split():
        raise Unavailable(f"the {controller} controller is not handed down to {folder.name or '/'}")
    handed = folder / "cgroup.subtree_control"
    if controller in handed.read_text().split():
        return
    try:
        handed.write_text(f"+{controller}")
    except OSError as error:
        raise Unavailable(
            "this process's own group may not hand controllers down while it has processes: start "
            "Loom with systemd's Delegate=yes and DelegateSubgroup="
        ) from error


def _own_groups(lines: Iterable[str]) -> dict[str, str]:
    """Controller to path; version 2 is the empty controller. Format: cgroups(7)."""
    own = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    return own


def _mounted(lines: Iterable[str], kind: str, controller: str) -> tuple[str, str] | None:
    """(root, mount point) of a hierarchy. Format: proc_pid_mountinfo(5)."""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        found, _, options = rest.split(" ", 2)
        if found == kind and (not controller or controller in options.split(",")):
            root, point = fields.split(" ")[3:5]
            return root, point
    return None


def _inside(mount: tuple[str, str], path: str) -> Path:
    root, point = mount
    relative = os.path.relpath(path, root)
    return Path(point) / ("" if relative.startswith("..") else relative)
