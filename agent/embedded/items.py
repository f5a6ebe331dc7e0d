"""Conversation items as clients send them: checked, completed, and read.

Pure; section 3.1 of the protocol reference.
"""

import json
from collections.abc import Mapping
from typing import Any

from agent.embedded.protocol import JsonObject, Refused, new_id

_MAX_ITEM_CHARS = 64 * 1024
# Lists, not sets: a stranger's value may be one that cannot be hashed.
_PARTS = {
    "user": ["input_text", "input_audio"],
    "system": ["input_text"],
    "assistant": ["output_text"],
}


def text_of(item: Mapping[str, Any]) -> str:
    """The words of a message item, typed or spoken; "" when it is none or has none."""
    if item.get("type") != "message":
        return ""
    parts = (part.get("text") or part.get("transcript") or "" for part in item["content"])
    return " ".join(part for part in parts if part)


def checked_item(item: object) -> JsonObject:
    """Check and complete an item a client wants to add; audio in it is left out.

    Raises:
        Refused: It is none that a client may add.
    """
    if not isinstance(item, dict):
        raise Refused("missing_required_parameter", "Missing required parameter: 'item'.", "item")
    item, _ = split_audio(item)
    if len(json.dumps(item)) > _MAX_ITEM_CHARS:
        raise Refused("invalid_value", "The item is longer than 64 KiB.", "item")
    kind = item.get("type")
    if kind == "message":
        _check_message(item)
    elif kind == "function_call":
        item = {"call_id": new_id("call_", 16), **item}
        _demand_texts(item, "name", "arguments", "call_id")
    elif kind == "function_call_output":
        _demand_texts(item, "call_id", "output")
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


def _demand_texts(item: JsonObject, *fields: str) -> None:
    for field in fields:
        path = f"item.{field}"
        if field not in item:
            raise Refused(
                "missing_required_parameter", f"Missing required parameter: '{path}'.", path
            )
        if not isinstance(item[field], str):
            raise Refused("invalid_value", f"Expected a string for '{path}'.", path)


def split_audio(item: JsonObject) -> tuple[JsonObject, dict[int, object]]:
    """Take the audio out of an item: it is never sent back with it.

    Returns:
        The item, and whatever stands as audio in it, by content index.
    """
    content = item.get("content")
    if not isinstance(content, list):
        return item, {}
    audio: dict[int, object] = {}
    parts = list(content)
    for index, part in enumerate(content):
        if isinstance(part, dict) and part.get("type") == "input_audio":
            audio[index] = part.get("audio")
            parts[index] = {"transcript": None, **part}
            parts[index].pop("audio", None)
    return {**item, "content": parts}, audio


def _check_message(item: JsonObject) -> None:
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or role not in _PARTS:
        raise Refused("invalid_value", "Expected user, assistant or system.", "item.role")
    if not isinstance(content, list):
        raise Refused(
            "missing_required_parameter",
            "Missing required parameter: 'item.content'.",
            "item.content",
        )
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS[role]:
            raise Refused("invalid_value", f"Expected {_PARTS[role]} parts.", "item.content")
        words = part.get("transcript") or "" if kind == "input_audio" else part.get("text")
        if not isinstance(words, str):
            raise Refused("invalid_value", f"Expected words in {kind}.", "item.content")
