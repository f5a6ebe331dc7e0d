"""Records as a call would tell them, with what a test does not care about filled in."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from agent.call.records import (
    CallAnswered,
    CallCost,
    CallEnded,
    CallEventRecord,
    CallOffered,
    ChargeRecord,
    Ending,
    ToolCallRecord,
    TurnRecord,
)

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def offered(call_id: str = "call-1", **changes: Any) -> CallOffered:
    values: dict[str, Any] = {
        "call_id": call_id,
        "sip_call_id": f"{call_id}@192.0.2.1",
        "direction": "inbound",
        "source": "sip",
        "trunk": "carrier",
        "did": "+15550100",
        "caller_number": "+15550199",
        "agent": "receptionist",
        "started_at": NOON,
    }
    return CallOffered(**(values | changes))


def answered(call_id: str = "call-1", **changes: Any) -> CallAnswered:
    values: dict[str, Any] = {
        "call_id": call_id,
        "realtime_call_id": "rtc_1",
        "answered_at": NOON + timedelta(milliseconds=700),
        "answer_delay_ms": 700,
    }
    return CallAnswered(**(values | changes))


def ended(call_id: str = "call-1", **changes: Any) -> CallEnded:
    values: dict[str, Any] = {
        "call_id": call_id,
        "ended_at": NOON + timedelta(seconds=10, milliseconds=700),
        "duration_ms": 10_000,
        "ending": Ending("caller", "hung up"),
    }
    return CallEnded(**(values | changes))


def turn(item_id: str = "item-1", call_id: str = "call-1", **changes: Any) -> TurnRecord:
    values: dict[str, Any] = {
        "call_id": call_id,
        "item_id": item_id,
        "position": 0,
        "speaker": "agent",
        "text": "Hello, this is the bakery.",
        "heard_text": "Hello, this is the bakery.",
        "interrupted": False,
        "started_ms": 100,
        "ended_ms": 1900,
        "latency_ms": None,
    }
    return TurnRecord(**(values | changes))


def tool(tool_call_id: str = "tool-1", call_id: str = "call-1", **changes: Any) -> ToolCallRecord:
    values: dict[str, Any] = {
        "call_id": call_id,
        "tool_call_id": tool_call_id,
        "item_id": "item-2",
        "name": "weather",
        "arguments": '{"place":"Ghent"}',
        "output": "12 degrees",
        "error": None,
        "status": "completed",
        "started_ms": 3000,
        "duration_ms": 150,
    }
    return ToolCallRecord(**(values | changes))


def charge(source_id: str = "resp-1", call_id: str = "call-1", **changes: Any) -> ChargeRecord:
    values: dict[str, Any] = {
        "call_id": call_id,
        "source_id": source_id,
        "purpose": "response",
        "model": "gpt-realtime-2.1",
        "offset_ms": 1500,
        "usage": {"text_in": 100, "audio_out": 50},
        "cost_usd": Decimal("0.0036"),
        "remark": "",
    }
    return ChargeRecord(**(values | changes))


def cost(usd: str | None, call_id: str = "call-1", **usage: float) -> CallCost:
    return CallCost(call_id, None if usd is None else Decimal(usd), usage)


def event(kind: str = "agent error", call_id: str = "call-1", **changes: Any) -> CallEventRecord:
    values: dict[str, Any] = {
        "call_id": call_id,
        "at": NOON + timedelta(seconds=2),
        "offset_ms": 1300,
        "kind": kind,
        "detail": {},
    }
    return CallEventRecord(**(values | changes))
