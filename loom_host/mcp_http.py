"""`loom mcp --http`: streamable HTTP on loopback, for who bears the token."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import socket
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.lowlevel.server import Server

from loom_sdk.errors import ConfigError

PATH = "/mcp"
SHORTEST_TOKEN = 16
"""Characters."""
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


def loopback_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` of this machine's loopback. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    try:
        there = host == "localhost" or ipaddress.ip_address(host).is_loopback
        if there and 0 <= int(port) < 65536:
            return host, int(port)
    except ValueError:
        pass
    raise ConfigError(
        f"--http {text}: must be a port of this machine's loopback, such as 127.0.0.1:8765; what "
        "is to be reached from elsewhere needs a proxy with TLS before it"
    )


def token_at(path: Path) -> str:
    """The token in the file; made, 0600, where there is none.

    Raises:
        ConfigError: others may read the file, or what is in it is too short.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _kept_token(path)
    except OSError as error:
        raise ConfigError(f"{path}: the token cannot be written: {error.strerror}") from error
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token


def _kept_token(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the token cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
    if len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"{path}: a token has at least {SHORTEST_TOKEN} characters")
    return token


class Bearer:
    """Lets through whoever presents the token; it answers 401 to anybody else."""

    def __init__(self, app: App, token: str) -> None:
        self._app, self._expected = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not self._bears(scope):
            await _refuse(send)
            return
        await self._app(scope, receive, send)

    def _bears(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


async def _refuse(send: Any) -> None:
    headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": b"the token is missing or wrong\n"})


async def serve_http(
    server: Server[Any], host: str, port: int, token: str, told: Callable[[str], None]
) -> None:
    """Serve until it is interrupted. The SDK checks Host and Origin, against DNS rebinding.

    Args:
        port: 0 for any that is free.
        told: gets the address once it is listened on.

    Raises:
        OSError: the port is taken.
    """
    app = Bearer(server.streamable_http_app(streamable_http_path=PATH, host="127.0.0.1"), token)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family)
    with listening:
        shown = f"[{host}]" if ":" in host else host
        told(f"http://{shown}:{listening.getsockname()[1]}{PATH}")
        config = uvicorn.Config(app, log_level="error", access_log=False, ws="none")
        await uvicorn.Server(config).serve(sockets=[listening])
