"""What the parts of one session share: its object, its items and its way to the client.

`Session` takes what the client sends, `Turns` what the caller says, `Answers`
what the agent says; each is told of the others only what it needs, and all of
them stand on this.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from agent.embedded.conversation import Conversation
from agent.embedded.engines import Engines
from agent.embedded.mind import Mind
from agent.embedded.protocol import JsonObject
from agent.embedded.recordings import Recordings
from agent.embedded.session_object import is_transcription

_Result = TypeVar("_Result")


@dataclass(slots=True)
class State:
    """One session.

    Attributes:
        config: The whole session object, as the client was told it last.
        engines: Shared by all sessions, or a stage before them.
        mind: What answers, unless a language model does.
        emit: Sends one server event. Never raises.
        local_time: For "are you open today".
        conversation: The items.
        tasks: All work of the session; None before it runs and after it is over.
        recordings: What users said, while there is room.
        transcribing: Turns whose words are not known yet.
        heard_ms: Caller's audio in all turns, for the usage.
    """

    config: JsonObject
    engines: Engines
    mind: Mind
    emit: Callable[[JsonObject], None]
    local_time: Callable[[], datetime]
    conversation: Conversation = field(default_factory=Conversation)
    recordings: Recordings = field(default_factory=Recordings)
    tasks: asyncio.TaskGroup | None = None
    transcribing: set[asyncio.Task[None]] = field(default_factory=set)
    heard_ms: int = 0

    def start(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Begin work that ends with the session at the latest. Only while it runs."""
        assert self.tasks is not None
        return self.tasks.create_task(work)

    def takes_turns(self, flag: str) -> bool:
        """Whether `create_response` or `interrupt_response` is on, and there are responses."""
        detection = self.config["audio"]["input"]["turn_detection"]
        return detection is not None and not self.is_transcription and bool(detection[flag])

    @property
    def is_transcription(self) -> bool:
        """Whether the session only listens."""
        return is_transcription(self.config)
