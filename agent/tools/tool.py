"""What a tool is: a schema for the model, and a coroutine for us."""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from agent.call.ports import ToolContext, ToolResult, ToolSchema


class Tool(Protocol):
    """One thing the model may ask for."""

    @property
    def schema(self) -> ToolSchema:
        """How the model is told of it."""
        ...

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Do it. Errors the model should speak about are results, not exceptions."""
        ...


def failure(error: str, advice: str) -> ToolResult:
    """Tell the log what went wrong and the model what it may say about it.

    Args:
        error: For the admin: precise, may name hosts and codes.
        advice: For the model: one plain sentence, no technical detail.
    """
    return ToolResult(output=orjson.dumps({"error": advice}).decode(), error=error)
