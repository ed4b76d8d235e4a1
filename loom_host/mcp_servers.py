"""Any MCP server as a plugin: `[plugins.NAME] mcp = [...]` -> the manifest of the bridge to it.

The bridge (plugins/grpc/mcp-bridge) is a plugin of the grpc tier that speaks MCP: over pipes with a
server that it starts inside its own sandbox, or over HTTP by way of the host.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from loom_sdk.errors import ConfigError

from .discovery import first_party_root
from .manifest import Manifest, Permissions, load_manifest
from .mcp_words import is_url
from .settings import PluginSettings

BRIDGE = "grpc/mcp-bridge"
INSTALL = 'pip install "loom-host[mcp]"'
_MODULES = "node_modules"


def mcp_manifest(name: str, own: PluginSettings) -> Manifest:
    """What the bridge to the server of this table is, and asks for: what the table allows.

    Raises:
        ConfigError: the MCP SDK is missing, or the name is no plugin's name.
    """
    _check_sdk(name)
    bridge = load_manifest(first_party_root() / BRIDGE / "plugin.toml")
    if not name.isascii() or not name.replace("-", "").isalnum() or name != name.lower():
        raise ConfigError(
            f"[plugins.{name}] mcp: {name!r} must be of lower case letters, digits and dashes"
        )
    key = "url" if is_url(own.mcp) else "command"
    value = own.mcp[0] if is_url(own.mcp) else list(own.mcp)
    told = {key: {**bridge.config_schema[key], "default": value}, "name": {"default": name}}
    try:
        permissions = _permissions(own)
    except ValueError as error:
        raise ConfigError(f"[plugins.{name}] mcp: {error}") from error
    return replace(
        bridge, id=f"mcp/{name}", description=f"The MCP server {own.mcp[0]}", dynamic=True,
        config_schema={**bridge.config_schema, **told}, permissions=permissions,
    )  # fmt: skip


def _check_sdk(name: str) -> None:
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        raise ConfigError(f"[plugins.{name}] mcp: the MCP SDK is missing: {INSTALL}")


def _permissions(own: PluginSettings) -> Permissions:
    """A server has no manifest: it asks for what it is allowed, and one at an address for that."""
    network = own.allow.get("network", ())
    if is_url(own.mcp):
        parts = urlsplit(own.mcp[0])
        network = (f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", *network)
    return Permissions(
        network=network,
        filesystem=own.allow.get("filesystem", ()),
        env=own.allow.get("env", ()),
        secrets=own.allow.get("secrets", ()),
        devices=own.allow.get("devices", ()),
    )


def code_of(words: tuple[str, ...]) -> tuple[Path, ...]:
    """What the sandbox must show beside the system's programs: the server's own code.

    That is the program, with the libraries beside its `bin` and its interpreter, and the script
    that it is told to run: the first word after it that is a file. A file of npm stands for its
    `node_modules`.

    Raises:
        ConfigError: there is no such program.
    """
    if not words or is_url(words):
        return ()
    program = shutil.which(words[0])
    if program is None:
        raise ConfigError(f"mcp: {words[0]!r} is no program on PATH: install it, or give its path")
    script = next((word for word in words[1:] if Path(word).is_file()), "")
    paths = [Path(program), Path(script), _interpreter(Path(program))]
    found = [place for path in paths if path.is_absolute() for place in _around(path)]
    return tuple(dict.fromkeys(found))


def _interpreter(program: Path) -> Path:
    """Of a script, by its first line; `Path()` where there is none."""
    with program.open("rb") as file:
        line = file.readline(256)
    words = line[2:].decode("utf-8", "replace").split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        words = [shutil.which(word) or "" for word in words[1:] if not word.startswith("-")]
    return Path(words[0]) if words else Path()


def _around(path: Path) -> list[Path]:
    found: list[Path] = []
    for place in (path, path.resolve()):
        if _MODULES in place.parts:
            found.append(Path(*place.parts[: place.parts.index(_MODULES) + 1]))
        elif place.parent.name == "bin":
            prefix = place.parent.parent
            found += [place.parent, *filter(Path.exists, (prefix / "lib", prefix / "pyvenv.cfg"))]
        else:
            found.append(place)
    return found
