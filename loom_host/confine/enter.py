"""The way into a sandbox: confines itself as the host orders, then becomes the plugin.

    python -I -S enter.py DESCRIPTOR program argument...
    python -I -S enter.py DESCRIPTOR -m module argument...    this interpreter goes on

DESCRIPTOR is a SOCK_SEQPACKET socket. One byte to the host shows it, by its credentials, which
process this is; then comes the order and goes the report, a line for each layer. When the host's
end is closed the host is gone, and nothing is run.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False  # as `typing` has it, which takes 5 ms to import
if TYPE_CHECKING:
    from typing import Any, NoReturn
else:
    if __name__ == "__main__":
        try:
            os.write(int(sys.argv[1]), b"\0")  # first of all: the host works while this imports
        except OSError:
            os._exit(0)  # there is no host any more
    # The host's package without its `__init__`, which would import the host.
    _package = sys.modules["loom_host"] = type(sys)("loom_host")
    _package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

from loom_host.confine import bpf, identity, landlock, rlimits  # noqa: E402
from loom_host.confine.report import ENFORCED, Layer, Unavailable, apply  # noqa: E402

LARGEST_ORDER = 1 << 18


def main(channel: int, words: list[str]) -> None:
    order = _receive(channel)
    if os.getsid(0) != os.getpid():
        os.setsid()
    report = order["outer"] | apply(_layers(order))
    lines = (f"{name}\t{' '.join(state.split())}" for name, state in report.items())
    os.write(channel, "\n".join(lines).encode())
    os.close(channel)
    held = [name for name, state in report.items() if state == ENFORCED]
    os.environ["LOOM_SANDBOX"] = ",".join(held)
    if words[0] == "-m":
        _go_on(words[1], words[2:])
    try:
        os.execv(words[0], words)
    except OSError as error:
        _refuse(f"{words[0]} cannot run: {error.strerror}")


def _receive(channel: int) -> dict[str, Any]:
    """Marshalled, since both ends are one interpreter and a parser would have to be imported."""
    try:
        order = marshal.loads(os.read(channel, LARGEST_ORDER))
    except (OSError, EOFError):
        os._exit(0)  # it is gone
    assert isinstance(order, dict)
    return order


def _layers(order: dict[str, Any]) -> list[Layer]:
    """In the order in which each still may be applied; the descriptors of Landlock's paths are
    opened by the user that will use them.
    """
    layers: list[Layer] = [
        ("rlimits", lambda: rlimits.limit(order["limits"])),
        ("own_user", lambda: _own_user(order["user"], order["no_user"])),
        ("no_capabilities", identity.no_capabilities),
        ("no_new_privileges", identity.no_new_privileges),
    ]
    if order["parent"]:
        layers.append(("parent_death", lambda: _die_with(order["parent"])))
    layers.append(("landlock", lambda: _landlock(order["paths"], order["ports"])))
    layers.append(("seccomp", lambda: _filter(order["filter"], order["no_filter"])))
    return layers


def _own_user(number: int, why_not: str) -> str:
    if not number:
        raise Unavailable(why_not)
    return identity.become(number)


def _die_with(parent: int) -> str:
    identity.die_with_parent(parent)
    return "what it starts may outlive a killed host, until the next start"


def _landlock(paths: list[tuple[str, int]], ports: list[int] | None) -> str:
    allowed = {}
    for path, rights in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not there, or shut to this user anyway
        is_folder = os.path.isdir(path)
        allowed[descriptor] = rights if is_folder else rights & landlock.FILE_ONLY
    try:
        return landlock.restrict(allowed, ports)
    finally:
        for descriptor in allowed:
            os.close(descriptor)


def _filter(program: bytes, why_not: str) -> str:
    if not program:
        raise Unavailable(why_not)
    return bpf.install(program)


def _go_on(module: str, arguments: list[str]) -> NoReturn:
    """`python -m module`, without starting an interpreter again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "loom_host"]:
        del sys.modules[name]
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    import site

    site.main()
    sys.argv = [module, *arguments]
    import runpy

    runpy.run_module(module, run_name="__main__", alter_sys=True)
    raise SystemExit(0)


def _refuse(why: str) -> NoReturn:
    print(why, file=sys.stderr, flush=True)
    os._exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
