"""A weather server on the loopback address for demos without a network.

It speaks the formats of Open-Meteo's geocoding and forecast services and knows one town.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOWN: dict[str, Any] = {
    "name": "Berlin", "latitude": 52.52437, "longitude": 13.41053, "country_code": "DE",
    "country": "Germany", "admin1": "State of Berlin", "timezone": "Europe/Berlin",
}  # fmt: skip
NOW = {
    "time": "2026-11-23T13:45", "interval": 900, "temperature_2m": 21.4, "weather_code": 3,
    "apparent_temperature": 20.9, "relative_humidity_2m": 56, "precipitation": 0.0,
    "wind_speed_10m": 9.4,
}  # fmt: skip
"""Made up; overcast by its code of WMO 4677."""


def answer(path: str, query: dict[str, str]) -> Any:
    """What the services answer to a GET; None for what they do not know."""
    if path == "/v1/search":
        known = query.get("name", "").lower() == TOWN["name"].lower()
        return {"generationtime_ms": 0.7} | ({"results": [TOWN]} if known else {})
    if path == "/v1/forecast":
        return {"latitude": 52.52, "longitude": 13.42, "timezone": "Europe/Berlin", "current": NOW}
    return None


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        found = answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()})
        data = json.dumps(found or {"error": True, "reason": "no such page"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to stderr."""


@contextmanager
def weather_server() -> Iterator[str]:
    """The server's URL, for as long as the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
