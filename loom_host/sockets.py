"""Sockets that a grpc plugin may open by itself, beside the host's HTTP.

unix:/run/x.sock    that socket, and nothing else of the network
tcp:HOST:PORT       TCP to that port: the network is then the host's, HOST is not enforced
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path


def is_socket(text: str) -> bool:
    """Whether a grant of the kind `network` is a socket, not an address for HTTP."""
    return text.startswith(("unix:", "tcp:"))


def unix_path(text: str) -> Path:
    """Raises ValueError."""
    path = Path(text.removeprefix("unix:"))
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{text!r} must be an absolute path, such as 'unix:/run/x.sock'")
    return path


def tcp_port(text: str) -> int:
    """Raises ValueError."""
    parts = text.removeprefix("tcp:").rsplit(":", 1)
    if len(parts) != 2 or not parts[1].isascii() or not parts[1].isdigit():
        raise ValueError(f"{text!r} must name host and port, such as 'tcp:db.example:5432'")
    port = int(parts[1])
    if not parts[0] or not 0 < port < 65536:
        raise ValueError(f"{text!r} must name host and port, such as 'tcp:db.example:5432'")
    return port


def is_wide(text: str) -> bool:
    """Whether it asks for whichever port or path the operator names. As a grant it opens none."""
    return text.endswith(":*") if text.startswith("tcp:") else "*" in text


def check_ask(text: str) -> None:
    """Raises ValueError unless a plugin may ask so for a socket."""
    if text.startswith("unix:"):
        unix_path(text)
    else:
        tcp_port(f"{text[:-1]}1" if is_wide(text) else text)


def covers(pattern: str, value: str) -> bool:
    """A `*` in a pattern stands for anything; what is asked for HTTP never covers a socket."""
    return is_socket(pattern) == is_socket(value) and fnmatchcase(value, pattern)
