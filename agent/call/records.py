"""Records: what the call log is told, while the call runs.

Each is a whole statement about one row, so that telling it twice changes
nothing: the journal inserts or updates by the key named first. Offsets
(`*_ms` without `_at`) count from the answer; before the answer they are 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from agent.call.events import Speaker, UsagePurpose

EndedBy = Literal["caller", "agent", "trunkline", "realtime", "admin"]
ToolStatus = Literal["running", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class Ending:
    """Who or what ended a call, and why in a few words."""

    by: EndedBy
    reason: str


@dataclass(frozen=True, slots=True)
class CallOffered:
    """An INVITE was taken: the call is ringing. Key: `call_id`."""

    call_id: str
    sip_call_id: str
    direction: Literal["inbound", "outbound"]
    source: Literal["sip", "web"]
    trunk: str
    did: str
    caller_number: str
    agent: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """The 200 was sent. Key: `call_id`."""

    call_id: str
    realtime_call_id: str
    answered_at: datetime
    answer_delay_ms: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The call is over, answered or not. Key: `call_id`."""

    call_id: str
    ended_at: datetime
    duration_ms: int
    ending: Ending
    quality: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One turn as it stands now. Key: `call_id`, `item_id`."""

    call_id: str
    item_id: str
    position: int
    speaker: Speaker
    text: str
    heard_text: str
    interrupted: bool
    started_ms: int
    ended_ms: int | None
    latency_ms: int | None
    endpointing_ms: int | None = None
    """The parts of `latency_ms`; they add up to it. See `agent.call.latency`."""
    model_ms: int | None = None
    network_ms: int | None = None
    buffer_ms: int | None = None
    tool_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCallRecord:
    """One tool call as it stands now. Key: `call_id`, `tool_call_id`."""

    call_id: str
    tool_call_id: str
    item_id: str
    name: str
    arguments: str
    output: str | None
    error: str | None
    status: ToolStatus
    started_ms: int
    duration_ms: int | None
    attempts: int = 1
    """How often it was tried; 0 when it was refused or answered from an earlier call."""
    silence_ms: int | None = None
    """How long the caller heard neither the agent nor a tone while it ran."""
    repeats: str | None = None
    """The `tool_call_id` of an earlier call that asked for the same; its result was given again."""


@dataclass(frozen=True, slots=True)
class ChargeRecord:
    """What one response or one transcription used and cost. Key: `call_id`, `source_id`."""

    call_id: str
    source_id: str
    purpose: UsagePurpose
    model: str
    offset_ms: int
    usage: Mapping[str, object]
    cost_usd: Decimal | None
    remark: str
    """Why the cost is not known, or only an upper bound; mostly empty."""


@dataclass(frozen=True, slots=True)
class CallCost:
    """What the call has used and cost so far. Key: `call_id`."""

    call_id: str
    cost_usd: Decimal | None
    usage: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CallEventRecord:
    """Something worth an admin's attention. Never updated, only added."""

    call_id: str
    at: datetime
    offset_ms: int
    kind: str
    detail: Mapping[str, object]


Record = (
    CallOffered
    | CallAnswered
    | CallEnded
    | TurnRecord
    | ToolCallRecord
    | ChargeRecord
    | CallCost
    | CallEventRecord
)
