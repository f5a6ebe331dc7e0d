"""The session object: what it is at first, how a client may change it, what it means.

Pure: the object goes in as the client was told it last and comes out whole;
whatever is unknown or wrong refuses the whole change. Section 2 of the
protocol reference.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from agent.embedded.ears import TurnDetection
from agent.embedded.offers import Tool
from agent.embedded.protocol import JsonObject, Refused, only_known
from agent.embedded.semantic import Eagerness, longest_ms

# The whole session is echoed; the data channel carries 256 KiB at once.
_MAX_SESSION_CHARS = 200 * 1024
_MOST_IDLE_MS = 60_000

_DEFAULT_INSTRUCTIONS = "You are a friendly receptionist. Be brief."
_DEFAULT_TURN_DETECTION: JsonObject = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_DEFAULT_SEMANTIC_DETECTION: JsonObject = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
_SESSION_FIELDS = frozenset(
    {"type", "model", "output_modalities", "instructions", "audio", "tools", "tool_choice"}
    | {"parallel_tool_calls", "reasoning", "max_output_tokens", "truncation", "tracing", "prompt"}
    | {"include"}
)
_AUDIO_FIELDS = {
    "input": frozenset({"format", "transcription", "noise_reduction", "turn_detection"}),
    "output": frozenset({"format", "voice", "speed"}),
}
MODALITIES = (["audio"], ["text"])
"""Either of them, never both: audio always brings its words."""


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
        "model": "gpt-realtime-2.1",
        "output_modalities": ["audio"],
        "instructions": _DEFAULT_INSTRUCTIONS,
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
                "turn_detection": dict(_DEFAULT_TURN_DETECTION),
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": "marin",
                "speed": 1.0,
            },
        },
        "include": None,
    }


def merge_session(
    session: JsonObject, change: object, *, creating: bool = False, has_spoken: bool = False
) -> JsonObject:
    """Apply a session object to the session: only the fields present change.

    Args:
        session: As it is; not modified.
        change: What the client sent.
        creating: The session part of the offer, which may choose the model.
        has_spoken: Audio went out already, which locks the voice.

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
    only_known(change, _SESSION_FIELDS, "session")
    if change["type"] != "realtime":
        raise Refused(
            "invalid_value", "Only sessions of type 'realtime' are served.", "session.type"
        )
    merged = copy.deepcopy(session)
    for field, value in change.items():
        if field == "audio":
            _merge_audio(merged["audio"], value, has_spoken=has_spoken)
        elif field == "model" and not creating and value != session["model"]:
            raise Refused("invalid_value", "The model of a session cannot change.", "session.model")
        else:
            merged[field] = _checked(field, value)
    if len(json.dumps(merged)) > _MAX_SESSION_CHARS:
        raise Refused("invalid_value", "Instructions and tools exceed 200 KiB.", "session")
    return merged


def _checked(field: str, value: object) -> object:
    where = f"session.{field}"
    if field in {"instructions", "model"}:
        if not isinstance(value, str):
            raise Refused("invalid_value", f"Expected a string for '{where}'.", where)
        return value or (_DEFAULT_INSTRUCTIONS if field == "instructions" else "gpt-realtime-2.1")
    if field == "output_modalities" and value not in MODALITIES:
        raise Refused("invalid_value", 'Expected ["audio"] or ["text"].', where)
    if field == "tools":
        check_tools(value, where)
    if field == "max_output_tokens":
        check_most_tokens(value, where)
    if field == "tool_choice" and value not in ("auto", "none", "required"):
        is_named = isinstance(value, dict) and isinstance(value.get("name"), str)
        if not is_named or value.get("type") != "function":  # type: ignore[attr-defined]
            raise Refused("invalid_value", "Expected auto, none, required or a function.", where)
    return value


