"""`hang_up`: the agent ends the call once its goodbye has been heard."""

from collections.abc import Mapping
from typing import Any

from agent.call.ports import ToolContext, ToolResult, ToolSchema


class HangUp:
    """Does nothing itself: the call waits for the goodbye, then closes the line."""

    timeout_s = 5.0
    schema = ToolSchema(
        name="hang_up",
        description=(
            "End the phone call. Call this when the caller says goodbye or wants nothing more. "
            "Say a short goodbye in the same turn; it is heard in full before the line closes."
        ),
        parameters={"type": "object", "properties": {}, "additionalProperties": False},
    )

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Ask the call to end after the goodbye."""
        del arguments, context
        return ToolResult(
            output='{"status":"the line closes after your goodbye"}',
            ends_call=True,
            is_repeatable=True,
        )
