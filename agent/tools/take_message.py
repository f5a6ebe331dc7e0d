"""`take_message`: what a caller wants somebody to know, kept with the call."""

from collections.abc import Mapping
from typing import Any

from agent.call.clean import clean
from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.tools.tool import answer, failure

_LONGEST_CHARS = 2_000


class TakeMessage:
    """Puts the message into the call's log, where people read it."""

    timeout_s = 5.0
    schema = ToolSchema(
        name="take_message",
        description=(
            "Keep a message for somebody who is not on the line. Repeat it to the caller "
            "before, and ask for a name and a number to call back."
        ),
        parameters={
            "type": "object",
            "properties": {
                "message": {"type": "string", "minLength": 1, "maxLength": _LONGEST_CHARS},
                "to": {"type": "string", "maxLength": 100, "description": "For whom it is"},
                "name": {"type": "string", "maxLength": 100, "description": "The caller's name"},
                "phone": {"type": "string", "maxLength": 40, "description": "Number to call back"},
            },
            "required": ["message"],
            "additionalProperties": False,
        },
    )

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Keep it."""
        said = {key: clean(value, _LONGEST_CHARS) for key, value in arguments.items()}
        if not said["message"]:
            return failure("the message is empty", "Ask the caller what the message is.")
        context.line.note("message_taken", **said)
        return answer({"status": "the message is kept"})
