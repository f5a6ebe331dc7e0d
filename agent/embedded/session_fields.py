"""The fields of the session object, each checked by itself; responses share many of them.

Pure: a value comes in from a stranger and goes out complete, or is `Refused`
with its path. Values and limits: section 2 of the protocol reference. What
this server cannot do is refused (MCP tools, stored prompts); what only costs
or colours a cloud model is taken and changes nothing in the rules' answers
(reasoning, truncation, noise reduction, tracing).
"""

from agent.embedded.protocol import JsonObject, Refused, is_number, only_known

DEFAULT_INSTRUCTIONS = "You are a friendly receptionist. Be brief."
DEFAULT_MODEL = "gpt-realtime-2.1"
DEFAULT_TURN_DETECTION: JsonObject = {
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
_MODALITIES = (["audio"], ["text"])
_INCLUDED = "item.input_audio_transcription.logprobs"
_EFFORTS = ("minimal", "low", "medium", "high", "xhigh")
_MOST_IDLE_MS = 60_000
_MOST_TOKENS = 4096


def checked_field(field: str, value: object, path: str) -> object:
    """Check one field at the top of a session or a response.

    Args:
        field: Its name, a known one.
        value: From the client.
        path: What an error calls it, such as `session.tools`.

    Raises:
        Refused: It is not what the field may be, or asks for what is not served here.
    """
    match field:
        case "instructions" | "model":
            if not isinstance(value, str):
                raise Refused("invalid_value", f"Expected a string for '{path}'.", path)
            return value or (DEFAULT_INSTRUCTIONS if field == "instructions" else DEFAULT_MODEL)
        case "output_modalities" if value not in _MODALITIES:
            raise Refused("invalid_value", 'Expected ["audio"] or ["text"].', path)
        case "tools":
            _check_tools(value, path)
        case "tool_choice":
            _check_tool_choice(value, path)
        case "max_output_tokens":
            if value != "inf" and not _is_whole(value, 1, _MOST_TOKENS):
                raise Refused("invalid_value", f"Expected 1 to {_MOST_TOKENS} or 'inf'.", path)
        case "parallel_tool_calls":
            _check_flag(value, path)
        case "prompt" if value is not None:
            raise Refused("invalid_value", "No stored prompts are kept here.", path)
        case "include":
            is_known = isinstance(value, list) and all(each == _INCLUDED for each in value)
            if value is not None and not is_known:
                raise Refused("invalid_value", f"Expected null or ['{_INCLUDED}'].", path)
        case "reasoning" if value is not None:
            _check_choice(_object(value, path, {"effort"}), "effort", _EFFORTS, path)
        case "tracing" if value is not None and value != "auto":
            _object(value, path, {"workflow_name", "group_id", "metadata"})
        case "truncation" if value not in ("auto", "disabled"):
            _check_truncation(value, path)
    return value


def checked_audio_field(field: str, value: object, path: str) -> object:
    """Check and complete one field below `audio.input` or `audio.output`.

    Raises:
        Refused: It is not what the field may be.
    """
    match field:
        case "format":
            return _checked_format(value, path)
        case "turn_detection":
            return _checked_turn_detection(value, path)
        case "transcription" if value is not None:
            _check_transcription(value, path)
        case "noise_reduction" if value is not None:
            given = _object(value, path, {"type", "strength"})
            _check_choice(given, "type", ("near_field", "far_field"), path)
        case "speed":
            if not is_number(value) or not 0.25 <= float(str(value)) <= 1.5:
                raise Refused("invalid_value", "Expected 0.25 to 1.5.", path)
        case "voice":
            if isinstance(value, dict):
                value = _object(value, path, {"id"}).get("id")
            if not isinstance(value, str) or not value:
                raise Refused("invalid_value", "Expected a voice.", path)
    return value


def _object(value: object, path: str, known: set[str]) -> JsonObject:
    if not isinstance(value, dict):
        raise Refused("invalid_value", f"Expected an object for '{path}'.", path)
    only_known(value, frozenset(known), path)
    return value


def _check_choice(given: JsonObject, field: str, choices: tuple[str, ...], path: str) -> None:
    if given.get(field) not in (None, *choices):
        path = f"{path}.{field}"
        raise Refused("invalid_value", f"Expected one of {', '.join(choices)}.", path)


def _check_flag(value: object, path: str) -> None:
    if not isinstance(value, bool):
        raise Refused("invalid_value", "Expected true or false.", path)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _check_tools(value: object, path: str) -> None:
    if not isinstance(value, list):
        raise Refused("invalid_value", f"Expected a list for '{path}'.", path)
    for index, tool in enumerate(value):
        where = f"{path}[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise Refused("invalid_value", "Only function tools are served.", where)
        only_known(tool, frozenset({"type", "name", "description", "parameters"}), where)
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise Refused("missing_required_parameter", "A tool needs a name.", f"{where}.name")
        if not isinstance(tool.get("description", ""), str):
            raise Refused("invalid_value", "Expected a string.", f"{where}.description")
        if not isinstance(tool.get("parameters", {}), dict):
            raise Refused("invalid_value", "Expected a JSON Schema.", f"{where}.parameters")


def _check_tool_choice(value: object, path: str) -> None:
    if value in ("auto", "none", "required"):
        return
    is_named = isinstance(value, dict) and isinstance(value.get("name"), str)
    if not is_named or value.get("type") != "function":  # type: ignore[attr-defined]
        raise Refused("invalid_value", "Expected auto, none, required or a function.", path)


def _check_truncation(value: object, path: str) -> None:
    given = _object(value, path, {"type", "retention_ratio", "token_limits"})
    if given.get("type") != "retention_ratio":
        raise Refused("invalid_value", "Expected auto, disabled or a retention_ratio.", path)
    ratio = given.get("retention_ratio")
    if not is_number(ratio) or not 0 <= float(str(ratio)) <= 1:
        raise Refused("invalid_value", "Expected 0 to 1.", f"{path}.retention_ratio")


def _checked_format(value: object, path: str) -> JsonObject:
    given = _object(value, path, {"type", "rate"})
    kind = given.get("type")
    if kind not in ("audio/pcm", "audio/pcmu", "audio/pcma"):
        raise Refused("invalid_value", "Expected audio/pcm, audio/pcmu or audio/pcma.", path)
    rate_hz = 24000 if kind == "audio/pcm" else 8000
    if given.get("rate", rate_hz) != rate_hz:
        raise Refused("invalid_value", f"The rate of {kind} is {rate_hz}.", f"{path}.rate")
    return {"type": kind, "rate": rate_hz} if kind == "audio/pcm" else {"type": kind}


def _check_transcription(value: object, path: str) -> None:
    words, lists = ("model", "language", "prompt"), ("languages", "keywords")
    given = _object(value, path, {*words, *lists, "delay"})
    _check_choice(given, "delay", _EFFORTS, path)
    for field in words:
        if not isinstance(given.get(field) or "", str):
            raise Refused("invalid_value", "Expected a string.", f"{path}.{field}")
    for field in lists:
        entries = given.get(field) or []
        if not isinstance(entries, list) or not all(isinstance(each, str) for each in entries):
            raise Refused("invalid_value", "Expected a list of strings.", f"{path}.{field}")


def _checked_turn_detection(value: object, path: str) -> JsonObject | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Refused("invalid_value", "Expected an object or null.", path)
    match value.get("type", "server_vad"):
        case "server_vad":
            defaults = DEFAULT_TURN_DETECTION
        case "semantic_vad":
            defaults = _DEFAULT_SEMANTIC_DETECTION
        case _:
            raise Refused(
                "invalid_value", "Expected 'server_vad' or 'semantic_vad'.", f"{path}.type"
            )
    only_known(value, frozenset(defaults), path)
    merged = {**defaults, **value}
    for field in ("create_response", "interrupt_response"):
        _check_flag(merged[field], f"{path}.{field}")
    if merged["type"] == "semantic_vad":
        if merged["eagerness"] not in ("low", "medium", "high", "auto"):
            raise Refused(
                "invalid_value", "Expected low, medium, high or auto.", f"{path}.eagerness"
            )
        return merged
    limits = {"threshold": 1.0, "prefix_padding_ms": 5000.0, "silence_duration_ms": 10000.0}
    for field, most in limits.items():
        if not is_number(merged[field]) or not 0 <= float(str(merged[field])) <= most:
            raise Refused("invalid_value", f"Expected 0 to {most:g}.", f"{path}.{field}")
    idle_ms = merged["idle_timeout_ms"]
    if idle_ms is not None and not _is_whole(idle_ms, 1, _MOST_IDLE_MS):
        raise Refused(
            "invalid_value", f"Expected null or 1 to {_MOST_IDLE_MS}.", f"{path}.idle_timeout_ms"
        )
    return merged
