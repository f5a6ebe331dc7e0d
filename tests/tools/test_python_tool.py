"""Tools that are Python functions."""

import asyncio
from pathlib import Path

import orjson
import pytest

from agent.call.ports import ToolResult
from agent.tools.python_tool import PythonTool
from agent.tools.settings import PythonToolSettings
from agent.tools.tool import ToolProblem
from tests.tools.line import context
from tests.tools.test_toolbox import toolbox

HERE = "tests.tools.functions"


async def run(name: str, arguments: str = "{}") -> ToolResult:
    """As the model would: through the toolbox."""
    timeout_s = 0.2 if name in ("sleep", "hang") else 5
    settings = [{"function": f"{HERE}:{name}", "timeout_s": timeout_s}]
    async with toolbox(python=settings) as tools:
        return await tools.run(name, arguments, context(name))


def test_schema_and_words() -> None:
    """Hints become the schema, the docstring the words; the call itself is not shown."""
    schema = PythonTool(PythonToolSettings(function=f"{HERE}:order", name="cake")).schema
    assert schema.name == "cake"
    assert schema.description == "Order a cake. Takes the order for the caller."
    properties = schema.parameters["properties"]
    assert list(properties) == ["cake", "day", "note"]
    assert properties["day"] == {
        "description": "When it is fetched, as a date.",
        "format": "date",
        "type": "string",
    }
    assert schema.parameters["required"] == ["cake", "day"]
    assert schema.parameters["$defs"]["Cake"]["properties"]["count"]["maximum"] == 9
    assert '"title"' not in orjson.dumps(schema.parameters).decode()


async def test_a_function_gets_what_its_hints_say() -> None:
    """Models, enumerations and dates arrive as such, with the call; the result becomes JSON."""
    result = await run("order", '{"cake": {"size": "large"}, "day": "2026-11-21"}')
    assert orjson.loads(result.output) == {
        "for": "+15550111",
        "cake": {"size": "large", "count": 1},
        "day": "2026-11-21",
        "note": None,
    }


@pytest.mark.parametrize(
    ("name", "arguments", "log_says", "model_says"),
    [
        pytest.param("order", '{"cake": {"size": "huge"}, "day": "x"}', "huge", "wrong", id="enum"),
        pytest.param(
            "order", '{"cake": {"size": "small"}, "day": "soon"}', "day", "wrong", id="no date"
        ),
        pytest.param(
            "order",
            '{"cake": {"size": "small", "count": 10}, "day": "2026-11-21"}',
            "10",
            "wrong",
            id="too many",
        ),
        pytest.param("refuse", "{}", "The shop is closed.", "The shop is closed.", id="says no"),
        pytest.param("crash", "{}", "internal error", "did not work", id="raises"),
        pytest.param("sleep", "{}", "longer than 0.2 s", "too long", id="blocks its thread"),
        pytest.param("hang", "{}", "longer than 0.2 s", "too long", id="waits for ever"),
        pytest.param("strange", "{}", "no JSON", "did not work", id="returns an object"),
    ],
)
async def test_a_function_that_fails(
    name: str, arguments: str, log_says: str, model_says: str
) -> None:
    """Whatever it does, the log says it and the model goes on; details stay out of its words."""
    async with asyncio.timeout(5):
        result = await run(name, arguments)
    assert log_says in (result.error or "")
    assert model_says in result.output
    assert "secret detail" not in result.output


async def test_plain_functions_do_not_hold_up_calls() -> None:
    """A plain function runs in a thread of its own, not where the frames pass."""
    result = await run("thread_name", '{"title": "here"}')
    assert result.output == "here in tool thread_name"


@pytest.mark.parametrize(
    ("function", "says"),
    [
        pytest.param("no.such.module:f", "cannot be imported", id="no module"),
        pytest.param(f"{HERE}:fly", "has no fly", id="no function"),
        pytest.param(f"{HERE}:NOT_A_FUNCTION", "no function", id="a number"),
        pytest.param(f"{HERE}:silent", "needs a docstring", id="no words"),
        pytest.param(f"{HERE}:unhinted", "number has no type hint", id="no hint"),
        pytest.param(f"{HERE}:variadic", "cannot be described", id="any number"),
        pytest.param(f"{HERE}:unspeakable", "make no schema", id="no schema"),
        pytest.param("broken_tool_module:f", "RuntimeError('at import')", id="raises at import"),
    ],
)
def test_what_cannot_be_a_tool(
    function: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is named before a caller waits for it."""
    (tmp_path / "broken_tool_module.py").write_text("raise RuntimeError('at import')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ToolProblem) as refused:
        PythonTool(PythonToolSettings(function=function))
    assert says in str(refused.value)
