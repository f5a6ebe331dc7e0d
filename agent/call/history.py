"""What was said and done so far, for a session that was not there.

The turns are the conversation's, as far as they were heard; what tools gave and what
nobody said is kept here, each at its place. Decides only: told events, outputs and the
conversation's chain.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from agent.call.events import CallEvent, Speaker, ToolCallRequested

_MOST_CHARS = 60_000
"""About an hour of talk; a tool's long output counts, too."""

_MOST_TOOL_CHARS = 8_000
_MOST_NOTES = 200


@dataclass(frozen=True, slots=True)
class PastTurn:
    """What one party said, as far as the other heard it."""

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True)
class PastTool:
    """A tool that was asked for; `output` None: it still runs, and its output will follow."""

    tool_call_id: str
    name: str
    arguments: str
    output: str | None = None


@dataclass(frozen=True, slots=True)
class PastNote:
    """A fact that the agent was told and nobody said."""

    text: str


Past = PastTurn | PastTool | PastNote


@dataclass(frozen=True, slots=True)
class Item:
    """One place in the conversation's chain; without `speaker`, nobody spoke there."""

    item_id: str
    speaker: Speaker | None = None
    text: str = ""


class History:
    """The past of one call."""

    def __init__(self) -> None:
        self._tools: dict[str, PastTool] = {}
        """By the item that asked for it."""
        self._notes: list[tuple[str, PastNote]] = []
        """Each with the item it followed."""

    def receive(self, event: CallEvent) -> None:
        """Keep what a tool was asked."""
        if isinstance(event, ToolCallRequested):
            self._tools[event.item_id] = PastTool(
                event.tool_call_id, event.name, event.arguments[:_MOST_TOOL_CHARS]
            )

    def tool_ended(self, tool_call_id: str, output: str) -> None:
        """Keep what a tool gave."""
        for item_id, tool in self._tools.items():
            if tool.tool_call_id == tool_call_id:
                self._tools[item_id] = replace(tool, output=output[:_MOST_TOOL_CHARS])

    def noted(self, text: str, after_item_id: str) -> None:
        """Keep a fact the agent was told; "" is before everything."""
        self._notes = [*self._notes, (after_item_id, PastNote(text))][-_MOST_NOTES:]

    def told(self, chain: Iterable[Item]) -> list[Past]:
        """Tell everything in order, as the conversation's chain has it.

        What was said and not heard is left out; of a very long past, only its end is told.
        """
        past: list[Past] = self._notes_after("")
        for item in chain:
            if item.speaker is not None and item.text:
                past.append(PastTurn(item.speaker, item.text))
            elif item.item_id in self._tools:
                past.append(self._tools[item.item_id])
            past += self._notes_after(item.item_id)
        room = _MOST_CHARS
        for place in range(len(past) - 1, -1, -1):
            room -= _chars(past[place])
            if room < 0:
                return past[place + 1 :]
        return past

    def _notes_after(self, item_id: str) -> list[Past]:
        return [note for after, note in self._notes if after == item_id]


Due = Literal["greet", "answer", "go_on", "ask", "nothing"]


def what_is_due(past: list[Past], *, was_cut: bool, was_deaf: bool = False) -> Due:
    """Tell what a session that takes over owes the caller.

    Args:
        past: What it was told.
        was_cut: The agent spoke, or was about to, when the last session ended.
        was_deaf: That session was of no use; who knows what the caller said to it.
    """
    last = past[-1] if past else None
    match last:
        case None:
            return "greet"
        case PastTurn("caller"):
            return "answer"
        case PastTool(output=None):
            return "nothing"  # it speaks when the output is there
        case PastTool():
            return "answer"
        case _ if was_cut:
            return "go_on"
        case _:
            return "ask" if was_deaf else "nothing"


def _chars(past: Past) -> int:
    if isinstance(past, PastTool):
        return len(past.arguments) + len(past.output or "")
    return len(past.text)
