"""The Realtime protocol's nouns on the server's side: ids, session, items, refusals.

Text comes in and is either a well-formed client event or a `Refused`; dicts go
out as they stand on the wire. Nothing here does I/O or keeps state of a call.
Field names and error codes: OpenAI Realtime API, GA, sections 2 and 3 of its
reference; unknown fields refuse the whole event, as the service does.
"""

import copy
import json
import secrets
import string
from collections.abc import Mapping
from typing import Any

from agent.embedded.ears import TurnDetection
from agent.embedded.offers import Tool
from agent.embedded.semantic import Eagerness, longest_ms

JsonObject = dict[str, Any]

_ALPHABET = string.ascii_letters + string.digits
# Above the 15 MiB of audio that one append may bring, in base64.
MAX_EVENT_BYTES = 21 * 1024 * 1024
# The whole session is echoed; the data channel carries 256 KiB at once.
_MAX_SESSION_CHARS = 200 * 1024
_MOST_IDLE_MS = 60_000
_MAX_ITEM_CHARS = 64 * 1024

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
_RESPONSE_FIELDS = frozenset(
    {"instructions", "output_modalities", "audio", "tools", "tool_choice", "parallel_tool_calls"}
    | {"reasoning", "max_output_tokens", "conversation", "input", "metadata", "prompt"}
)
_MODALITIES = (["audio"], ["text"])


class Refused(Exception):
    """A client event that is not honoured; becomes an `error` event and changes nothing.

    Attributes:
        code: As in the reference, section 3.5.
        param: Which field, if one is to blame.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def new_id(prefix: str, length: int = 21) -> str:
    """Make an opaque id: `item_` and 21 base-62 characters."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def parse_client_event(text: str) -> JsonObject:
    """Read one message of the data channel or the WebSocket.

    Raises:
        Refused: It is no JSON object with a string `type`, or far too long.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise Refused("invalid_event", "The event is longer than 21 MiB.")
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("invalid_event", "The event is not valid JSON.") from error
    if not isinstance(event, dict):
        raise Refused("invalid_event", "The event is not a JSON object.")
    if not isinstance(event.get("type"), str):
        raise Refused("missing_required_parameter", "Missing required parameter: 'type'.", "type")
    return event


def error_event(refused: Refused, event_id: object = None) -> JsonObject:
    """Say in the protocol's form why an event was refused."""
    return {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "code": refused.code,
            "message": refused.message,
            "param": refused.param,
            "event_id": event_id if isinstance(event_id, str) else None,
        },
    }


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


def only_known(given: JsonObject, known: frozenset[str], where: str = "") -> None:
    """Refuse an object with a field nobody knows, as the service does.

    Args:
        given: From the client.
        known: All its fields may be.
        where: The path of the object, "" for the outermost.

    Raises:
        Refused: `unknown_parameter`, with the path of the field.
    """
    for field in given:
        if field not in known:
            path = f"{where}.{field}" if where else field
            raise Refused("unknown_parameter", f"Unknown parameter: '{path}'.", path)


def _checked(field: str, value: object) -> object:
    where = f"session.{field}"
    if field in {"instructions", "model"}:
        if not isinstance(value, str):
            raise Refused("invalid_value", f"Expected a string for '{where}'.", where)
        return value or (_DEFAULT_INSTRUCTIONS if field == "instructions" else "gpt-realtime-2.1")
    if field == "output_modalities" and value not in _MODALITIES:
        raise Refused("invalid_value", 'Expected ["audio"] or ["text"].', where)
    if field == "tools":
        _check_tools(value, where)
    if field == "max_output_tokens":
        _check_most_tokens(value, where)
    if field == "tool_choice" and value not in ("auto", "none", "required"):
        is_named = isinstance(value, dict) and isinstance(value.get("name"), str)
        if not is_named or value.get("type") != "function":  # type: ignore[attr-defined]
            raise Refused("invalid_value", "Expected auto, none, required or a function.", where)
    return value


def _check_most_tokens(value: object, where: str) -> None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value != "inf" and not (is_number and 1 <= int(str(value)) <= 4096):
        raise Refused("invalid_value", "Expected 1 to 4096 or 'inf'.", where)


def _check_tools(value: object, path: str) -> None:
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
            audio[side][field] = _checked_audio(field, value, path)


def _checked_audio(field: str, value: object, path: str) -> object:
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


def checked_response(options: object) -> JsonObject:
    """Check the `response` object of response.create.

    Raises:
        Refused: Something in it is unknown, wrong or not served here.
    """
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise Refused("invalid_value", "Expected an object for 'response'.", "response")
    only_known(options, _RESPONSE_FIELDS, "response")
    if not isinstance(options.get("instructions", ""), str):
        raise Refused("invalid_value", "Expected a string.", "response.instructions")
    if options.get("output_modalities", ["audio"]) not in _MODALITIES:
        raise Refused(
            "invalid_value", 'Expected ["audio"] or ["text"].', "response.output_modalities"
        )
    if options.get("conversation", "auto") not in ("auto", "none"):
        raise Refused("invalid_value", "Expected 'auto' or 'none'.", "response.conversation")
    _check_metadata(options.get("metadata"))
    _check_tools(options.get("tools", []), "response.tools")
    _check_most_tokens(options.get("max_output_tokens", "inf"), "response.max_output_tokens")
    _check_response_audio(options.get("audio"))
    if options.get("input") is not None:
        options = {**options, "input": _checked_input(options["input"])}
    return options


def _check_metadata(metadata: object) -> None:
    if metadata is None:
        return
    is_good = isinstance(metadata, dict) and len(metadata) <= 16
    if not is_good or not all(
        isinstance(value, str) and len(key) <= 64 and len(value) <= 512
        for key, value in metadata.items()  # type: ignore[attr-defined]
    ):
        raise Refused(
            "invalid_value",
            "Expected at most 16 strings, keys up to 64 and values up to 512 characters.",
            "response.metadata",
        )


