"""The `response` object of response.create: what a client may wish of one response.

Pure; section 3.2 of the protocol reference.
"""

from agent.embedded.items import checked_item
from agent.embedded.protocol import JsonObject, Refused, only_known
from agent.embedded.session_fields import checked_audio_field, checked_field

_SHARED_FIELDS = frozenset(
    {"instructions", "output_modalities", "tools", "tool_choice", "parallel_tool_calls"}
    | {"reasoning", "max_output_tokens", "prompt"}
)
_RESPONSE_FIELDS = _SHARED_FIELDS | {"audio", "conversation", "input", "metadata"}


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
    # Clients write null for what they have no wish about.
    options = {field: value for field, value in options.items() if value is not None}
    for field in _SHARED_FIELDS & set(options):
        checked_field(field, options[field], f"response.{field}")
    if options.get("conversation", "auto") not in ("auto", "none"):
        raise Refused("invalid_value", "Expected 'auto' or 'none'.", "response.conversation")
    _check_metadata(options.get("metadata"))
    _check_response_audio(options.get("audio"))
    if "input" in options:
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
        checked_audio_field(field, value, f"{where}.output.{field}")


def _checked_input(given: object) -> list[JsonObject]:
    if not isinstance(given, list):
        raise Refused("invalid_value", "Expected a list of items.", "response.input")
    checked = []
    for item in given:
        if isinstance(item, dict) and item.get("type") == "item_reference":
            if not isinstance(item.get("id"), str):
                raise Refused("missing_required_parameter", "A reference needs an id.", "item.id")
            checked.append(item)
            continue
        whole = checked_item(item)
        if any(part.get("transcript", "") is None for part in whole.get("content", ())):
            # A response begins at once; words of an item are known when they are known.
            message = "Add audio as an item of the conversation, and refer to it by its id."
            raise Refused("invalid_value", message, "response.input")
        checked.append(whole)
    return checked
