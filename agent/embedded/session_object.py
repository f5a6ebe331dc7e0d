"""The session object: what it is at first, how a client may change it, what it means.

Pure: the object goes in as the client was told it last and comes out whole;
whatever is unknown or wrong refuses the whole change. Section 2 of the
protocol reference. A session either talks or transcribes; which, is decided
before its conversation begins.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from agent.embedded.ears import TurnDetection
from agent.embedded.offers import Offer, Tool
from agent.embedded.protocol import JsonObject, Refused, only_known
from agent.embedded.semantic import Eagerness, longest_ms
from agent.embedded.session_fields import (
    DEFAULT_INSTRUCTIONS,
    DEFAULT_MODEL,
    DEFAULT_TURN_DETECTION,
    checked_audio_field,
    checked_field,
)

CHANNEL_SESSION_CHARS = 200 * 1024
"""The whole session is echoed, and a data channel carries 256 KiB at once."""
SOCKET_SESSION_CHARS = 4 * 1024 * 1024
"""A WebSocket carries more: thousands of tools, but nothing that fills the memory."""

_FIELDS = {
    "realtime": frozenset(
        {"type", "model", "output_modalities", "instructions", "audio", "tools", "tool_choice"}
        | {"parallel_tool_calls", "reasoning", "max_output_tokens", "truncation", "tracing"}
        | {"prompt", "include"}
    ),
    "transcription": frozenset({"type", "audio", "include"}),
}
_INPUT_FIELDS = frozenset({"format", "transcription", "noise_reduction", "turn_detection"})
_AUDIO_FIELDS = {
    "realtime": {"input": _INPUT_FIELDS, "output": frozenset({"format", "voice", "speed"})},
    "transcription": {"input": _INPUT_FIELDS},
}
_TRANSCRIPTION_MODEL = "gpt-transcribe"


def default_session(session_id: str, expires_at: int) -> JsonObject:
    """The session a client gets that asks for nothing.

    Args:
        session_id: `sess_...`
        expires_at: Unix seconds.
    """
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": DEFAULT_MODEL,
        "output_modalities": ["audio"],
        "instructions": DEFAULT_INSTRUCTIONS,
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": expires_at,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": dict(DEFAULT_TURN_DETECTION),
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": "marin",
                "speed": 1.0,
            },
        },
        "include": None,
    }


def transcribing(session: Mapping[str, Any]) -> JsonObject:
    """The session that only listens, with the ears of another one.

    Nobody opens one to read nothing: without a wish there is a transcript.
    """
    heard = copy.deepcopy(session["audio"]["input"])
    heard["transcription"] = heard["transcription"] or {"model": _TRANSCRIPTION_MODEL}
    return {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": session["id"],
        "expires_at": session["expires_at"],
        "audio": {"input": heard},
        "include": session["include"],
    }


def is_transcription(session: Mapping[str, Any]) -> bool:
    """Whether a session only listens."""
    return bool(session["type"] == "transcription")


def merge_session(
    session: JsonObject,
    change: object,
    *,
    is_new: bool = False,
    has_begun: bool = False,
    has_spoken: bool = False,
    most_chars: int = CHANNEL_SESSION_CHARS,
) -> JsonObject:
    """Apply a session object to the session: only the fields present change.

    Args:
        session: As it is; not modified.
        change: What the client sent.
        is_new: It is the session's first object, which may choose the model.
        has_begun: There is a conversation, which fixes what kind of session it is.
        has_spoken: Audio went out already, which locks the voice.
        most_chars: How long the whole may be as JSON.

    Returns:
        The whole session as it now is.

    Raises:
        Refused: Something in it is unknown or wrong; nothing of it applies.
    """
    if not isinstance(change, dict):
        raise Refused("invalid_value", "Expected an object for 'session'.", "session")
    if "type" not in change:
        raise Refused(
            "missing_required_parameter",
            "Missing required parameter: 'session.type'.",
            "session.type",
        )
    kind = change["type"]
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise Refused("invalid_value", "Expected 'realtime' or 'transcription'.", "session.type")
    merged = _of_kind(session, kind, has_begun=has_begun)
    only_known(change, _FIELDS[kind], "session")
    for field, value in change.items():
        path = f"session.{field}"
        if field == "audio":
            _merge_audio(merged["audio"], value, _AUDIO_FIELDS[kind], has_spoken=has_spoken)
        elif field == "model" and not is_new and value != session["model"]:
            raise Refused("invalid_value", "The model of a session cannot change.", path)
        elif field == "tracing" and session["tracing"] is not None and value != session["tracing"]:
            raise Refused("invalid_value", "Tracing cannot change once it is on.", path)
        else:
            merged[field] = checked_field(field, value, path)
    if len(json.dumps(merged)) > most_chars:
        raise Refused(
            "invalid_value",
            f"Instructions and tools exceed the {most_chars // 1024} KiB of this connection.",
            "session",
        )
    return merged


def _of_kind(session: JsonObject, kind: str, *, has_begun: bool) -> JsonObject:
    if session["type"] == kind:
        return copy.deepcopy(session)
    if has_begun or kind == "realtime":
        raise Refused(
            "invalid_value",
            f"A {session['type']} session cannot become a {kind} session.",
            "session.type",
        )
    return transcribing(session)


def _merge_audio(
    audio: JsonObject,
    change: object,
    known: Mapping[str, frozenset[str]],
    *,
    has_spoken: bool,
) -> None:
    if not isinstance(change, dict):
        raise Refused("invalid_value", "Expected an object.", "session.audio")
    only_known(change, frozenset(known), "session.audio")
    for side, fields in change.items():
        where = f"session.audio.{side}"
        if not isinstance(fields, dict):
            raise Refused("invalid_value", f"Expected an object for '{where}'.", where)
        only_known(fields, known[side], where)
        for field, value in fields.items():
            path = f"{where}.{field}"
            if field == "voice" and has_spoken and value != audio["output"]["voice"]:
                raise Refused(
                    "cannot_update_voice",
                    "Cannot update a conversation's voice if assistant audio is present.",
                    path,
                )
            audio[side][field] = checked_audio_field(field, value, path)


def turn_detection(session: Mapping[str, Any]) -> TurnDetection | None:
    """The session's VAD numbers; None when the client takes the turns."""
    given = session["audio"]["input"]["turn_detection"]
    if given is None:
        return None
    if given["type"] == "semantic_vad":
        eagerness: Eagerness = given["eagerness"]
        return TurnDetection(silence_duration_ms=longest_ms(eagerness), eagerness=eagerness)
    return TurnDetection(
        threshold=float(given["threshold"]),
        prefix_padding_ms=int(given["prefix_padding_ms"]),
        silence_duration_ms=int(given["silence_duration_ms"]),
    )


def offer(session: Mapping[str, Any]) -> Offer:
    """The tools of one answer, and which of them it must call.

    Args:
        session: With what `response.create` overrides in it.
    """
    choice = session["tool_choice"]
    tools = {
        tool["name"]: Tool(
            tool["name"], tool.get("parameters") or {}, str(tool.get("description") or "")
        )
        for tool in session["tools"]
        if choice != "none"
    }
    if isinstance(choice, dict):
        return Offer(tools, frozenset({choice["name"]} & set(tools)))
    return Offer(tools, frozenset(tools if choice == "required" else ()))
