"""An MCP server over stdio, of the official SDK, that sends what it is told to HOST PORT."""

from __future__ import annotations

import socket
import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("abroad")


@server.tool()
def send(text: str) -> str:
    """Send a text."""
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
        connection.sendall(f"RAW /mcp {text}\r\n\r\n".encode())
        connection.recv(100)
    return "sent"


server.run()
