"""First-party plugins of the wasm tier in a real host, and a loopback server that they ask."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loom_host import Host, load_settings
from loom_host.runtimes.wasm.cache import default_folder
from loom_host.storage import Store

from .hosting import host_tables


@asynccontextmanager
async def wasm_host(
    folder: Path, name: str, store: Store | None = None, **table: Any
) -> AsyncIterator[Host]:
    """A host with one first-party plugin; what is built is kept for the next test."""
    tables = host_tables(folder)
    tables["host"] |= {"plugin_paths": [], "cache_dir": str(default_folder().parent)}
    tables["plugins"] = {name: table}
    async with Host(load_settings(None, tables), store=store) as host:
        assert host.plugins[name].state == "ready", host.plugins[name].reason
        yield host


Answer = Callable[[str, dict[str, str]], tuple[int, Any]]
"""(path, query) to (status, what is sent as JSON; bytes are sent as they are)."""


@dataclass
class Loopback:
    """An HTTP server on the loopback address; keeps what it was asked."""

    url: str
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def loopback(answer: Answer) -> Iterator[Loopback]:
    """Serve `answer` until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            server.asked.append((parts.path, query))
            status, body = answer(parts.path, query)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing to stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server = Loopback(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
