"""`weather`: the weather now and today at a place named by the caller.

Two HTTP GETs in Open-Meteo's form: a name becomes coordinates, coordinates
become a forecast. Both base URLs are configuration, so an own service or a
test's stand-in can answer. Redirects are not followed, answers are capped.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from agent.call.clean import clean
from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.tools.settings import WeatherSettings
from agent.tools.tool import failure

_MAX_BYTES = 100_000
_UNREACHABLE = "The weather service cannot be reached right now."
_CONDITIONS = {
    0: "clear sky",
    1: "mostly clear",
    2: "partly cloudy",
    3: "overcast",
    45: "fog",
    48: "freezing fog",
    51: "light drizzle",
    53: "drizzle",
    55: "heavy drizzle",
    56: "freezing drizzle",
    57: "heavy freezing drizzle",
    61: "light rain",
    63: "rain",
    65: "heavy rain",
    66: "freezing rain",
    67: "heavy freezing rain",
    71: "light snow",
    73: "snow",
    75: "heavy snow",
    77: "snow grains",
    80: "light showers",
    81: "showers",
    82: "violent showers",
    85: "light snow showers",
    86: "heavy snow showers",
    95: "a thunderstorm",
    96: "a thunderstorm with hail",
    99: "a thunderstorm with heavy hail",
}
"""WMO code table 4677 as far as forecasts use it."""


class _WeatherError(Exception):
    """The service did not give what was asked; the text is for the log."""


class Weather:
    """Asks the geocoding service, then the forecast service."""

    timeout_s = 30.0
    schema = ToolSchema(
        name="weather",
        description="Get the current weather and today's high and low for a town or city.",
        parameters={
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Town or city, for example Lisbon"}
            },
            "required": ["place"],
            "additionalProperties": False,
        },
    )

    def __init__(self, settings: WeatherSettings, client: httpx.AsyncClient) -> None:
        """Use one shared HTTP client, which the caller closes."""
        self._settings = settings
        self._client = client

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Look the place up.

        Args:
            arguments: `place`, a name.
            context: Not needed.

        Returns:
            JSON with `place, temperature_c, conditions, wind_kmh, high_c, low_c`,
            or with `error`, a sentence the model can speak.
        """
        del context
        place = clean(str(arguments["place"]), 100)
        if not place:
            return failure("the place is empty", "Ask the caller which town they mean.")
        try:
            found = await self._get(self._settings.geocoding_url, {"name": place, "count": "1"})
            if not found.get("results"):
                return failure(
                    f"no place called {place}", f"No place called {place} is known. Ask again."
                )
            where = found["results"][0]
            forecast = await self._get(
                self._settings.forecast_url,
                {
                    "latitude": str(where["latitude"]),
                    "longitude": str(where["longitude"]),
                    "current": "temperature_2m,weather_code,wind_speed_10m",
                    "daily": "temperature_2m_max,temperature_2m_min",
                    "forecast_days": "1",
                    "timezone": "auto",
                },
            )
            return ToolResult(orjson.dumps(_summary(where, forecast)).decode())
        except _WeatherError as error:
            return failure(str(error), _UNREACHABLE)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return failure(f"the answer lacks or garbles {error}", _UNREACHABLE)

    async def _get(self, url: str, params: Mapping[str, str]) -> dict[str, Any]:
        timeout_s = self._settings.timeout_s
        try:
            # httpx counts from one byte to the next; the caller waits for the last.
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream("GET", url, params=params, timeout=timeout_s) as reply,
            ):
                if reply.status_code != httpx.codes.OK:
                    raise _WeatherError(f"{url} answered {reply.status_code}")
                body = b""
                async for chunk in reply.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        raise _WeatherError(f"{url} answered more than {_MAX_BYTES} bytes")
            answer = orjson.loads(body)
        except (TimeoutError, httpx.TimeoutException):
            raise _WeatherError(f"{url} did not answer within {timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise _WeatherError(f"{url} cannot be reached: {error}") from None
        except orjson.JSONDecodeError:
            raise _WeatherError(f"{url} answered something that is not JSON") from None
        if not isinstance(answer, dict):
            raise _WeatherError(f"{url} answered JSON that is not an object")
        return answer


def _summary(where: Mapping[str, Any], forecast: Mapping[str, Any]) -> dict[str, object]:
    current, daily = forecast["current"], forecast["daily"]
    country = where.get("country")
    return {
        "place": clean(f"{where['name']}, {country}" if country else str(where["name"]), 100),
        "temperature_c": round(float(current["temperature_2m"])),
        "conditions": _CONDITIONS.get(int(current["weather_code"]), "changeable"),
        "wind_kmh": round(float(current["wind_speed_10m"])),
        "high_c": round(float(daily["temperature_2m_max"][0])),
        "low_c": round(float(daily["temperature_2m_min"][0])),
    }
