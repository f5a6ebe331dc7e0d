"""What the model gets back from a tool, over a real HTTP connection where there is one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest

from agent.tools.settings import ToolSettings, WeatherSettings
from agent.tools.toolbox import Toolbox
from tests.tools.line import context

LISBON = {
    "results": [{"name": "Lisbon", "country": "Portugal", "latitude": 38.7, "longitude": -9.1}]
}
SUNNY = {
    "current": {"temperature_2m": 21.4, "weather_code": 0, "wind_speed_10m": 12.2},
    "daily": {"temperature_2m_max": [24.6], "temperature_2m_min": [14.1]},
}


def reply(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole HTTP reply."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    ).encode() + body


@asynccontextmanager
async def http_server(answers: Mapping[str, bytes | None]) -> AsyncIterator[str]:
    """Answer each path with prepared bytes; None: accept and stay silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1].decode().split("?")[0]
            answer = answers[path]
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.close()
        await server.wait_closed()


async def ask(
    url: str, arguments: str, name: str = "weather"
) -> tuple[dict[str, object], str | None]:
    """Run one tool; return the model's JSON and the log's error."""
    settings = ToolSettings(
        weather=WeatherSettings(
            geocoding_url=f"{url}/search", forecast_url=f"{url}/forecast", timeout_s=0.3
        )
    )
    async with httpx.AsyncClient() as client:
        result = await Toolbox(settings, client).run(name, arguments, context(name))
    return orjson.loads(result.output), result.error


async def test_weather_is_looked_up_in_two_steps() -> None:
    """A place becomes a summary that can be spoken."""
    answers = {"/search": reply(orjson.dumps(LISBON)), "/forecast": reply(orjson.dumps(SUNNY))}
    async with http_server(answers) as url:
        output, error = await ask(url, '{"place":"Lisbon"}')
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
    async with http_server({"/search": search, "/forecast": forecast}) as url:
        output, error = await ask(url, '{"place":"Lisbon"}')
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
        output, error = await ask(f"http://{host}:{port}", '{"place":"Lisbon"}')
    assert "error" in output
    assert error is not None
    assert error.endswith("did not answer within 0.3 s")


async def test_unreachable_weather_service() -> None:
    """Nobody listens: said plainly, and at once."""
    async with http_server({}) as url:
        pass
    output, error = await ask(url, '{"place":"Lisbon"}')
    assert "cannot be reached" in (error or "")
    assert "cannot be reached" in str(output["error"])


@pytest.mark.parametrize(
    ("name", "arguments", "log_says"),
    [
        pytest.param("fly", "{}", "there is no tool 'fly'", id="unknown tool"),
        pytest.param("weather", "{", "not JSON", id="broken JSON"),
        pytest.param("weather", "[]", "not an object", id="a list"),
        pytest.param("weather", "", "place is missing", id="nothing"),
        pytest.param("weather", '{"place":7}', "place must be text", id="a number"),
        pytest.param("weather", '{"place":"x","when":"now"}', "when is unknown", id="too much"),
        pytest.param("weather", '{"place":"\\u0000 "}', "place is empty", id="only a NUL"),
    ],
)
async def test_arguments_the_model_got_wrong(name: str, arguments: str, log_says: str) -> None:
    """A mistake of the model is told to it; no request is made."""
    output, error = await ask("http://127.0.0.1:9", arguments, name)
    assert log_says in (error or "")
    assert output["error"]


async def test_hang_up_asks_for_the_end() -> None:
    """The tool itself closes nothing; it tells the call to do so after the goodbye."""
    async with httpx.AsyncClient() as client:
        result = await Toolbox(ToolSettings(), client).run("hang_up", "{}", context("hang_up"))
    assert result.ends_call
    assert result.error is None


async def test_a_bug_in_a_tool_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a tool raises, the model can go on speaking."""

    async def broken(*_: object) -> None:
        raise RuntimeError("bug")

    runner: Callable[..., Awaitable[None]] = broken
    monkeypatch.setattr("agent.tools.weather.Weather.run", runner)
    output, error = await ask("http://127.0.0.1:9", '{"place":"Lisbon"}')
    assert error == "internal error in the tool"
    assert output == {"error": "That did not work."}


async def test_only_tools_that_can_run_are_offered() -> None:
    """The model is not told of `transfer` while there is nobody to transfer to."""
    async with httpx.AsyncClient() as client:
        schemas = Toolbox(ToolSettings(), client).schemas(("hang_up", "transfer", "weather"))
    assert [schema.name for schema in schemas] == ["hang_up", "weather"]
