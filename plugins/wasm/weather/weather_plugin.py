"""Current weather from Open-Meteo: a place by name, its conditions now, and the days ahead.

The formats are those of https://open-meteo.com/en/docs and .../docs/geocoding-api; the codes are
WMO 4677 as that page lists them.
"""

from __future__ import annotations

import json
from typing import Any, Literal
from urllib.parse import urlencode

from loom_sdk import Context, Plugin, tool
from loom_sdk.errors import ActionFailed

CONDITIONS = {
    0: "clear sky", 1: "mostly clear", 2: "partly cloudy", 3: "overcast", 45: "fog",
    48: "freezing fog", 51: "light drizzle", 53: "drizzle", 55: "heavy drizzle",
    56: "light freezing drizzle", 57: "freezing drizzle", 61: "light rain", 63: "rain",
    65: "heavy rain", 66: "light freezing rain", 67: "freezing rain", 71: "light snow", 73: "snow",
    75: "heavy snow", 77: "snow grains", 80: "light showers", 81: "showers", 82: "heavy showers",
    85: "light snow showers", 86: "snow showers", 95: "thunderstorm",
    96: "thunderstorm with light hail", 99: "thunderstorm with hail",
}  # fmt: skip
_CURRENT = ("temperature_2m", "apparent_temperature", "relative_humidity_2m", "precipitation",
            "weather_code", "wind_speed_10m")  # fmt: skip
_DAILY = ("weather_code", "temperature_2m_min", "temperature_2m_max", "precipitation_sum")
_WIND = {"celsius": ("kmh", "kilometres per hour"), "fahrenheit": ("mph", "miles per hour")}

Units = Literal["celsius", "fahrenheit"]


class Weather(Plugin):
    """Needs a network grant for the two servers of its settings."""

    @tool("weather.get", effects="none")
    def get(
        self, ctx: Context, city: str = "", units: Units = "celsius", days: int = 0
    ) -> dict[str, Any]:
        """Current weather for a place.

        Args:
            city: name of the place, such as "Paris" or "Paris, Texas"; home where absent
            units: of the temperature; fahrenheit also means miles per hour
            days: days of forecast beside it, from today

        Raises:
            ActionFailed: PLACE_NOT_FOUND; PLACE_MISSING where none is named and no home is set;
                WEATHER_FAILED where the server refuses or answers what is not its format.
        """
        city = city.strip() or self.config["home"].strip()
        if not city:
            raise ActionFailed(
                "no place was named: name one, or set `home` of the plugin weather",
                code="PLACE_MISSING",
            )
        place = self._place(ctx, city)
        forecast = self._forecast(ctx, place, units, days)
        try:
            return _answer(place, forecast, units)
        except (KeyError, TypeError, IndexError) as error:
            raise _unreadable(error) from error

    def _place(self, ctx: Context, city: str) -> dict[str, Any]:
        """The best match; what follows a comma chooses among places of one name."""
        name, _, region = (part.strip() for part in city.partition(","))
        query = {"name": name, "count": 10 if region else 1, "language": "en", "format": "json"}
        found = self._get(ctx, f"{self.config['geocoding_url']}/v1/search", query).get("results")
        places = [p for p in found or [] if not region or region.lower() in _regions(p)]
        if not places:
            raise ActionFailed(
                f"no place called {city!r} is known: try the name of a larger town nearby",
                code="PLACE_NOT_FOUND",
            )
        return dict(places[0])

    def _forecast(
        self, ctx: Context, place: dict[str, Any], units: str, days: int
    ) -> dict[str, Any]:
        try:
            query = {"latitude": place["latitude"], "longitude": place["longitude"]}
        except KeyError as error:
            raise _unreadable(error) from error
        query |= {"current": ",".join(_CURRENT), "timezone": "auto"}
        query |= {"temperature_unit": units, "wind_speed_unit": _WIND[units][0]}
        if days > 0:
            query |= {"daily": ",".join(_DAILY), "forecast_days": days}
        return self._get(ctx, f"{self.config['forecast_url']}/v1/forecast", query)

    def _get(self, ctx: Context, url: str, query: dict[str, Any]) -> dict[str, Any]:
        timeout = int(self.config["timeout_ms"])
        response = ctx.http.request("GET", f"{url}?{urlencode(query)}", timeout_ms=timeout)
        try:
            body = json.loads(response.body)
        except ValueError as error:
            raise _failed(f"{url} answered {response.status} and no JSON") from error
        if not isinstance(body, dict) or response.status != 200 or body.get("error"):
            reason = body.get("reason", "") if isinstance(body, dict) else ""
            raise _failed(f"{url} answered {response.status}: {reason or 'no reason given'}")
        return body


def _regions(place: dict[str, Any]) -> list[str]:
    keys = ("country", "country_code", "admin1", "admin2")
    return [str(place.get(key, "")).lower() for key in keys]


def _answer(place: dict[str, Any], forecast: dict[str, Any], units: Units) -> dict[str, Any]:
    now = forecast["current"]
    condition = CONDITIONS.get(now["weather_code"], "unknown conditions")
    name, country = place["name"], place.get("country", "")
    return {
        "place": f"{name}, {country}" if country else name,
        "condition": condition,
        "temperature": now["temperature_2m"],
        "feels_like": now["apparent_temperature"],
        "humidity_percent": now["relative_humidity_2m"],
        "precipitation_mm": now["precipitation"],
        "wind_speed": now["wind_speed_10m"],
        "wind_unit": _WIND[units][0],
        "units": units,
        "time": now["time"],
        "days": _days(forecast.get("daily")),
        "speech": f"In {name} it is {round(now['temperature_2m'])} degrees {units} with "
        f"{condition}, and wind of {round(now['wind_speed_10m'])} {_WIND[units][1]}.",
    }


def _days(daily: dict[str, Any] | None) -> list[dict[str, Any]]:
    if daily is None:
        return []
    return [
        {
            "date": daily["time"][index],
            "condition": CONDITIONS.get(daily["weather_code"][index], "unknown conditions"),
            "low": daily["temperature_2m_min"][index],
            "high": daily["temperature_2m_max"][index],
            "precipitation_mm": daily["precipitation_sum"][index],
        }
        for index in range(len(daily["time"]))
    ]


def _failed(message: str) -> ActionFailed:
    return ActionFailed(message, code="WEATHER_FAILED")


def _unreadable(error: Exception) -> ActionFailed:
    return _failed(f"the weather server's answer lacks what was asked for: {error!r}")
