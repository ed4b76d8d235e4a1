"""An MCP server over stdio, in the standard library alone, that misbehaves as its argument says.

    python odd_server.py MODE

Its tools are `echo`, and one for what MODE is about. It speaks the handshake of 2025-06-18.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

MODE = sys.argv[1] if len(sys.argv) > 1 else "good"
ANY = {"type": "object"}
EMPTY: dict[str, Any] = {"type": "object", "properties": {}}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
JUNK = ("no json at all", "[1, 2", "null", '{"jsonrpc": "1.0"}', '{"id": 99999}', "\0")
_calls: dict[str, Any] = {}
_listed = 0


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": ANY, **more}


def of_a(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


def tools() -> list[dict[str, Any]]:
    """What this mode offers."""
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"type": "object", "properties": {"a": deep}}
    odd = {
        "names": [tool(name) for name in ("", "Ünïcode Näme", "../../etc", "a\nb", "A" * 5000,
                                          "getThing", "get_thing", "\x1b[31m", "x.y.z")],
        "bombs": [
            tool("wide") | {"inputSchema": {"type": "object", "enum": ["x" * 40_000]}},
            tool("remote") | {"inputSchema": of_a({"$ref": "http://127.0.0.1:9/schema.json"})},
            tool("local") | {"inputSchema": of_a({"$ref": "file:///etc/passwd"})},
            tool("wrong") | {"inputSchema": of_a({"type": 7})},
            tool("regex") | {"inputSchema": of_a({"type": "string", "pattern": "^(a+)+$"})},
        ],
        "bad-list": [tool("bad") | {"inputSchema": {"type": 7}}],
        "deep": [tool("deep") | {"inputSchema": deep}],
        "many": [tool(f"tool{number}", description="d" * 5000) for number in range(5000)],
        "hints": [
            tool("reads", annotations={"readOnlyHint": True}),
            tool("sets", annotations={"idempotentHint": True}),
            tool("acts", annotations={"destructiveHint": True}),
            tool("unsaid"),
        ],
    }.get(MODE, [])  # fmt: skip
    if MODE == "storm" and _listed > 1:
        odd = [tool("new")]
    return [tool("echo", description="Says it again"), tool("odd"), *odd]


def list_tools(ident: Any, params: dict[str, Any]) -> None:
    global _listed
    _listed += 1
    if MODE == "silent-list":
        return
    result: dict[str, Any] = {"tools": tools()}
    if MODE == "pages":
        result["nextCursor"] = str(int(params.get("cursor") or 0) + 1)
    send({"id": ident, "result": result})


def odd_call(ident: Any) -> None:
    """The answer to `odd`, each mode's own."""
    if MODE == "huge":
        sys.stdout.write('{"jsonrpc": "2.0", "id": 1, "x": "')
        while True:
            sys.stdout.write("x" * 1_000_000)
    if MODE == "large":
        text(ident, "x" * 20_000_000)
    elif MODE == "crash":
        print("about to die", file=sys.stderr, flush=True)
        os._exit(3)
    elif MODE == "wrong":
        send({"id": ident, "result": {"content": "not a list"}})
    elif MODE == "error":
        send({"id": ident, "error": {"code": -32000 - 50, "message": "m" * 100_000}})
    elif MODE == "fails":
        failure = [{"type": "text", "text": "no such thing"}]
        send({"id": ident, "result": {"content": failure, "isError": True}})
    elif MODE == "image":
        content = [
            {"type": "image", "data": PIXEL, "mimeType": "image/png"},
            {"type": "audio", "data": PIXEL, "mimeType": "audio/wav"},
            {"type": "text", "text": "a pixel"},
        ]
        send({"id": ident, "result": {"content": content}})
    elif MODE == "never":
        pass
    elif MODE == "asks":
        form = {
            "message": "Your password?",
            "requestedSchema": {"type": "object", "properties": {}},
        }
        send({"id": "mine", "method": "elicitation/create", "params": form})
        _calls["asked"] = ident
    else:
        noise(ident)


def noise(ident: Any) -> None:
    """The answer to `odd` among other lines."""
    if MODE == "garbage":
        for line in JUNK:
            print(line, flush=True)
        sys.stdout.buffer.write(b"\xff\xfe\n")
        text(ident, "after all that")
    elif MODE == "storm":
        for _ in range(2000):
            send({"method": "notifications/tools/list_changed"})
        text(ident, "stormed")
    elif MODE == "flood":
        said = {"level": "error", "data": "f" * 500}
        for _ in range(20_000):
            send({"method": "notifications/message", "params": said})
        text(ident, "flooded")
    else:
        text(ident, "odd")


def text(ident: Any, said: str) -> None:
    send({"id": ident, "result": {"content": [{"type": "text", "text": said}]}})


def call(ident: Any, params: dict[str, Any]) -> None:
    name, arguments = params["name"], params.get("arguments") or {}
    _calls["meta"] = params.get("_meta") or {}
    if name == "odd":
        odd_call(ident)
    elif name == "echo":
        seen = {"arguments": arguments, "cancelled": _calls.get("cancelled", 0),
                "meta": _calls["meta"], "env": sorted(os.environ), "listed": _listed,
                "refused": _calls.get("refused")}  # fmt: skip
        content = [{"type": "text", "text": json.dumps(seen)}]
        send({"id": ident, "result": {"content": content, "structuredContent": seen}})
    else:
        text(ident, name)


def answer(message: dict[str, Any]) -> None:
    method, ident = message.get("method"), message.get("id")
    params = message.get("params") or {}
    if method == "initialize" and MODE != "silent":
        told = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": True}},
                "serverInfo": {"name": "odd", "version": "1"}}  # fmt: skip
        send({"id": ident, "result": told})
    elif method == "tools/list":
        list_tools(ident, params)
    elif method == "tools/call":
        call(ident, params)
    elif method == "notifications/cancelled":
        _calls["cancelled"] = _calls.get("cancelled", 0) + 1
    elif method is None and ident == "mine":
        _calls["refused"] = "error" in message
        text(_calls.pop("asked"), "answered")
    elif ident is not None and MODE != "silent":
        send({"id": ident, "error": {"code": -32601, "message": f"no {method}"}})


def main() -> None:
    if MODE == "dead":
        print("no way", file=sys.stderr, flush=True)
        sys.exit(7)
    for line in sys.stdin:
        answer(json.loads(line))
    time.sleep(0 if MODE != "stays" else 600)


if __name__ == "__main__":
    main()
