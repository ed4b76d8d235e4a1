"""weather, in the sandbox, against a loopback server that speaks Open-Meteo's format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host
from loom_sdk.errors import ActionFailed, InvalidArguments, PermissionDenied

from .wasm_plugins import Loopback, loopback, wasm_host

BERLIN = {
    "id": 2950159, "name": "Berlin", "latitude": 52.52437, "longitude": 13.41053,
    "elevation": 74.0, "country_code": "DE", "timezone": "Europe/Berlin", "population": 3426354,
    "country": "Germany", "admin1": "State of Berlin",
}  # fmt: skip
SPRINGFIELDS = [
    {"name": "Springfield", "latitude": 37.2, "longitude": -93.3, "country": "United States",
     "country_code": "US", "admin1": "Missouri"},
    {"name": "Springfield", "latitude": 39.8, "longitude": -89.6, "country": "United States",
     "country_code": "US", "admin1": "Illinois"},
]  # fmt: skip


def forecast(query: dict[str, str]) -> dict[str, Any]:
    """As https://api.open-meteo.com/v1/forecast answers: only what was asked for."""
    warm = query.get("temperature_unit") == "fahrenheit"
    values = {
        "temperature_2m": 70.5 if warm else 21.4, "apparent_temperature": 20.9,
        "relative_humidity_2m": 56, "precipitation": 0.0, "weather_code": 3,
        "wind_speed_10m": 5.8 if query.get("wind_speed_unit") == "mph" else 9.4,
    }  # fmt: skip
    asked = query["current"].split(",")
    body: dict[str, Any] = {
        "latitude": float(query["latitude"]), "longitude": float(query["longitude"]),
        "timezone": "Europe/Berlin", "current_units": {"temperature_2m": "°C"},
        "current": {"time": "2026-11-23T13:45", "interval": 900} | {k: values[k] for k in asked},
    }  # fmt: skip
    if "daily" in query:
        days = int(query["forecast_days"])
        body["daily"] = {"time": [f"2026-11-{23 + day}" for day in range(days)]} | {
            name: [61 if name == "weather_code" else 4.5] * days
            for name in query["daily"].split(",")
        }
    return body


def open_meteo(path: str, query: dict[str, str]) -> tuple[int, Any]:
    if path == "/v1/search":
        found = {"Berlin": [BERLIN], "Springfield": SPRINGFIELDS}.get(query["name"])
        limited = found and found[: int(query["count"])]
        return 200, {"generationtime_ms": 0.7} | ({"results": limited} if found else {})
    assert path == "/v1/forecast"
    return 200, forecast(query)


@asynccontextmanager
async def weather(
    folder: Path, answer: Any = open_meteo, **config: Any
) -> AsyncIterator[tuple[Host, Loopback]]:
    with loopback(answer) as server:
        urls = {"geocoding_url": server.url, "forecast_url": server.url}
        allow = {"provide": ["weather.get"], "network": [server.url]}
        async with wasm_host(folder, "weather", allow=allow, config=urls | config) as host:
            yield host, server


async def test_weather_now(tmp_path: Path) -> None:
    async with weather(tmp_path) as (host, server):
        output = (await host.invoke("weather.get", {"city": " Berlin "})).output
    assert output == {
        "place": "Berlin, Germany", "condition": "overcast", "temperature": 21.4,
        "feels_like": 20.9, "humidity_percent": 56, "precipitation_mm": 0.0, "wind_speed": 9.4,
        "wind_unit": "kmh", "units": "celsius", "time": "2026-11-23T13:45", "days": [],
        "speech": "In Berlin it is 21 degrees celsius with overcast, and wind of "
        "9 kilometres per hour.",
    }  # fmt: skip
    (_, place), (_, asked) = server.asked
    assert place["name"] == "Berlin"
    assert (asked["latitude"], asked["longitude"]) == ("52.52437", "13.41053")


async def test_units_reach_the_server(tmp_path: Path) -> None:
    async with weather(tmp_path) as (host, _):
        asked = {"city": "Berlin", "units": "fahrenheit"}
        output = (await host.invoke("weather.get", asked)).output
    assert (output["temperature"], output["wind_speed"]) == (70.5, 5.8)
    assert "70 degrees fahrenheit" in output["speech"]
    assert "6 miles per hour" in output["speech"]


async def test_days_ahead(tmp_path: Path) -> None:
    async with weather(tmp_path) as (host, _):
        output = (await host.invoke("weather.get", {"city": "Berlin", "days": 2})).output
    day = {"condition": "light rain", "low": 4.5, "high": 4.5, "precipitation_mm": 4.5}
    assert output["days"] == [day | {"date": "2026-11-23"}, day | {"date": "2026-11-24"}]


async def test_a_region_chooses_among_places_of_one_name(tmp_path: Path) -> None:
    async with weather(tmp_path) as (host, server):
        await host.invoke("weather.get", {"city": "Springfield, Illinois"})
        assert server.asked[-1][1]["latitude"] == "39.8"
        await host.invoke("weather.get", {"city": "Springfield"})
        assert server.asked[-1][1]["latitude"] == "37.2"
        for city in ("Springfield, Mars", "Nowhere"):
            with pytest.raises(ActionFailed, match=f"no place called '{city}'") as raised:
                await host.invoke("weather.get", {"city": city})
            assert raised.value.code == "PLACE_NOT_FOUND"


REFUSALS: dict[str, tuple[int, Any, str]] = {
    "an error in its own format": (400, {"error": True, "reason": "Bad latitude"}, "Bad latitude"),
    "no JSON": (502, b"<html>bad gateway</html>", "502 and no JSON"),
    "another JSON": (200, [1, 2], "no reason given"),
    "an answer without values": (200, {"results": [{"name": "Berlin"}]}, "latitude"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_server_that_refuses_is_told_of(tmp_path: Path, name: str) -> None:
    status, body, words = REFUSALS[name]
    async with weather(tmp_path, lambda path, query: (status, body)) as (host, _):
        with pytest.raises(ActionFailed, match=words) as raised:
            await host.invoke("weather.get", {"city": "Berlin"})
    assert raised.value.code == "WEATHER_FAILED"


async def test_a_forecast_that_lacks_what_was_asked_is_told_of(tmp_path: Path) -> None:
    def broken(path: str, query: dict[str, str]) -> tuple[int, Any]:
        return (200, {"current": {}}) if path == "/v1/forecast" else open_meteo(path, query)

    async with weather(tmp_path, broken) as (host, _):
        with pytest.raises(ActionFailed, match="weather_code") as raised:
            await host.invoke("weather.get", {"city": "Berlin"})
    assert raised.value.code == "WEATHER_FAILED"


async def test_arguments_are_checked_before_anything_is_asked(tmp_path: Path) -> None:
    async with weather(tmp_path) as (host, server):
        for wrong in ({"city": ""}, {"city": "x", "units": "kelvin"}, {"city": "x", "days": 17}):
            with pytest.raises(InvalidArguments):
                await host.invoke("weather.get", wrong)
    assert server.asked == []


async def test_a_server_that_is_not_granted_is_not_reached(tmp_path: Path) -> None:
    with loopback(open_meteo) as server:
        config = {"geocoding_url": server.url}
        async with wasm_host(
            tmp_path, "weather", allow={"provide": ["weather.get"]}, config=config
        ) as host:
            with pytest.raises(PermissionDenied, match=server.url):
                await host.invoke("weather.get", {"city": "Berlin"})
    assert server.asked == []
