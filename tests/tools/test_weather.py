"""The weather, over a real HTTP connection."""

import asyncio

import httpx
import orjson
import pytest

from agent.tools.settings import WeatherSettings
from agent.tools.weather import Weather
from tests.tools.http import http_service, reply
from tests.tools.line import context

LISBON = {
    "results": [{"name": "Lisbon", "country": "Portugal", "latitude": 38.7, "longitude": -9.1}]
}
SUNNY = {
    "current": {"temperature_2m": 21.4, "weather_code": 0, "wind_speed_10m": 12.2},
    "daily": {"temperature_2m_max": [24.6], "temperature_2m_min": [14.1]},
}


async def ask(url: str) -> tuple[dict[str, object], str | None]:
    """Ask for Lisbon; return the model's JSON and the log's error."""
    settings = WeatherSettings(
        geocoding_url=f"{url}/search", forecast_url=f"{url}/forecast", timeout_s=0.3
    )
    async with httpx.AsyncClient() as client:
        result = await Weather(settings, client).run({"place": "Lisbon"}, context("weather"))
    return orjson.loads(result.output), result.error


async def test_weather_is_looked_up_in_two_steps() -> None:
    """A place becomes a summary that can be spoken."""
    answers = {"/search": reply(orjson.dumps(LISBON)), "/forecast": reply(orjson.dumps(SUNNY))}
    async with http_service(answers) as service:
        output, error = await ask(service.url)
    assert error is None
    assert output == {
        "place": "Lisbon, Portugal",
        "temperature_c": 21,
        "conditions": "clear sky",
        "wind_kmh": 12,
        "high_c": 25,
        "low_c": 14,
    }


@pytest.mark.parametrize(
    ("search", "forecast", "log_says", "model_says"),
    [
        pytest.param(reply(b'{"results":[]}'), b"", "no place called", "No place", id="no place"),
        pytest.param(reply(b"{}", "500 Oops"), b"", "answered 500", "cannot be reached", id="500"),
        pytest.param(reply(b"<html>"), b"", "not JSON", "cannot be reached", id="not JSON"),
        pytest.param(reply(b"[1]"), b"", "not an object", "cannot be reached", id="a list"),
        pytest.param(reply(b" " * 200_000), b"", "more than", "cannot be reached", id="200 kB"),
        pytest.param(
            reply(b"", "302 Found", "Location: http://169.254.169.254/\r\n"),
            b"",
            "answered 302",
            "cannot be reached",
            id="a redirect is not followed",
        ),
        pytest.param(None, b"", "did not answer within 0.3 s", "cannot be reached", id="silent"),
        pytest.param(
            reply(orjson.dumps(LISBON)),
            reply(b'{"current":{}}'),
            "lacks or garbles",
            "cannot be reached",
            id="half a forecast",
        ),
    ],
)
async def test_weather_that_cannot_be_had(
    search: bytes | None, forecast: bytes, log_says: str, model_says: str
) -> None:
    """The log says precisely what went wrong, the model gets a sentence to speak."""
    async with http_service({"/search": search, "/forecast": forecast}) as service:
        output, error = await ask(service.url)
    assert log_says in (error or "")
    assert model_says in str(output["error"])


async def test_a_weather_service_that_answers_a_byte_at_a_time() -> None:
    """The caller waits for the whole answer, so the timeout covers the whole answer."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for byte in reply(orjson.dumps(LISBON)):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(2):
        host, port = server.sockets[0].getsockname()
        output, error = await ask(f"http://{host}:{port}")
    assert "error" in output
    assert error is not None
    assert error.endswith("did not answer within 0.3 s")


async def test_unreachable_weather_service() -> None:
    """Nobody listens: said plainly, and at once."""
    async with http_service() as service:
        pass
    output, error = await ask(service.url)
    assert "cannot be reached" in (error or "")
    assert "cannot be reached" in str(output["error"])
