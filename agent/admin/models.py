"""What the API returns, field by field, as its users know it.

These are the names of the outside. They are filled from `agent.store.calls`,
and the terminal's `--json` prints the same.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from agent.store.calls import CallDetail, CallPage


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


Time = Annotated[
    datetime,
    PlainSerializer(_rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""RFC 3339, always UTC and always written with Z."""


Usd = Annotated[
    Decimal,
    PlainSerializer(float, return_type=float),
    WithJsonSchema({"type": "number"}, mode="serialization"),
]
"""US dollars, as a number."""


class _Outside(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class EndingModel(_Outside):
    """Who or what ended the call, and why."""

    by: Literal["caller", "agent", "trunkline", "realtime", "admin"]
    reason: str


class TurnLatencyModel(_Outside):
    """From the caller's last voiced frame to the agent's first, on the phone leg."""

    p50_ms: int
    p95_ms: int


class CallModel(_Outside):
    """A call."""

    id: str
    direction: Literal["inbound", "outbound"]
    state: Literal["ringing", "active", "ended"]
    trunk: str
    did: str = Field(description="The number dialled.")
    caller_number: str
    agent: str
    source: Literal["sip", "web"]
    started_at: Time
    answered_at: Time | None
    ended_at: Time | None
    duration_ms: int | None
    answer_delay_ms: int | None
    ending: EndingModel | None
    turn_count: int
    tool_call_count: int
    turn_latency: TurnLatencyModel | None
    cost_usd: Usd | None = Field(description="So far; null when it is not known.")
    has_recording: bool


class TurnModel(_Outside):
    """What one party said in one go; offsets count from the answer."""

    item_id: str
    position: int
    speaker: Literal["caller", "agent"]
    text: str
    heard_text: str = Field(description="What of it the caller heard before an interruption.")
    interrupted: bool
    started_ms: int
    ended_ms: int | None
    latency_ms: int | None
    endpointing_ms: int | None = Field(
        description="First part of `latency_ms`: until the far end knew that the turn was over."
    )
    model_ms: int | None = Field(description="Until it announced its answer, without tools.")
    network_ms: int | None = Field(description="Until the first packet of that sound arrived.")
    buffer_ms: int | None = Field(description="Until the caller's ear was given it.")
    tool_ms: int | None = Field(description="Tools that ran in between.")


class ToolCallModel(_Outside):
    """A tool call."""

    tool_call_id: str
    name: str
    arguments: str = Field(description="JSON, as the model wrote it.")
    output: str | None
    error: str | None
    status: Literal["running", "completed", "failed"]
    started_ms: int
    duration_ms: int | None
    attempts: int = Field(description="0: refused, or answered from an earlier call.")
    silence_ms: int | None = Field(description="How long the caller heard nothing meanwhile.")
    repeats: str | None = Field(description="The earlier call whose result was given again.")


class ChargeModel(_Outside):
    """What one response, or the transcription of one turn, used and cost."""

    source_id: str = Field(description="The response, or the turn's `item_id`.")
    purpose: Literal["response", "transcription"]
    model: str
    offset_ms: int
    usage: dict[str, Any] = Field(description="Tokens by kind, and `audio_s`.")
    cost_usd: Usd | None
    remark: str = Field(description="Why the cost is null or only an upper bound; mostly empty.")


class EventModel(_Outside):
    """Something worth an admin's attention."""

    at: Time
    offset_ms: int
    kind: str
    detail: dict[str, Any]


class CallDetailModel(CallModel):
    """A call with everything known of it."""

    sip_call_id: str
    realtime_call_id: str | None
    quality: dict[str, Any] | None
    usage: dict[str, Any] | None = Field(description="The sums of all charges, by purpose.")
    turns: list[TurnModel]
    tool_calls: list[ToolCallModel]
    charges: list[ChargeModel]
    events: list[EventModel]


class CallPageModel(_Outside):
    """A stretch of the list of calls, newest first."""

    items: list[CallModel]
    next_cursor: str | None = Field(description="Pass it as `cursor` to go on; null at the end.")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = Field(
        None, description="For 422: each parameter, the value found and what is accepted."
    )


def describe_call(detail: CallDetail) -> CallDetailModel:
    """Put a call and all its rows into the API's form."""
    return CallDetailModel.model_validate(
        {
            **CallModel.model_validate(detail.call).__dict__,
            **{name: getattr(detail, name) for name in detail.__slots__ if name != "call"},
        }
    )


def describe_page(page: CallPage) -> CallPageModel:
    """Put a stretch of the list into the API's form."""
    return CallPageModel.model_validate(page)
