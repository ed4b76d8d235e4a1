"""examples/home-intents in the sandbox, against a server that speaks Home Assistant's REST."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loom_host import Host
from loom_host.runtimes.wasm.build_js import js_tools
from loom_host.testing import real_host
from loom_sdk.errors import ActionFailed, InvalidArguments, PermissionDenied, PluginLoadError
from loom_sdk.models import models_dir

from .support import ROOT

pytestmark = pytest.mark.slow  # the first one compiles 12 MB

EXAMPLE = ROOT / "examples" / "home-intents"
TOKEN = "a-long-lived-token"


def thing(entity_id: str, state: str, name: str = "", **attributes: Any) -> dict[str, Any]:
    named = {"friendly_name": name} if name else {}
    return {
        "entity_id": entity_id, "state": state, "attributes": named | attributes,
        "last_changed": "2026-11-23T13:45:00.000000+00:00",
        "last_updated": "2026-11-23T13:45:00.000000+00:00", "context": {"id": "01H"},
    }  # fmt: skip


def things() -> list[dict[str, Any]]:
    return [
        thing("light.kitchen", "off", "Kitchen", brightness=None),
        thing("light.bedroom_lamp", "on", "Bedroom Lamp", brightness=128),
        thing("light.bedroom_ceiling", "off", "Bedroom Ceiling Light"),
        thing("switch.coffee", "off", "Coffee Machine"),
        thing("climate.hall", "heat", "Thermostat", temperature=20.0),
        thing("cover.blinds", "open", "Garage Blinds", current_position=100),
        thing("media_player.radio", "playing", "Radio"),
        thing("sensor.outdoor", "7.5", "Outdoor Thermometer", unit_of_measurement="°C"),
        thing("lock.door", "locked", "Front Door Lock"),
        thing("input_boolean.guests", "off"),
    ]


SERVICES = {
    ("homeassistant", "turn_on"): ("on", set[str]()),
    ("homeassistant", "turn_off"): ("off", set[str]()),
    ("light", "turn_on"): ("on", {"brightness_pct"}),
    ("climate", "set_temperature"): ("heat", {"temperature"}),
    ("cover", "open_cover"): ("open", set[str]()),
    ("cover", "close_cover"): ("closed", set[str]()),
    ("media_player", "volume_set"): ("playing", {"volume_level"}),
}
"""What each of the services that this home has does to the state, and the data that it takes."""


@dataclass
class Home:
    """Home Assistant as https://developers.home-assistant.io/docs/api/rest tells."""

    states: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {thing["entity_id"]: thing for thing in things()}
    )
    called: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""
    broken: bool = False

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/api/states":
            return 200, list(self.states.values())
        found = self.states.get(path.removeprefix("/api/states/"))
        return (200, found) if found else (404, {"message": "Entity not found."})

    def post(self, path: str, data: dict[str, Any]) -> tuple[int, Any]:
        domain, _, service = path.removeprefix("/api/services/").partition("/")
        if (domain, service) not in SERVICES:
            return 400, {"message": f"Service {domain}.{service} not found."}
        state, fields = SERVICES[domain, service]
        if data.keys() != fields | {"entity_id"}:
            return 400, {"message": f"extra or missing keys: {sorted(data)}"}
        self.called.append((f"{domain}.{service}", data))
        found = self.states[data["entity_id"]]
        changed = [found] if found["state"] != state else []
        found["state"] = state
        return 200, changed


@contextmanager
def home_assistant() -> Iterator[Home]:
    home = Home()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(lambda: home.get(self.path))

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(lambda: home.post(self.path, json.loads(sent)))

        def _answer(self, of: Any) -> None:
            if home.broken:
                status, body = 502, b"<html>Bad Gateway</html>"
            elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, body = 401, b"401: Unauthorized"
            else:
                status, answer = of()
                body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing to stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        home.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield home
        finally:
            listening.shutdown()
            thread.join()


@asynccontextmanager
async def hosted(
    token: str = TOKEN, settings: dict[str, Any] | None = None, **config: Any
) -> AsyncIterator[tuple[Host, Home]]:
    """The plugin beside a home, granted that home's address and the token."""
    try:
        js_tools(EXAMPLE)
    except PluginLoadError as error:
        pytest.skip(error.message)
    with home_assistant() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_HOME_TOKEN", token)
        allow = {"provide": ["home.*"], "secrets": ["home_assistant_token"],
                 "network": [f"GET,POST {home.url}"]}  # fmt: skip
        common = {
            "secrets": {"home_assistant_token": {"env": "TEST_HOME_TOKEN"}},
        }
        async with real_host(
            EXAMPLE, config={"base_url": home.url} | config, allow=allow,
            settings=common | (settings or {}), build=True,
        ) as host:  # fmt: skip
            yield host, home


