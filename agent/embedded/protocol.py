"""The Realtime protocol's outermost shell on the server's side: events, ids, refusals.

Text comes in and is either a well-formed client event or a `Refused`; dicts go
out as they stand on the wire. Nothing here does I/O or keeps state of a call.
Field names and error codes: OpenAI Realtime API, GA, sections 2 and 3 of its
reference; unknown fields refuse the whole event, as the service does.
"""

import json
import math
import secrets
import string
from typing import Any

JsonObject = dict[str, Any]

_ALPHABET = string.ascii_letters + string.digits
# Above the 15 MiB of audio that one append may bring, in base64.
MAX_EVENT_BYTES = 21 * 1024 * 1024
_MOST_PARTS = 400_000
_MOST_DEPTH = 64
_MOST_DIGITS = 20


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


def read_json(text: str) -> Any:
    """Read JSON of a stranger, as strictly as the others of this world write it.

    Raises:
        ValueError: It is no JSON (NaN is none), or of a size, depth or encoding
            that would trouble whoever has to copy, walk or send it.
    """
    # Counted before anything is built: a million lists are a gigabyte.
    brackets = text.count("[") + text.count("{")
    if brackets + text.count(",") > _MOST_PARTS:
        raise ValueError("it has too many parts")
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_number, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if brackets > _MOST_DEPTH:
        _check_depth(value)
    if "\\u" in text:
        # Half of a surrogate pair can be held, but never sent.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number is too large")
    return int(digits)


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [
            part
            for each in level
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError("it is nested too deep")


def is_number(value: object) -> bool:
    """Whether a JSON value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_client_event(text: str) -> JsonObject:
    """Read one message of the data channel or the WebSocket.

    Raises:
        Refused: It is no JSON object with a string `type`, or far too long.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise Refused("invalid_event", "The event is longer than 21 MiB.")
    if not text:
        raise Refused("invalid_event", "The event is empty, or binary and not text.")
    try:
        event = read_json(text)
    except ValueError as error:
        raise Refused("invalid_event", f"The event is not valid JSON: {error}.") from error
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
