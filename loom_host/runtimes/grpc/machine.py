"""What this machine can hold a child to: each layer looked at once, and how to get what lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from loom_host.confine import cgroups, landlock, seccomp
from loom_host.confine.report import ENFORCED, Unavailable

from .syscall_filter import policy

LAYERS = (
    "namespaces", "own_user", "no_capabilities", "no_new_privileges", "seccomp", "landlock",
    "rlimits", "cgroup", "parent_death",
)  # fmt: skip
"""Every layer of the sandbox, by the name in reports, in LOOM_SANDBOX and in skipped tests."""
NO_BWRAP = "bubblewrap is missing: apt install bubblewrap"
NOT_ROOT = "it runs as the host's user: a user of its own needs a host run by root"
_PROBE_TIMEOUT_S = 10.0
_FIX = {
    "namespaces": "apt install bubblewrap; as a user also sysctl user.max_user_namespaces=10000",
    "own_user": "run the host as root: each plugin then gets a user of its own",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",
    "landlock": "use Linux 6.2 or later and boot with lsm=landlock,...",
    "cgroup": "run the host as root, or by systemd with Delegate=yes and DelegateSubgroup=host",
    "parent_death": "apt install bubblewrap",
}


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """The program, and why it does not serve here; either is empty."""

    path: str
    problem: str = ""


def bubblewrap() -> Bubblewrap:
    """On PATH, and tried once: containers and kernels may forbid what it does."""
    path = shutil.which("bwrap")
    return _tried(path, os.geteuid()) if path else Bubblewrap("", NO_BWRAP)


@cache
def _tried(path: str, user: int) -> Bubblewrap:
    words = [path, *own_namespaces(network=False), "--ro-bind", "/", "/", "--proc", "/proc"]
    try:
        done = subprocess.run(
            [*words, "--size", "65536", "--tmpfs", "/tmp", "true"],
            capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Bubblewrap("", f"bubblewrap cannot be run: {error}")
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        return Bubblewrap("", f"bubblewrap cannot make namespaces here: {said}")
    return Bubblewrap(path)


def own_namespaces(*, network: bool) -> list[str]:
    """Options of bubblewrap. As root without a user namespace: what is inside then can become a
    user that owns nothing outside; else within one, and no further ones.
    """
    words = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if not network:
        words.append("--unshare-net")
    if os.geteuid() != 0:
        return [*words, "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    kept = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")  # to give up the rest
    return [*words, "--cap-drop", "ALL", *(w for name in kept for w in ("--cap-add", name))]


@cache
def kernel_is(*least: int) -> bool:
    """Whether Linux has at least that version."""
    return tuple(map(int, os.uname().release.split("-")[0].split(".")[: len(least)])) >= least


@cache
def filter_of(inet: bool) -> tuple[bytes, str]:
    """The assembled filter of system calls, or why there is none."""
    try:
        return seccomp.assemble(policy(inet)), ""
    except Unavailable as error:
        return b"", str(error)


def layers() -> dict[str, str]:
    """Layer to `enforced`, `partial: why` or `unenforced: why`, as a strict child would report."""
    wrap = bubblewrap()
    namespaces = f"unenforced: {wrap.problem}" if wrap.problem else ENFORCED
    program, no_filter = filter_of(False)
    version = landlock.abi()
    found = dict.fromkeys(LAYERS, ENFORCED)
    found["namespaces"] = namespaces
    found["own_user"] = ENFORCED if os.geteuid() == 0 else f"unenforced: {NOT_ROOT}"
    if not program:
        found["seccomp"] = f"unenforced: {no_filter}"
    if version < 1:
        found["landlock"] = "unenforced: the kernel has no Landlock"
    elif version < 3:
        found["landlock"] = f"partial: ABI {version} lets truncate files that are readable"
    found["cgroup"] = _cgroup()
    if wrap.problem:
        found["parent_death"] = "partial: what a plugin starts may outlive a killed host"
    return found


def _cgroup() -> str:
    try:
        group = cgroups.create("probe", {"memory": 1 << 30, "processes": 64, "cpu_time": 1})
    except Unavailable as error:
        return f"unenforced: {error}"
    group.remove()
    return f"partial: {group.missing}" if group.missing else ENFORCED


def fix_of(layer: str) -> str:
    """What to do so that a layer holds."""
    return _FIX.get(layer, "use Linux 5.13 or later")