async def output(host: Host, capability: str, **arguments: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (await host.invoke(capability, arguments)).output
    return answer


async def failure(host: Host, capability: str, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ActionFailed) as caught:
        await host.invoke(capability, arguments)
    return caught.value.code, caught.value.message


async def test_things_are_switched_set_and_asked_by_their_names() -> None:
    async with hosted() as (host, home):
        assert await output(host, "home.turn_on", name="the kitchen light") == {
            "entity_id": "light.kitchen", "speech": "Kitchen is on."
        }  # fmt: skip
        assert home.states["light.kitchen"]["state"] == "on"
        again = await output(host, "home.turn_on", name="Kitchen")  # on already: no difference
        assert again["speech"] == "Kitchen is on."
        await output(host, "home.turn_off", name="bedroom lamp")
        await output(host, "home.turn_on", name="switch.coffee")
        await output(host, "home.turn_off", name="garage blind")
        await output(host, "home.set", name="kitchen", value=40)
        await output(host, "home.set", name="thermostat", value=21.5)
        await output(host, "home.set", name="radio", value=30)
        assert await output(host, "home.state", name="outdoor thermometer") == {
            "entity_id": "sensor.outdoor", "state": "7.5", "unit": "°C",
            "speech": "Outdoor Thermometer is 7.5 °C.",
        }  # fmt: skip
        assert (await output(host, "home.state", name="blinds"))["state"] == "closed"
    assert home.called == [
        ("homeassistant.turn_on", {"entity_id": "light.kitchen"}),
        ("homeassistant.turn_on", {"entity_id": "light.kitchen"}),
        ("homeassistant.turn_off", {"entity_id": "light.bedroom_lamp"}),
        ("homeassistant.turn_on", {"entity_id": "switch.coffee"}),
        ("cover.close_cover", {"entity_id": "cover.blinds"}),
        ("light.turn_on", {"entity_id": "light.kitchen", "brightness_pct": 40}),
        ("climate.set_temperature", {"entity_id": "climate.hall", "temperature": 21.5}),
        ("media_player.volume_set", {"entity_id": "media_player.radio", "volume_level": 0.3}),
    ]


async def test_what_is_not_meant_or_not_open_is_left_alone() -> None:
    async with hosted() as (host, home):
        code, message = await failure(host, "home.turn_on", name="bedroom light")
        assert (code, "Bedroom Ceiling Light, Bedroom Lamp" in message) == (
            "DEVICE_AMBIGUOUS",
            True,
        )
        assert (await failure(host, "home.turn_on", name="sauna"))[0] == "DEVICE_NOT_FOUND"
        assert (await failure(host, "home.turn_on", name="the"))[0] == "DEVICE_NOT_FOUND"
        for name in ("front door lock", "lock.door", "light.nothing"):
            assert (await failure(host, "home.turn_off", name=name))[0] == "DEVICE_NOT_FOUND"
        assert (await failure(host, "home.set", name="kitchen", value=400))[0] == (
            "VALUE_OUT_OF_RANGE"
        )
        assert (await failure(host, "home.set", name="coffee machine", value=4))[0] == (
            "NOT_SETTABLE"
        )
        for wrong in ({}, {"name": ""}, {"name": "kitchen", "color": "red"}):
            with pytest.raises(InvalidArguments):
                await host.invoke("home.turn_on", wrong)
        assert home.called == []
        assert home.states == {thing["entity_id"]: thing for thing in things()}


async def test_a_home_that_refuses_or_fails_is_told_without_the_token() -> None:
    async with hosted(token="stale-token") as (host, _):
        code, message = await failure(host, "home.state", name="kitchen")
        assert code == "HOME_UNAUTHORIZED"
        assert "stale-token" not in message
    async with hosted() as (host, home):
        home.broken = True
        code, message = await failure(host, "home.state", name="kitchen")
        assert (code, "502" in message) == ("HOME_ERROR", True)
        home.broken = False
        assert (await output(host, "home.state", name="kitchen"))["state"] == "off"


async def test_another_address_than_the_granted_one_is_not_reached() -> None:
    with home_assistant() as other:
        async with hosted(base_url=other.url) as (host, _):
            with pytest.raises((PermissionDenied, ActionFailed), match="may not reach"):
                await host.invoke("home.turn_on", {"name": "kitchen"})
        assert other.called == []


QUESTIONS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("Please turn on the light in the hall.", "home.turn_on", {"name": "light in the hall"}),
    ("Switch the bathroom heater off.", "home.turn_off", {"name": "bathroom heater"}),
    ("Set the studio lamp to 35 percent.", "home.set", {"name": "studio lamp", "value": 35}),
    ("Is the cellar light on?", "home.state", {"name": "cellar light"}),
    ("Turn the hall lights off.", "home.turn_off", {"name": "hall lights"}),
    ("Is the garden gate open?", "home.state", {"name": "garden gate"}),
    ("Put the stereo at 20 percent.", "home.set", {"name": "stereo", "value": 20}),
    ("What is the capital of Sweden?", None, {}),
]
"""None of them stands among the examples of the manifest."""


async def test_a_question_finds_its_tool_without_a_language_model() -> None:
    pytest.importorskip("tokenizers", reason="needs loom-host[voice]")
    if not (models_dir() / "minilm-l6-v2").is_dir():
        pytest.skip("needs `loom models pull minilm-l6-v2`")
    plugins = {
        "embed-minilm": {"allow": {"provide": ["embed.text"]}},
        "intent-minilm": {"allow": {"provide": ["intent.match"], "invoke": ["embed.text"]}},
    }
    async with hosted(settings={"plugins": plugins}) as (host, home):
        tools = (await output(host, "loom.tools"))["tools"]
        for question, tool, arguments in QUESTIONS:
            found = await output(host, "intent.match", text=question, tools=tools)
            assert (found["tool"], found["arguments"]) == (tool, arguments), found
        found = await output(host, "intent.match", text="Turn the kitchen light on.", tools=tools)
        await host.invoke(found["tool"], found["arguments"])
        assert home.states["light.kitchen"]["state"] == "on"