def check_most_tokens(value: object, where: str) -> None:
    """Refuse what is not a limit of output tokens."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value != "inf" and not (is_number and 1 <= int(str(value)) <= 4096):
        raise Refused("invalid_value", "Expected 1 to 4096 or 'inf'.", where)


def check_tools(value: object, path: str) -> None:
    """Refuse what is not a list of function tools."""
    if not isinstance(value, list):
        raise Refused("invalid_value", f"Expected a list for '{path}'.", path)
    for index, tool in enumerate(value):
        where = f"{path}[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise Refused("invalid_value", "Only function tools are served.", where)
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise Refused("missing_required_parameter", "A tool needs a name.", f"{where}.name")
        if not isinstance(tool.get("parameters", {}), dict):
            raise Refused("invalid_value", "Expected a JSON Schema.", f"{where}.parameters")


def _merge_audio(audio: JsonObject, change: object, *, has_spoken: bool) -> None:
    if not isinstance(change, dict):
        raise Refused("invalid_value", "Expected an object.", "session.audio")
    only_known(change, frozenset(_AUDIO_FIELDS), "session.audio")
    for side, fields in change.items():
        where = f"session.audio.{side}"
        if not isinstance(fields, dict):
            raise Refused("invalid_value", f"Expected an object for '{where}'.", where)
        only_known(fields, _AUDIO_FIELDS[side], where)
        for field, value in fields.items():
            path = f"{where}.{field}"
            if field == "voice" and has_spoken and value != audio["output"]["voice"]:
                raise Refused(
                    "cannot_update_voice",
                    "Cannot update a conversation's voice if assistant audio is present.",
                    path,
                )
            audio[side][field] = checked_audio(field, value, path)


def checked_audio(field: str, value: object, path: str) -> object:
    """Check and complete one field below `audio.input` or `audio.output`.

    Raises:
        Refused: It is not what the field may be.
    """
    if field == "turn_detection":
        return _checked_turn_detection(value, path)
    if field == "speed":
        if not _is_number(value) or not 0.25 <= float(str(value)) <= 1.5:
            raise Refused("invalid_value", "Expected 0.25 to 1.5.", path)
        return value
    if field == "voice":
        if not isinstance(value, str | dict) or not value:
            raise Refused("invalid_value", "Expected a voice.", path)
        return value
    if value is not None and not isinstance(value, dict):
        raise Refused("invalid_value", "Expected an object.", path)
    if field == "format":
        kind = value.get("type") if value else None
        if kind not in ("audio/pcm", "audio/pcmu", "audio/pcma"):
            raise Refused("invalid_value", "Expected audio/pcm, audio/pcmu or audio/pcma.", path)
        assert isinstance(value, dict)
        only_known(value, frozenset({"type", "rate"}), path)
        rate_hz = 24000 if kind == "audio/pcm" else 8000
        if value.get("rate", rate_hz) != rate_hz:
            raise Refused("invalid_value", f"The rate of {kind} is {rate_hz}.", f"{path}.rate")
        return {"type": kind, "rate": rate_hz} if kind == "audio/pcm" else {"type": kind}
    return value


def _checked_turn_detection(value: object, path: str) -> JsonObject | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Refused("invalid_value", "Expected an object or null.", path)
    if value.get("type", "server_vad") not in ("server_vad", "semantic_vad"):
        raise Refused("invalid_value", "Expected 'server_vad' or 'semantic_vad'.", f"{path}.type")
    if value.get("type") == "semantic_vad":
        return _checked_semantic_detection(value, path)
    only_known(value, frozenset(_DEFAULT_TURN_DETECTION), path)
    merged = {**_DEFAULT_TURN_DETECTION, **value}
    limits = {"threshold": 1.0, "prefix_padding_ms": 5000.0, "silence_duration_ms": 10000.0}
    for field, most in limits.items():
        if not _is_number(merged[field]) or not 0 <= float(merged[field]) <= most:
            raise Refused("invalid_value", f"Expected 0 to {most:g}.", f"{path}.{field}")
    _check_idle(merged["idle_timeout_ms"], f"{path}.idle_timeout_ms")
    _check_flags(merged, path)
    return merged


def _checked_semantic_detection(value: JsonObject, path: str) -> JsonObject:
    only_known(value, frozenset(_DEFAULT_SEMANTIC_DETECTION), path)
    merged = {**_DEFAULT_SEMANTIC_DETECTION, **value}
    if merged["eagerness"] not in ("low", "medium", "high", "auto"):
        raise Refused("invalid_value", "Expected low, medium, high or auto.", f"{path}.eagerness")
    _check_flags(merged, path)
    return merged


def _check_flags(detection: JsonObject, path: str) -> None:
    for field in ("create_response", "interrupt_response"):
        if not isinstance(detection[field], bool):
            raise Refused("invalid_value", "Expected true or false.", f"{path}.{field}")


def _check_idle(value: object, path: str) -> None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < int(str(value)) <= _MOST_IDLE_MS):
        raise Refused("invalid_value", f"Expected null or 1 to {_MOST_IDLE_MS}.", path)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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


def offered_tools(session: Mapping[str, Any]) -> dict[str, Tool]:
    """The tools the model may call now, by name."""
    if session["tool_choice"] == "none":
        return {}
    return {
        tool["name"]: Tool(
            tool["name"], tool.get("parameters") or {}, str(tool.get("description") or "")
        )
        for tool in session["tools"]
    }
