"""The granted tools of a running host as an MCP server, by the official SDK.

Every request is one of the host's control socket, made in the name of one client of `[clients]`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from loom_sdk.errors import LoomError, mapping_of

from .control import Refused

Ask = Callable[[dict[str, Any]], Awaitable[Any]]
"""Puts one request to the host: its one answer. Raises Refused, or PluginUnhealthy without one."""

APPROVAL_NEEDED = "APPROVAL_NEEDED"
APPROVE = "approve"
"""Name of the question whether a tool may act."""
_NO_FIELDS: types.ElicitRequestedSchema = {"type": "object", "properties": {}}
_SHOWN = 1000
"""Characters of the arguments that the client's user is shown."""


def make_server(ask: Ask, client: str) -> Server[Any]:
    """A server of the tools that `[clients.CLIENT]` is granted."""

    async def list_tools(
        _ctx: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        try:
            rows = await ask({"op": "client-tools", "client": client})
        except LoomError as error:
            raise MCPError(types.INTERNAL_ERROR, error.message) from error
        return types.ListToolsResult(tools=[tool_of(row) for row in rows])

    async def call_tool(
        ctx: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        request = {
            "op": "client-call", "client": client, "capability": params.name,
            "arguments": params.arguments or {}, "can_elicit": _can_elicit(ctx),
            "approved": _answered(params),
        }  # fmt: skip
        try:
            return await _call(ask, ctx, request)
        except LoomError as error:
            code = error.code if isinstance(error, Refused) else mapping_of(error).code
            return failure(code, error.message)

    return Server("loom", on_list_tools=list_tools, on_call_tool=call_tool)


async def _call(
    ask: Ask, ctx: ServerRequestContext[Any], request: dict[str, Any]
) -> types.CallToolResult | types.InputRequiredResult:
    """Raises LoomError. Where the host wants it, the client's user is asked in between."""
    if request["approved"] is False:
        return failure("PERMISSION_DENIED", f"{request['capability']}: the user said no")
    try:
        return result_of(await ask(request))
    except Refused as refused:
        if refused.code != APPROVAL_NEEDED or request["approved"]:
            raise
        question = _question(refused.message, request["arguments"])
    if not ctx.session.can_send_request:  # from 2026-07-28 on the client calls again, with it
        return types.InputRequiredResult(input_requests={APPROVE: question})
    form = question.params
    assert isinstance(form, types.ElicitRequestFormParams)
    answer = await ctx.session.elicit_form(form.message, form.requested_schema, ctx.request_id)
    return await _call(ask, ctx, request | {"approved": answer.action == "accept"})


def _question(text: str, arguments: Mapping[str, Any]) -> types.ElicitRequest:
    shown = json.dumps(arguments, ensure_ascii=False)[:_SHOWN]
    form = types.ElicitRequestFormParams(message=f"{text}\n{shown}", requested_schema=_NO_FIELDS)
    return types.ElicitRequest(params=form)


def _answered(params: types.CallToolRequestParams) -> bool | None:
    """What the client's user said to a question before; None where none was asked."""
    answer = (params.input_responses or {}).get(APPROVE)
    return answer.action == "accept" if isinstance(answer, types.ElicitResult) else None


def _can_elicit(ctx: ServerRequestContext[Any]) -> bool:
    """Whether the client's user can be asked while the call waits, or in between."""
    told = ctx.session.client_capabilities
    modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    there = told is not None and told.elicitation is not None
    return there and (modern or ctx.session.can_send_request)


def tool_of(row: Mapping[str, Any]) -> types.Tool:
    """A capability as a tool; its effects as hints."""
    effects = row["effects"]
    output = row["output"] if (row["output"] or {}).get("type") == "object" else None
    return types.Tool(
        name=row["name"],
        description=row["description"],
        input_schema={"type": "object", **row["input"]},
        output_schema=output,
        annotations=types.ToolAnnotations(
            read_only_hint=effects == "none",
            destructive_hint=effects == "once",
            idempotent_hint=effects in ("none", "idempotent"),
            open_world_hint=row["cloud"],
        ),
    )


def result_of(row: Mapping[str, Any]) -> types.CallToolResult:
    """JSON as text and, where it is an object, as structured content; binary as what it is."""
    output = row["output"]
    content: list[types.ContentBlock] = []
    if output is not None:
        content.append(types.TextContent(text=_text(output)))
    for part in (row, *row["items"]):
        if part is not row and part["output"] is not None:
            content.append(types.TextContent(text=_text(part["output"])))
        if part["payload"]:
            content.append(_binary(part["payload"], part["content_type"]))
    structured = output if isinstance(output, dict) else None
    return types.CallToolResult(content=content, structured_content=structured)


def _text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def _binary(data: str, kind: str) -> types.ContentBlock:
    kind = kind or "application/octet-stream"
    if kind.startswith("image/"):
        return types.ImageContent(data=data, mime_type=kind)
    if kind.startswith("audio/"):
        return types.AudioContent(data=data, mime_type=kind)
    size = len(base64.b64decode(data))
    blob = types.BlobResourceContents(uri=f"loom:payload/{size}", blob=data, mime_type=kind)
    return types.EmbeddedResource(resource=blob)


def failure(code: str, message: str) -> types.CallToolResult:
    """A refusal or an error of the tool, which a model may read and mend its call by."""
    text = types.TextContent(text=f"{code}: {message}")
    return types.CallToolResult(content=[text], is_error=True)
