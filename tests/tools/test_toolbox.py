"""What the model gets back from the toolbox, whatever it asks for."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.tools.settings import ToolSettings
from agent.tools.tool import answer
from agent.tools.toolbox import Toolbox, open_toolbox
from tests.tools.line import context


@asynccontextmanager
async def toolbox(**settings: Any) -> AsyncIterator[Toolbox]:
    async with (
        httpx.AsyncClient() as client,
        open_toolbox(ToolSettings(**settings), client) as opened,
    ):
        yield opened


class Slow:
    """A tool that does what its argument says."""

    timeout_s = 0.05
    schema = ToolSchema(
        "slow", "Do it.", {"type": "object", "properties": {"how": {"type": "string"}}}
    )

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        match arguments.get("how"):
            case "hang":
                await asyncio.Event().wait()
            case "raise":
                raise RuntimeError("bug")
            case "big":
                return answer({"text": "x" * 20_000})
        return answer({"ok": True})


@pytest.mark.parametrize(
    ("name", "arguments", "log_says", "model_says"),
    [
        pytest.param("fly", "{}", "there is no tool 'fly'", "no tool fly", id="unknown tool"),
        pytest.param("\x1b[2J" * 99, "{}", "no tool '[2J[2J", "no tool", id="a name of garbage"),
        pytest.param("hang_up", "{}", "there is no tool 'hang_up'", "no tool", id="not its own"),
        pytest.param("weather", "{", "not JSON", "not valid JSON", id="broken JSON"),
        pytest.param("weather", "[" * 5_000, "not JSON", "not valid", id="endless nesting"),
        pytest.param("weather", '"' + "x" * 70_000, "70001 characters", "too long", id="70 kB"),
        pytest.param("weather", "[]", "not of type 'object'", "were wrong", id="a list"),
        pytest.param("weather", "", "'place' is a required", "were wrong", id="nothing"),
        pytest.param("weather", '{"place":7}', "place: 7 is not", "were wrong", id="a number"),
        pytest.param(
            "weather", '{"place":"x","when":"now"}', "'when' was unexpected", "wrong", id="too much"
        ),
        pytest.param("weather", '{"place":"\\u0000 "}', "place is empty", "Ask", id="only a NUL"),
    ],
)
async def test_arguments_the_model_got_wrong(
    name: str, arguments: str, log_says: str, model_says: str
) -> None:
    """A mistake of the model is told to it; nothing is run."""
    async with toolbox(weather={"geocoding_url": "http://127.0.0.1:9"}) as tools:
        result = await tools.run(name, arguments, context("weather"))
    assert log_says in (result.error or "")
    assert model_says in orjson.loads(result.output)["error"]
    assert len(result.error or "") < 300


@pytest.mark.parametrize(
    ("how", "log_says"),
    [
        pytest.param("hang", "slow took longer than 0.05 s", id="it hangs"),
        pytest.param("raise", "internal error in the tool", id="it raises"),
        pytest.param("big", "has 20011 characters, allowed are 16000", id="it says too much"),
    ],
)
async def test_a_tool_that_misbehaves(how: str, log_says: str) -> None:
    """Whatever a tool does, the model can go on speaking, and the log says what happened."""
    tools = Toolbox(ToolSettings(), [Slow()])
    result = await tools.run("slow", orjson.dumps({"how": how}).decode(), context("slow"))
    assert result.error == log_says or log_says in (result.error or "")
    assert orjson.loads(result.output)["error"]
    assert (await tools.run("slow", "{}", context("slow"))).output == '{"ok":true}'


async def test_hang_up_asks_for_the_end() -> None:
    """The tool itself closes nothing; it tells the call to do so after the goodbye."""
    async with toolbox() as tools:
        result = await tools.run("hang_up", "{}", context("hang_up"))
    assert result.ends_call
    assert result.is_repeatable, "a goodbye that was interrupted is said again"
    assert result.error is None


@pytest.mark.parametrize(
    ("settings", "offered"),
    [
        pytest.param({}, ["hang_up", "weather"], id="nobody to transfer to"),
        pytest.param(
            {"transfer": {"targets": [{"name": "sales", "uri": "sip:sales@pbx"}]}},
            ["hang_up", "transfer", "weather"],
            id="somebody",
        ),
    ],
)
async def test_only_tools_that_can_run_are_offered(
    settings: dict[str, Any], offered: list[str]
) -> None:
    """The model is not told of `transfer` while there is nobody to transfer to."""
    async with toolbox(**settings) as tools:
        schemas = tools.schemas(("hang_up", "transfer", "weather"))
    assert [schema.name for schema in schemas] == offered
