"""Tools of an MCP server as capabilities, and their results as results: pure functions."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from loom_sdk import Item, Result
from loom_sdk.calls import Effects
from loom_sdk.errors import ActionFailed
from loom_sdk.plugin import CapabilitySpec

SCHEMA_BYTES = 32_768
"""A longer schema is left out with its tool: a model could not read it either."""
DESCRIPTION_CHARS = 4096
NAME_CHARS = 64
_MESSAGE_CHARS = 16_000
"""Of an error: it must fit a frame of 64 KiB."""


def word_of(name: str) -> str:
    """A tool's name as the last part of a capability's: lower case letters, digits, `_`, `-`.

    Empty where nothing of it is left.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:512])
    return re.sub(r"[^a-z0-9_-]+", "_", spaced.lower()).strip("_")[:NAME_CHARS]


def capabilities(
    prefix: str, tools: Iterable[Any], most: int
) -> tuple[dict[str, tuple[str, CapabilitySpec]], list[str]]:
    """Capability to the tool's own name and what is told of it; and why others are left out."""
    found: dict[str, tuple[str, CapabilitySpec]] = {}
    left_out: list[str] = []
    for count, tool in enumerate(tools):
        shown = ascii(tool.name[:80])
        word = word_of(tool.name)
        name = f"{prefix}.{word}"
        if count >= most:
            left_out.append(f"{shown} and all after it: more than {most} tools")
            break
        if not word:
            left_out.append(f"{shown}: no letter or digit in its name")
        elif name in found:
            left_out.append(f"{shown}: {found[name][0]!r} has the name {name} already")
        elif _too_long(tool.input_schema) or _too_long(tool.output_schema):
            left_out.append(f"{shown}: its schema is longer than {SCHEMA_BYTES} bytes or no JSON")
        else:
            found[name] = (tool.name, _spec(name, tool))
    return found, left_out


def _too_long(schema: Mapping[str, Any] | None) -> bool:
    try:
        return len(json.dumps(schema).encode()) > SCHEMA_BYTES
    except (ValueError, RecursionError):
        return True


def _spec(name: str, tool: Any) -> CapabilitySpec:
    return CapabilitySpec(
        name=name,
        description=str(tool.description or tool.title or "")[:DESCRIPTION_CHARS],
        tool=True,
        effects=effects_of(tool.annotations),
        input_schema=dict(tool.input_schema),
    )


def effects_of(hints: Any) -> Effects:
    """MCP's hints as effects. Without hints a tool is thought to change the world, as MCP has it.

    They are a stranger's word: they say whether the host may repeat a call, and whether an
    agent must ask before it makes one; `tools.approval` overrules them.
    """
    if hints is None:
        return "once"
    if hints.read_only_hint:
        return "none"
    return "idempotent" if hints.idempotent_hint else "once"


def result_of(name: str, answer: Any) -> tuple[Result, list[Item]]:
    """A tool's answer: JSON and the first binary, and an item for each further binary.

    The JSON is the answer's structured content, else `{"text": ...}`; links and the resources'
    addresses come beside it as `links`.

    Raises:
        ActionFailed: MCP_TOOL_ERROR where the tool says that it failed.
    """
    texts, links, binaries = _sorted(answer.content)
    if answer.is_error:
        said = "\n".join(texts).strip() or json.dumps(answer.structured_content)
        text = f"{name} failed: {said}"[:_MESSAGE_CHARS]
        raise ActionFailed(text, code="MCP_TOOL_ERROR", data=answer.structured_content)
    output: Any = answer.structured_content
    if output is None and texts:
        output = {"text": "\n".join(texts)}
    if links:
        output = {**(output or {}), "links": links}
    items = [Item(None, data, kind) for data, kind in binaries]
    first = items.pop(0) if items else Item()
    return Result(output, first.payload, first.content_type), items


def _sorted(content: Iterable[Any]) -> tuple[list[str], list[str], list[tuple[bytes, str]]]:
    texts: list[str] = []
    links: list[str] = []
    binaries: list[tuple[bytes, str]] = []
    for block in content:
        if block.type == "text":
            texts.append(block.text)
        elif block.type in ("image", "audio"):
            binaries.append((_decoded(block.data), block.mime_type))
        elif block.type == "resource_link":
            links.append(str(block.uri))
        elif block.type == "resource":
            links.append(str(block.resource.uri))
            if hasattr(block.resource, "text"):
                texts.append(block.resource.text)
            else:
                kind = block.resource.mime_type or "application/octet-stream"
                binaries.append((_decoded(block.resource.blob), kind))
    return texts, links, binaries


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ActionFailed(f"the answer's binary is not base64: {error}", code="MCP_BAD") from error
