"""`send_dtmf` and `collect_digits`: keys pressed for the caller's side, and by the caller."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.call.ports import DigitsWanted, LineRefused, ToolContext, ToolResult, ToolSchema
from agent.tools.tool import answer, failure


class SendDtmf:
    """Presses keys, as for a menu at the other end."""

    timeout_s = 10.0
    schema = ToolSchema(
        name="send_dtmf",
        description="Press telephone keys towards the other side, for example in its voice menu.",
        parameters={
            "type": "object",
            "properties": {
                "digits": {
                    "type": "string",
                    "pattern": "^[0-9*#A-D]{1,32}$",
                    "description": "The keys in order: 0-9, *, #, A-D",
                }
            },
            "required": ["digits"],
            "additionalProperties": False,
        },
    )

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Press them."""
        try:
            context.line.send_digits(arguments["digits"])
        except LineRefused as error:
            return failure(str(error), "Keys cannot be sent on this line.")
        return replace(answer({"status": "sent"}), is_repeatable=True)


class CollectDigits:
    """Waits for keys of the caller, which then interrupt nobody."""

    timeout_s = 120.0
    schema = ToolSchema(
        name="collect_digits",
        description=(
            "Wait until the caller has typed digits on the telephone's keys, for example an "
            "account number. First ask the caller to type them, in the same turn. Ends when "
            "enough keys came, when the terminator was pressed, or when the caller stops."
        ),
        parameters={
            "type": "object",
            "properties": {
                "count": {"type": "integer", "minimum": 1, "maximum": 32},
                "terminator": {
                    "type": "string",
                    "pattern": "^[*#]?$",
                    "description": "The key that ends the entry, normally #",
                },
                "timeout_s": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 30,
                    "description": "How long to wait for each key",
                },
            },
            "required": ["count"],
            "additionalProperties": False,
        },
    )

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Wait for them."""
        keyed = await context.line.collect_digits(
            DigitsWanted(
                count=arguments["count"],
                terminator=arguments.get("terminator", "#"),
                timeout_s=arguments.get("timeout_s", 10),
            )
        )
        is_enough = keyed.reason != "timeout" and keyed.digits != ""
        outcome = "complete" if is_enough else "the caller typed too little"
        return replace(answer({"digits": keyed.digits, "status": outcome}), is_repeatable=True)
