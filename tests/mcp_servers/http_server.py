"""An MCP server over streamable HTTP, by the official SDK, on a free port of loopback.

    python http_server.py [json]

It prints its port. `secret` tells the Authorization header that a call came with; `json` answers
in JSON where the protocol lets it choose, else in server-sent events.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import Server


async def list_tools(_ctx: Any, _params: Any) -> types.ListToolsResult:
    kind = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    hints = types.ToolAnnotations(read_only_hint=True)
    return types.ListToolsResult(
        tools=[
            types.Tool(name="add", input_schema=kind, annotations=hints),
            types.Tool(name="secret", input_schema={"type": "object"}, annotations=hints),
        ]
    )


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    given = params.arguments or {}
    if params.name == "add":
        answer: dict[str, Any] = {"sum": given["a"] + given["b"]}
    else:
        answer = {"authorization": ctx.request.headers.get("authorization", "")}
    return types.CallToolResult(content=[], structured_content=answer)


def main() -> None:
    server: Server[Any] = Server("adder", on_list_tools=list_tools, on_call_tool=call_tool)
    app = server.streamable_http_app(json_response="json" in sys.argv[1:])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_level="error")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
