"""The component in a real host, against a home of one lamp."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HERE = Path(__file__).parent
TOKEN = "a-long-lived-token"
LAMP = {"entity_id": "light.desk", "state": "off", "attributes": {"friendly_name": "Desk Lamp"}}


class Home(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer([LAMP])

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, sent) == (
            "/api/services/homeassistant/turn_on",
            {"entity_id": "light.desk"},
        )
        LAMP["state"] = "on"
        self.answer([LAMP])

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200 if self.headers["Authorization"] == f"Bearer {TOKEN}" else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_lamp_is_switched_on_by_its_name(loom_host, monkeypatch):
    monkeypatch.setenv("HOME_TOKEN", TOKEN)

    async def run(url):
        allow = {
            "provide": ["home.*"],
            "network": [f"GET,POST {url}"],
            "secrets": ["home_assistant_token"],
        }
        settings = {"secrets": {"home_assistant_token": {"env": "HOME_TOKEN"}}}
        config = {"base_url": url}
        async with loom_host(
            HERE, build=True, allow=allow, config=config, settings=settings
        ) as host:
            answer = await host.invoke("home.turn_on", {"name": "the desk lamp"})
            assert answer.output == {"entity_id": "light.desk", "speech": "Desk Lamp is on."}
            answer = await host.invoke("home.state", {"name": "desk lamp"})
            assert answer.output["state"] == "on"

    with HTTPServer(("127.0.0.1", 0), Home) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            asyncio.run(run(f"http://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()
            thread.join()
