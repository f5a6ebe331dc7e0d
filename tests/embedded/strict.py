"""Server events against OpenAI's own types, with nothing added and in the right order.

`check_event` knows one event, `check_orders` a whole session of them: the
orders S1 to S8 of the protocol reference.
"""

from collections import Counter
from typing import Any, get_args

from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter

Event = dict[str, Any]

_SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
# What the service adds to a session; the types know only what clients send.
_ADDED = {"session.id", "session.object", "session.expires_at"}


def _classes() -> dict[str, type[BaseModel]]:
    union = get_args(RealtimeServerEvent)[0]
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(union)}


_CLASS_OF = _classes()


def check_event(event: Event) -> None:
    """Raise unless the event is one of the typed union, to the last field."""
    _SERVER_EVENT.validate_python(event, strict=True)
    assert isinstance(event["event_id"], str)
    extra = _extra(_CLASS_OF[event["type"]].model_validate(event, strict=True), "")
    assert not extra - _ADDED, f"{event['type']}: {extra - _ADDED}"


def _extra(value: object, where: str) -> set[str]:
    if isinstance(value, BaseModel):
        found = {f"{where}{name}" for name in value.model_extra or {}}
        for name in type(value).model_fields:
            found |= _extra(getattr(value, name), f"{where}{name}.")
        return found
    if isinstance(value, list):
        return {name for each in value for name in _extra(each, where)}
    return set()


def check_orders(events: list[Event], *, over_rtp: bool) -> None:
    """Raise unless the events of a session came in the orders of the reference."""
    kinds = [event["type"] for event in events]
    assert kinds[0] == "session.created"
    assert kinds.count("session.created") == 1
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    if over_rtp:
        assert "response.output_audio.delta" not in kinds
    else:
        assert not [kind for kind in kinds if kind.startswith("output_audio_buffer")]
    _check_items(events)
    for response_id in [e["response"]["id"] for e in events if e["type"] == "response.created"]:
        _check_response([e for e in events if _response_of(e) == response_id], over_rtp=over_rtp)
    _check_rate_limits(events)


def _response_of(event: Event) -> str | None:
    return event.get("response_id") or (event.get("response") or {}).get("id")


def _check_items(events: list[Event]) -> None:
    """Each item is added once, done after that, and talked about after that."""
    added: list[str] = []
    present: set[str] = set()
    committed = [e["item_id"] for e in events if e["type"] == "input_audio_buffer.committed"]
    transcribed = Counter(
        e["item_id"]
        for e in events
        if e["type"].endswith(("transcription.completed", "transcription.failed"))
    )
    assert set(transcribed.values()) <= {1}
    for at, event in enumerate(events):
        kind = event["type"]
        if kind == "conversation.item.added":
            # An id may be used again once its item is deleted.
            assert event["item"]["id"] not in present
            present.add(event["item"]["id"])
            assert event["previous_item_id"] is None or event["previous_item_id"] in added
            added.append(event["item"]["id"])
            assert not any("audio" in part for part in event["item"].get("content", []))
        elif kind == "conversation.item.done":
            assert event["item"]["id"] in added
        elif kind in {"conversation.item.truncated", "conversation.item.deleted"}:
            assert event["item_id"] in present
            if kind == "conversation.item.deleted":
                present.remove(event["item_id"])
        elif kind == "input_audio_buffer.committed":
            item_id = event["item_id"]
            assert [e["type"] for e in events[at + 1 : at + 3]] == [
                "conversation.item.added",
                "conversation.item.done",
            ]
            assert events[at + 1]["item"]["id"] == item_id
        elif kind == "input_audio_buffer.speech_stopped":
            begun = [e for e in events[:at] if e["type"] == "input_audio_buffer.speech_started"]
            assert begun[-1]["item_id"] == event["item_id"]
            assert events[at + 1]["type"] == "input_audio_buffer.committed"
    assert set(committed) <= set(added)


def _check_response(events: list[Event], *, over_rtp: bool) -> None:
    """S3, S4 or S7: what is opened is closed, from the inside out, and nothing comes after."""
    played = [e["type"] for e in events if e["type"].startswith("output_audio_buffer")]
    assert played in ([], *([f"output_audio_buffer.{k}" for k in ks] for ks in _PLAYED))
    chain = [e for e in events if not e["type"].startswith("output_audio_buffer")]
    assert chain[0]["type"] == "response.created"
    assert chain[0]["response"]["status"] == "in_progress"
    assert chain[0]["response"]["output"] == []
    assert chain[-1]["type"] == "response.done"
    done = chain[-1]["response"]
    assert done["usage"]["total_tokens"] == (
        done["usage"]["input_tokens"] + done["usage"]["output_tokens"]
    )
    outputs: list[Event] = []
    inside: list[str] = []
    for event in chain[1:-1]:
        kind = event["type"]
        assert event["output_index"] == len(outputs)
        if kind == "response.output_item.added":
            assert inside == []
            inside = [kind]
            assert event["item"]["status"] == "in_progress"
        elif kind == "response.content_part.added":
            assert inside == ["response.output_item.added"]
            inside.append(kind)
        elif kind == "response.content_part.done":
            assert inside.pop() == "response.content_part.added"
        elif kind == "response.output_item.done":
            assert inside.pop() == "response.output_item.added"
            outputs.append(event["item"])
        elif "function_call_arguments" in kind:
            assert inside == ["response.output_item.added"]
        else:
            assert inside[-1] == "response.content_part.added"
    assert inside == []
    assert outputs == done["output"]
    _check_words(chain)
    if done["status"] == "completed":
        assert done["status_details"] is None
        assert all(item["status"] == "completed" for item in outputs)
    else:
        assert done["status_details"]["type"] == done["status"]


_PLAYED = (("started", "stopped"), ("started", "cleared"), ("started",), ("cleared",))


def _check_words(chain: list[Event]) -> None:
    """The deltas of a part are what its end says, to the letter."""
    written: Counter[tuple[Any, ...]] = Counter()
    texts: dict[tuple[Any, ...], str] = {}
    for event in chain:
        name, _, step = event["type"].rpartition(".")
        if step == "delta":
            place = (name, event["item_id"])
            texts[place] = texts.get(place, "") + event["delta"]
        elif step == "done" and name != "response.output_audio":
            for field in ("transcript", "text", "arguments"):
                if field in event:
                    assert texts.get((name, event["item_id"]), "") == event[field]
                    written[name] += 1


def _check_rate_limits(events: list[Event]) -> None:
    for at, event in enumerate(events):
        if event["type"] == "response.done":
            assert events[at + 1]["type"] == "rate_limits.updated"