def _check_response_audio(audio: object) -> None:
    if audio is None:
        return
    where = "response.audio"
    output = audio.get("output") if isinstance(audio, dict) else None
    if not isinstance(audio, dict) or not isinstance(output, dict):
        raise Refused("invalid_value", "Expected an object with 'output'.", where)
    only_known(audio, frozenset({"output"}), where)
    only_known(output, frozenset({"format", "voice"}), f"{where}.output")
    for field, value in output.items():
        _checked_audio(field, value, f"{where}.output.{field}")


def _checked_input(given: object) -> list[JsonObject]:
    if not isinstance(given, list):
        raise Refused("invalid_value", "Expected a list of items.", "response.input")
    checked = []
    for item in given:
        if isinstance(item, dict) and item.get("type") == "item_reference":
            if not isinstance(item.get("id"), str):
                raise Refused("missing_required_parameter", "A reference needs an id.", "item.id")
            checked.append(item)
        else:
            checked.append(checked_item(item))
    return checked


def text_of(item: Mapping[str, Any]) -> str:
    """The words of a message item, typed or spoken; "" when it is none or has none."""
    if item.get("type") != "message":
        return ""
    parts = (part.get("text") or part.get("transcript") or "" for part in item["content"])
    return " ".join(part for part in parts if part)


def checked_item(item: object) -> JsonObject:
    """Check and complete an item a client wants to add.

    Raises:
        Refused: It is none that a client may add.
    """
    if not isinstance(item, dict):
        raise Refused("missing_required_parameter", "Missing required parameter: 'item'.", "item")
    if len(json.dumps(item)) > _MAX_ITEM_CHARS:
        raise Refused("invalid_value", "The item is longer than 64 KiB.", "item")
    kind = item.get("type")
    if kind == "message":
        _check_message(item)
    elif kind in ("function_call", "function_call_output"):
        needed = ("call_id", "output") if kind == "function_call_output" else ("name", "arguments")
        for field in needed:
            if not isinstance(item.get(field), str):
                path = f"item.{field}"
                raise Refused(
                    "missing_required_parameter", f"Missing required parameter: '{path}'.", path
                )
    else:
        raise Refused(
            "invalid_value", "Expected a message or a function call's output.", "item.type"
        )
    if not isinstance(item.get("id", ""), str):
        raise Refused("invalid_value", "Expected a string.", "item.id")
    return {
        **item,
        "id": item.get("id") or new_id("item_"),
        "object": "realtime.item",
        "status": "completed",
    }


def _check_message(item: JsonObject) -> None:
    # Lists, not sets: a stranger's value may be one that cannot be hashed.
    allowed = {"user": ["input_text"], "system": ["input_text"], "assistant": ["output_text"]}
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or role not in allowed:
        raise Refused("invalid_value", "Expected user, assistant or system.", "item.role")
    if not isinstance(content, list):
        raise Refused(
            "missing_required_parameter",
            "Missing required parameter: 'item.content'.",
            "item.content",
        )
    for part in content:
        if (
            not isinstance(part, dict)
            or part.get("type") not in allowed[str(role)]
            or not isinstance(part.get("text"), str)
        ):
            raise Refused(
                "invalid_value", f"Expected {', '.join(allowed[str(role)])} parts.", "item.content"
            )


class Conversation:
    """The items in their order, and what the wire says of where each stands."""

    _MOST_ITEMS = 2000

    def __init__(self) -> None:
        self.id = new_id("conv_")
        self._items: dict[str, JsonObject] = {}
        self._order: list[str] = []

    @property
    def items(self) -> list[JsonObject]:
        """All items in their order."""
        return [self._items[item_id] for item_id in self._order]

    @property
    def last_id(self) -> str | None:
        """The item a new one would follow."""
        return self._order[-1] if self._order else None

    def get(self, item_id: object) -> JsonObject:
        """Find an item.

        Raises:
            Refused: There is none of that id.
        """
        item = self._items.get(item_id) if isinstance(item_id, str) else None
        if item is None:
            raise Refused(
                "invalid_value", f"Item with item_id not found: {item_id!r:.80}.", "item_id"
            )
        return item

    def find(self, item_id: str) -> JsonObject | None:
        """Find an item that may have been deleted since."""
        return self._items.get(item_id)

    def add(self, item: JsonObject, after: object = None) -> str | None:
        """Put an item in its place.

        Args:
            item: With its id.
            after: Another item's id, "root" for the front, None for the end.

        Returns:
            The id of the item before it.

        Raises:
            Refused: `after` is unknown, or the id is taken.
        """
        if item["id"] in self._items:
            raise Refused("invalid_value", "An item of that id exists already.", "item.id")
        if after is None:
            place = len(self._order)
        elif after == "root":
            place = 0
        else:
            self.get(after)
            place = self._order.index(str(after)) + 1
        self._order.insert(place, item["id"])
        self._items[item["id"]] = item
        if len(self._order) > self._MOST_ITEMS:
            del self._items[self._order.pop(0)]
        return self._order[place - 1] if place else None

    def remove(self, item_id: object) -> None:
        """Forget an item.

        Raises:
            Refused: There is none of that id.
        """
        self._order.remove(self.get(item_id)["id"])
        del self._items[str(item_id)]

    def function_name(self, call_id: str) -> str:
        """Which tool a call id was given to; "" when unknown."""
        for item in self._items.values():
            if item["type"] == "function_call" and item.get("call_id") == call_id:
                return str(item["name"])
        return ""
