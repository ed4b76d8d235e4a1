"""What a child sees of the machine: one list of places, told to bubblewrap and to Landlock."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import loom_sdk
from loom_host import confine
from loom_host.confine.landlock import CHANGE, DEVICE, EXECUTE, READ
from loom_host.folders import Folder
from loom_sdk.models import models_dir

from .reach import Reach

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives",
)  # fmt: skip
"""Few, since every mount takes bubblewrap half a millisecond."""
NETWORK_ETC = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/gai.conf",
    "/etc/ssl", "/etc/ca-certificates",
)  # fmt: skip
CPUS = "/sys/devices/system/cpu"
"""Numeric libraries count processors there."""
TMP_BYTES = 64 * 1024**2
SHM_BYTES = 16 * 1024**2
_OVER = (Path("/tmp"), Path("/run"), Path("/dev/shm"))
"""What is mounted anew even where everything else is seen as it is."""
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_READ = READ | EXECUTE


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of one child."""

    plugin: Path
    program: Path
    """What is run."""
    data: Path
    cache: Path
    private: Path
    """Its socket, and its temporary files where it has no /tmp of its own."""
    host_socket: Path


@dataclass(slots=True)
class View:
    """`everything`: the machine is readable; else only what is named."""

    places: Places
    reach: Reach
    everything: bool
    folders: tuple[Folder, ...] = ()
    code: tuple[Path, ...] = ()
    """Programs beside its own."""
    readable: list[Path] = field(default_factory=list)
    writable: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        here, etc = self.places, ETC + (NETWORK_ETC if self.reach.ports else ())
        wanted = [*map(Path, etc), *_interpreter(), *_around(here.program), here.plugin]
        wanted += self.code
        self.readable = _once([*wanted, models_dir(), *self.reach.readable])
        self.writable = [here.data, here.cache, here.private]

    def bubblewrap(self, passwd: int, group: int) -> list[str]:
        """Options. The two descriptors hold files of users and groups."""
        words = ["--ro-bind", "/", "/"] if self.everything else self._only_named(passwd, group)
        words += ["--proc", "/proc", "--dev", "/dev"]
        for folder, size in (("/dev/shm", SHM_BYTES), ("/tmp", TMP_BYTES)):
            words += ["--perms", "1777", "--size", str(size), "--tmpfs", folder]
        words += ["--perms", "0755", "--tmpfs", "/run"]  # sockets of the machine's services
        changed = (*self.writable, self.places.host_socket, *self.reach.sockets)
        binds = [("--ro-bind-try", path) for path in self.readable if self._hidden(path)]
        binds += [("--bind", path) for path in changed]
        binds += [("--dev-bind-try", path) for path in self.reach.devices]
        words += self._ways_to(path for _, path in binds)
        for granted in self.folders:
            option = "--bind" if granted.writable else "--ro-bind"
            words += [option, str(granted.path), self.seen(granted, True)]
        for option, path in binds:
            words += [option, str(path), str(path)]
        words += ["--remount-ro", "/run", "--remount-ro", "/dev", "--remount-ro", "/"]
        return [*words, "--chdir", str(self.places.plugin)]

    def seen(self, folder: Folder, wrapped: bool) -> str:
        """Where the plugin finds a granted folder."""
        return folder.inside if wrapped and not self.everything else str(folder.path.resolve())

    def _hidden(self, path: Path) -> bool:
        """Whether it is to be seen only when it is bound."""
        return not self.everything or any(path.is_relative_to(place) for place in _OVER)

    def _ways_to(self, paths: Iterable[Path]) -> list[str]:
        """Makes the folders on the way: by itself bubblewrap shuts them to other users."""
        ways = {way for path in paths for way in path.parents if self._hidden(way)}
        ordered = sorted(ways - {Path("/"), *_OVER}, key=lambda way: len(way.parts))
        return [word for way in ordered for word in ("--perms", "0755", "--dir", str(way))]

    def _only_named(self, passwd: int, group: int) -> list[str]:
        words = ["--perms", "0755", "--dir", "/etc"]
        words += [*self._ways_to([Path(CPUS)]), "--ro-bind-try", CPUS, CPUS]
        for name in SYSTEM:
            if os.path.islink(name):
                words += ["--symlink", os.readlink(name), name]
            else:
                words += ["--ro-bind-try", name, name]
        files = ((passwd, "/etc/passwd"), (group, "/etc/group"))
        for descriptor, path in files:
            words += ["--perms", "0444", "--ro-bind-data", str(descriptor), path]
        return words

    def rights(self, wrapped: bool) -> list[tuple[str, int]]:
        """Paths for Landlock. `wrapped`: bubblewrap gave it folders of its own."""
        reading = ["/"] if self.everything else [*SYSTEM, CPUS, "/proc", *map(str, self.readable)]
        if wrapped and not self.everything:
            reading += ["/etc", "/dev"]
        rights = [(path, _READ) for path in reading]
        rights += [(f"/dev/{name}", DEVICE) for name in _DEVICES]
        rights += [(str(path), DEVICE | READ) for path in self.reach.devices]
        changing = ["/tmp", "/dev/shm"] if wrapped else []
        # Without EXECUTE: what it writes it cannot start as a program.
        rights += [(path, READ | CHANGE) for path in (*changing, *map(str, self.writable))]
        rights += [(str(path), DEVICE) for path in self.reach.sockets]
        for folder in self.folders:
            change = CHANGE if folder.writable else 0
            rights.append((self.seen(folder, wrapped), READ | change))
        return rights


def _interpreter() -> list[Path]:
    """This Python, the SDK, and what confines the child."""
    # The folder that the SDK is imported from: an import lists it.
    sdk, entrance = Path(loom_sdk.__file__).parents[1], Path(confine.__file__).parent
    packages = [Path(path) for path in sys.path if path.endswith("site-packages")]
    return [Path(sys.prefix), Path(sys.base_prefix), sdk, entrance, *packages]


def _around(program: Path) -> list[Path]:
    """A program outside of the system's folders, with the libraries beside its `bin`."""
    found = []
    for path in {program, program.resolve()}:
        folder = path.parent
        own = [folder, folder.parent / "lib", folder.parent / "pyvenv.cfg"]
        found += own if folder.name == "bin" else [path]
    return found


def _once(paths: Iterable[Path]) -> list[Path]:
    """Without what lies in another of them or in the system's folders, outermost first."""
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda p: len(p.parts)):
        inside = any(path.is_relative_to(other) for other in (*kept, Path("/usr")))
        if not inside:
            kept.append(path)
    return kept


def users_file(number: int, home: Path) -> tuple[bytes, bytes]:
    """Contents of /etc/passwd and /etc/group where the plugin's user is alone with root's name."""
    root = b"root:x:0:0::/:/usr/sbin/nologin\n"
    own = f"plugin:x:{number}:{number}::{home}:/usr/sbin/nologin\n".encode()
    return (root + own if number else root), b"root:x:0:\nplugin:x:%d:\n" % number
