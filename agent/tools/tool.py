"""What a tool is: a schema for the model, and a coroutine for us."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import orjson
from pydantic import SecretStr

from agent.call.ports import ToolContext, ToolResult, ToolSchema

_SHORTEST_SECRET = 4
"""Shorter ones are parts of ordinary words."""


class ToolProblem(Exception):
    """A tool cannot be offered; the text says what to do about it."""


class ToolError(Exception):
    """Raised by a Python function to tell the model, in its words, why it did not work."""


class Tool(Protocol):
    """One thing the model may ask for."""

    @property
    def schema(self) -> ToolSchema:
        """How the model is told of it."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long it may take."""
        ...

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Do it. Errors the model should speak about are results, not exceptions."""
        ...


def answer(value: object) -> ToolResult:
    """Give the model a value as JSON."""
    return ToolResult(orjson.dumps(value, default=str).decode())


def failure(error: str, advice: str, attempts: int = 1) -> ToolResult:
    """Tell the log what went wrong and the model what it may say about it.

    Args:
        error: For the admin: precise, may name hosts and codes.
        advice: For the model: one plain sentence, no technical detail.
        attempts: How often it was tried.
    """
    return ToolResult(orjson.dumps({"error": advice}).decode(), error=error, attempts=attempts)


def hide(text: str, secrets: Iterable[SecretStr]) -> str:
    """Blot out secrets which a server sent back, as echoing and debugging ones do."""
    for secret in secrets:
        for part in (secret.get_secret_value(), secret.get_secret_value().rpartition(" ")[2]):
            if len(part) >= _SHORTEST_SECRET:
                text = text.replace(part, "[secret]")
    return text
