"""What grants open in a child's sandbox: sockets, TCP ports and devices.

    network:unix:/run/x.sock     that socket
    network:tcp:HOST:PORT        the host's network; Landlock narrows TCP to the port
    devices:sound                /dev/snd and PulseAudio's socket; so do `microphone`, `speaker`
    devices:gpu                  /dev/dri, /dev/nvidia*, /dev/kfd
    devices:loopback             a loopback interface of its own, where namespaces hold; else the
                                 host's
    devices:/dev/...             that device

Other network grants are addresses for the host's `http_request`, which needs no hole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from loom_host import sockets
from loom_sdk.errors import PluginLoadError

SOUND = ("sound", "microphone", "speaker")


@dataclass(slots=True)
class Reach:
    """Holes in the sandbox."""

    readable: list[Path] = field(default_factory=list)
    sockets: list[Path] = field(default_factory=list)
    devices: list[Path] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    loopback: bool = False

    @property
    def inet(self) -> bool:
        """Whether it may make sockets of the internet at all."""
        return self.loopback or bool(self.ports)


def reach_of(plugin_id: str, grants: Iterable[str]) -> Reach:
    """Raises PluginLoadError for a grant that cannot be read."""
    reach = Reach()
    for grant in grants:
        kind, _, value = grant.partition(":")
        try:
            if kind == "network":
                _network(reach, value)
            elif kind == "devices":
                _device(reach, value)
        except ValueError as error:
            raise PluginLoadError(
                f"{plugin_id}: cannot grant {kind} {value!r}: {error}", plugin_id=plugin_id
            ) from error
    return reach


def _network(reach: Reach, value: str) -> None:
    if sockets.is_wide(value):
        return
    if value.startswith("unix:"):
        reach.sockets.append(sockets.unix_path(value))
    elif value.startswith("tcp:"):
        reach.ports.append(sockets.tcp_port(value))


def _device(reach: Reach, value: str) -> None:
    if value in SOUND:
        _sound(reach)
    elif value == "loopback":
        reach.loopback = True
    elif value == "gpu":
        reach.devices += [Path("/dev/dri"), Path("/dev/kfd"), *Path("/dev").glob("nvidia*")]
    elif value.startswith("/dev/"):
        reach.devices.append(_device_path(value))
    else:
        raise ValueError("write sound, gpu, loopback or a path below /dev")


def _sound(reach: Reach) -> None:
    if Path("/dev/snd") in reach.devices:
        return
    reach.devices.append(Path("/dev/snd"))
    reach.readable += [Path("/etc/alsa"), Path("/etc/pulse")]
    home = os.environ.get("XDG_RUNTIME_DIR", "")
    named = os.environ.get("PULSE_SERVER", f"unix:{home}/pulse/native" if home else "")
    socket = Path(named.removeprefix("unix:"))
    if named.startswith("unix:") and socket.is_socket():
        reach.sockets.append(socket)
        reach.env["PULSE_SERVER"] = named
    cookie = Path.home() / ".config" / "pulse" / "cookie"
    if cookie.is_file():
        reach.readable.append(cookie)
        reach.env["PULSE_COOKIE"] = str(cookie)


def _device_path(text: str) -> Path:
    path = Path(text)
    if ".." in path.parts:
        raise ValueError("it must be without `..`")
    return path
