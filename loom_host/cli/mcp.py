"""`loom mcp`: the running host's granted tools, for any MCP client."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loom_host.settings import Settings
from loom_sdk.errors import ConfigError

from .common import ask_once, settings_of

if TYPE_CHECKING:
    from mcp.server.lowlevel.server import Server

INSTALL = 'the MCP SDK is missing: pip install "loom-host[mcp]"'


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("mcp", help="serve the running host's tools to an MCP client")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--stdio", action="store_true", help="over stdin and stdout; the default")
    how.add_argument("--http", metavar="HOST:PORT", help="over streamable HTTP, on loopback")
    parser.add_argument(
        "--token-file", metavar="FILE", help="with --http: the bearer token; made where missing"
    )
    parser.add_argument(
        "--client", metavar="NAME", default="mcp", help="whose [clients.NAME] holds; default mcp"
    )
    parser.set_defaults(handler=run_mcp)


async def run_mcp(arguments: argparse.Namespace) -> int:
    """Until the client goes away or it is interrupted."""
    try:
        from loom_host.mcp_server import make_server
    except ImportError as error:
        raise ConfigError(f"{INSTALL} ({error})") from error
    settings = settings_of(arguments.config)

    async def ask(request: dict[str, Any]) -> Any:
        return await ask_once(arguments, request)

    tools = await ask({"op": "client-tools", "client": arguments.client})
    _say(f"{len(tools)} tool(s) for the client {arguments.client!r}")
    server = make_server(ask, arguments.client)
    if arguments.http:
        await _over_http(server, arguments, settings)
    else:
        await _over_stdio(server)
    return 0


async def _over_http(server: Server[Any], arguments: argparse.Namespace, own: Settings) -> None:
    from loom_host.mcp_http import loopback_address, serve_http, token_at

    host, port = loopback_address(arguments.http)
    path = Path(arguments.token_file or own.host.runtime_dir / "mcp.token")
    token = token_at(path)
    await serve_http(server, host, port, token, lambda url: _say(f"{url}, token in {path}"))


async def _over_stdio(server: Server[Any]) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def _say(text: str) -> None:
    """Not on stdout, which may be the client's."""
    print(f"loom mcp: {text}", file=sys.stderr, flush=True)
