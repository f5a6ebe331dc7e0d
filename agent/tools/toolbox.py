"""The tools of this process: chosen by name, told to the model, run for a call."""

from collections.abc import Iterable, Mapping
from typing import Any

import httpx
import orjson
import structlog

from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.tools.hang_up import HangUp
from agent.tools.settings import ToolSettings
from agent.tools.tool import Tool, failure
from agent.tools.weather import Weather

TOOL_NAMES = ("hang_up", "weather", "transfer")
"""Names an agent may list. `transfer` waits for the transfer targets of the
trunks: it is accepted, but not offered to the model."""

_MAX_OUTPUT_CHARS = 16_000


class Toolbox:
    """Runs tools by name for any number of calls at once."""

    def __init__(self, settings: ToolSettings, client: httpx.AsyncClient) -> None:
        """Build every tool once; `client` is shared and closed by its owner."""
        self.settings = settings
        tools: tuple[Tool, ...] = (HangUp(), Weather(settings.weather, client))
        self._tools: Mapping[str, Tool] = {tool.schema.name: tool for tool in tools}
        self._log = structlog.get_logger()

    def schemas(self, names: Iterable[str]) -> tuple[ToolSchema, ...]:
        """What the model is told of these tools; those that cannot run are left out."""
        return tuple(self._tools[name].schema for name in names if name in self._tools)

    async def run(self, name: str, arguments: str, context: ToolContext) -> ToolResult:
        """Run one tool.

        Args:
            name: As the model wrote it.
            arguments: JSON text as the model wrote it; checked here.
            context: The call it is run for.

        Returns:
            The tool's result. A wrong name, broken arguments or a bug in the tool
            are results with `error` set and a sentence the model can work with.
        """
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(sorted(self._tools))
            return failure(
                f"there is no tool {name!r}; there are: {known}", f"There is no tool {name}."
            )
        try:
            values = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError as error:
            return failure(
                f"the arguments are not JSON: {error}", "The arguments were not valid JSON."
            )
        problem = _check(values, tool.schema.parameters)
        if problem:
            return failure(problem, f"The arguments were wrong: {problem}.")
        try:
            result = await tool.run(values, context)
        except Exception:  # noqa: BLE001 - a broken tool is an answer to the model, not an end
            self._log.exception("! tool failed", tool=name)
            return failure("internal error in the tool", "That did not work.")
        if len(result.output) > _MAX_OUTPUT_CHARS:
            return failure(
                f"the output has {len(result.output)} characters, allowed are {_MAX_OUTPUT_CHARS}",
                "The answer was too long to use.",
            )
        return result


def _check(values: Any, schema: Mapping[str, Any]) -> str:
    """Compare arguments with the flat schemas our tools use; '' if they fit."""
    if not isinstance(values, dict):
        return "not an object"
    properties = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in values:
            return f"{key} is missing"
    for key, value in values.items():
        if key not in properties:
            return f"{key} is unknown"
        if properties[key]["type"] == "string" and not isinstance(value, str):
            return f"{key} must be text"
    return ""
