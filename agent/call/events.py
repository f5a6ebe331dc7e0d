"""Call events: what happens in a conversation, in the call's own words.

The agent's adapter (today the Realtime API over WebRTC) turns its wire format
into these facts. Nothing here says how the far end works: a *turn* is a stretch
of speech by one party, whatever the provider calls it, and `item_id` is an
opaque name for it that stays the same through the call.
"""

from dataclasses import dataclass
from typing import Literal

Speaker = Literal["caller", "agent"]
ResponseStatus = Literal["completed", "cancelled", "incomplete", "failed"]
UsagePurpose = Literal["response", "transcription"]


@dataclass(frozen=True, slots=True)
class TurnBegan:
    """A turn took its place in the conversation, after `previous_item_id`.

    `previous_item_id` None means: at the end as far as we know. Emitted once a
    turn, before any of its text; `speaker` None marks an item that nobody
    speaks (a tool call), which only holds its place in the chain.
    """

    item_id: str
    previous_item_id: str | None
    speaker: Speaker | None


@dataclass(frozen=True, slots=True)
class CallerSpeechStarted:
    """The far end hears the caller speak.

    Unless the call guards interruptions, whatever the agent says is over.
    """

    item_id: str


@dataclass(frozen=True, slots=True)
class CallerSpeechStopped:
    """The far end found the end of the caller's turn."""

    item_id: str


@dataclass(frozen=True, slots=True)
class CallerTextDelta:
    """More of what the caller is saying, as understood so far; not every far end tells."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class CallerText:
    """The final transcript of a caller's turn; empty if nothing was understood."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class CallerTextFailed:
    """The caller's turn could not be transcribed."""

    item_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AgentTextDelta:
    """More of what the agent is saying."""

    item_id: str
    response_id: str
    text: str


@dataclass(frozen=True, slots=True)
class AgentText:
    """All of what the agent meant to say in this turn."""

    item_id: str
    response_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The model began to produce a response."""

    response_id: str


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """The model stopped producing; its audio may go on playing for seconds."""

    response_id: str
    status: ResponseStatus
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the far end bills for: tokens by kind, or seconds of audio.

    Attributes:
        text_cached, audio_cached, image_cached: Part of what went in, at a lower price.
        other_in, other_out: Tokens whose kind was not told.
        audio_s: Audio that was transcribed; some models bill it by the minute.
        is_vague: It was not told what the cached tokens were; more may have been cached.
    """

    text_in: int = 0
    text_cached: int = 0
    text_out: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    audio_out: int = 0
    image_in: int = 0
    image_cached: int = 0
    other_in: int = 0
    other_out: int = 0
    audio_s: float = 0
    is_vague: bool = False


@dataclass(frozen=True, slots=True)
class UsageReported:
    """A response, or the transcription of a caller's turn, was paid for.

    Attributes:
        purpose: Which of the two.
        source_id: The response or the item; once each.
        model: Whose price counts, as it was configured.
        usage: None when the far end worked and did not say how much.
    """

    purpose: UsagePurpose
    source_id: str
    model: str
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class AgentSpeaking:
    """Audio of this response begins to arrive."""

    response_id: str


@dataclass(frozen=True, slots=True)
class AgentSpoke:
    """All audio of this response has been sent to us."""

    response_id: str


@dataclass(frozen=True, slots=True)
class AgentInterrupted:
    """The far end threw away what it had not yet sent of this response."""

    response_id: str


@dataclass(frozen=True, slots=True)
class TurnTruncated:
    """The far end remembers only the first `audio_end_ms` of the agent's turn."""

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ToolCallRequested:
    """The model asks for a tool; `arguments` is JSON text as the model wrote it."""

    tool_call_id: str
    item_id: str
    response_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AgentError:
    """The far end refused something; the session normally lives on."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AgentLost:
    """The session is over, and another takes its place; what was being said ends here."""

    reason: str


@dataclass(frozen=True, slots=True)
class AgentGone:
    """The session is over: no audio and no events will follow."""

    reason: str


CallEvent = (
    TurnBegan
    | CallerSpeechStarted
    | CallerSpeechStopped
    | CallerTextDelta
    | CallerText
    | CallerTextFailed
    | AgentTextDelta
    | AgentText
    | ResponseStarted
    | ResponseEnded
    | UsageReported
    | AgentSpeaking
    | AgentSpoke
    | AgentInterrupted
    | TurnTruncated
    | ToolCallRequested
    | AgentError
    | AgentLost
    | AgentGone
)
