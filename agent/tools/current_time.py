"""`current_time`: what the clock says where the agent is, or elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.call.clean import clean
from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.tools.tool import answer, failure


class CurrentTime:
    """Tells date and time."""

    timeout_s = 5.0
    schema = ToolSchema(
        name="current_time",
        description="Get the current date and time, here or in another time zone.",
        parameters={
            "type": "object",
            "properties": {
                "timezone": {
                    "type": "string",
                    "maxLength": 64,
                    "description": "IANA name such as Europe/Lisbon; leave it out for here",
                }
            },
            "additionalProperties": False,
        },
    )

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Read this clock."""
        self._now = now

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Tell it."""
        name = arguments.get("timezone") or context.timezone
        try:
            there = self._now().astimezone(ZoneInfo(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return failure(
                f"there is no time zone {clean(name, 64)!r}",
                "There is no such time zone. Use a name such as Europe/Lisbon.",
            )
        told = {
            "time": there.strftime("%H:%M"),
            "date": there.strftime("%A, %d %B %Y"),
            "timezone": name,
        }
        return replace(answer(told), is_repeatable=True)
