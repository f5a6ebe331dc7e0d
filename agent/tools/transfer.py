"""`transfer`: the caller is handed to somebody else by a REFER, only to whom is configured."""

from collections.abc import Mapping
from typing import Any

from agent.call.ports import LineRefused, ToolContext, ToolResult, ToolSchema
from agent.call.records import Ending
from agent.tools.settings import TransferSettings
from agent.tools.tool import failure


class Transfer:
    """Blind transfer: once somebody has answered, the call is no longer ours."""

    timeout_s = 90.0

    def __init__(self, settings: TransferSettings) -> None:
        """Offer the configured targets, of which there is at least one."""
        self._uris = {target.name: target.uri for target in settings.targets}
        people = "; ".join(
            f"{it.name}: {it.description}" if it.description else it.name for it in settings.targets
        )
        self.schema = ToolSchema(
            name="transfer",
            description=(
                "Hand the caller over to somebody else. Tell the caller so first, in the same "
                f"turn. If nobody takes the call, you go on with the caller. To whom: {people}"
            ),
            parameters={
                "type": "object",
                "properties": {"to": {"type": "string", "enum": list(self._uris)}},
                "required": ["to"],
                "additionalProperties": False,
            },
        )

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Hand over, or say that nobody took the caller."""
        name = arguments["to"]
        try:
            await context.line.transfer(self._uris[name])
        except LineRefused as error:
            return failure(
                f"{name}: {error}",
                f"The transfer to {name} did not work; the caller is still with you. "
                "Tell them, and offer to take a message.",
            )
        return ToolResult(
            '{"status":"transferred"}', ending=Ending("agent", f"transferred to {name}")
        )
