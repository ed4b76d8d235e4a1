"""Whether this process is in a sandbox: what the host says, and what can really be reached."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing

LAYERS = "LOOM_SANDBOX"
"""The host sets it for a child in a sandbox: names of the layers that hold, with commas."""
MACHINE = ("/etc/hostname", "/etc/os-release", "/etc/shadow", "/var", "/home", "/root")
"""Files and folders that no plugin without a grant for them has business with."""
NOWHERE = ("192.0.2.1", 9)
"""RFC 5737: an address for documents, in nobody's network."""


def openings(environ: Mapping[str, str], machine: tuple[str, ...] = MACHINE) -> list[str]:
    """Why this is no strict sandbox, empty when it is one."""
    found = [] if environ.get(LAYERS) else [f"{LAYERS} names no layer"]
    readable = [path for path in machine if _reads(path)]
    if readable:
        found.append(f"it can read {', '.join(readable)}")
    return found + [f"it has a route to the network over {name}" for name in _routes()]


def _reads(path: str) -> bool:
    """Tries it: `os.access` knows nothing of Landlock. An empty folder shows nothing."""
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True


def _routes() -> Iterator[str]:
    """Connecting a datagram socket asks the kernel for a route and sends nothing."""
    try:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            probe.connect(NOWHERE)
    except OSError:
        return
    yield "IPv4"
