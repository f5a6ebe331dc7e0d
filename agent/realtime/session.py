"""The session an agent needs: what may be configured of it, and the object that asks for it.

    [realtime] (defaults) <- [[agents]] (what is set there) -> session_of -> session.update

Only what is configured is asked for, besides what Trunkline relies on: a field that a
model does not know is refused by the far end, and with it the whole session.

Source: the session object of the GA Realtime API, names of August 2026.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from agent.call.ports import AgentProfile

_M = TypeVar("_M", bound=BaseModel)

_MOST_TOKENS = 4096
_CUSTOM_VOICE = "voice_"
_SERVER_VAD = ("threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms")
_SEMANTIC_VAD = ("eagerness",)
_KIND_FIELDS = {"type", *_SERVER_VAD, *_SEMANTIC_VAD}
_WORDS = ("auto", "none", "required")


def _token_limit(value: object) -> int | str | None:
    if isinstance(value, str) and value.isdecimal():  # the environment knows only text
        value = int(value[:9])
    if value == "inf":
        return "inf"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_TOKENS:
        return value
    raise ValueError(f'1 to {_MOST_TOKENS}, or "inf"')


def _tool_choice(value: object) -> str | dict[str, str]:
    if value in _WORDS:
        return str(value)
    if (
        isinstance(value, dict)
        and value.keys() == {"type", "name"}
        and value["type"] == "function"
        and isinstance(value["name"], str)
    ):
        return dict(value)
    raise ValueError('"auto", "none", "required", or {type = "function", name = "..."}')


class _Part(BaseModel):
    """A table inside a session; a word stands for the table that has nothing but this word."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: object) -> object:
        return {next(iter(cls.model_fields)): value} if isinstance(value, str) else value


class TurnDetectionSettings(_Part):
    """`turn_detection`: when the far end takes the caller's turn for over."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=10_000)
    silence_duration_ms: int = Field(500, ge=0, le=10_000)
    idle_timeout_ms: int | None = Field(
        None, ge=1000, le=60_000, description="Then the agent speaks unasked; see also [idle]."
    )
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: Literal[True] = Field(
        True, description="With an [interruption] guard, Trunkline asks for the answers."
    )
    interrupt_response: bool = Field(
        True, description="false: the agent finishes what it says. A guard decides by itself."
    )

    @model_validator(mode="after")
    def _has_its_own_fields_only(self) -> Self:
        others = _SEMANTIC_VAD if self.type == "server_vad" else _SERVER_VAD
        wrong = [key for key in others if key in self.model_fields_set]
        if wrong:
            raise ValueError(f"{self.type} has no {', '.join(wrong)}")
        return self


class TranscriptionSettings(_Part):
    """`transcription`: how the caller's words become text, for the log."""

    model: str = Field("gpt-transcribe", min_length=1, max_length=128)
    language: str | None = Field(None, min_length=2, max_length=16, description="ISO 639-1.")
    languages: tuple[str, ...] = Field((), max_length=32, description="Newer models only.")
    prompt: str | None = Field(None, max_length=8_000)
    keywords: tuple[str, ...] = Field((), max_length=1_000, description="Newer models only.")
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = Field(
        None, description="Only of models that write while the caller speaks."
    )


class NoiseReductionSettings(_Part):
    """`noise_reduction`: "near_field", "far_field", "off", or a table with the strength."""

    type: Literal["off", "near_field", "far_field"]
    strength: float | None = Field(None, ge=0, le=1)


class TokenLimits(_Part):
    """`truncation.token_limits`."""

    post_instructions: int = Field(ge=0)


class TruncationSettings(_Part):
    """`truncation`: "auto", "disabled", or a table with the share of the context to keep."""

    type: Literal["auto", "disabled", "retention_ratio"]
    retention_ratio: float | None = Field(None, ge=0, le=1)
    token_limits: TokenLimits | None = None

    @model_validator(mode="after")
    def _has_a_ratio(self) -> Self:
        if (self.type == "retention_ratio") != (self.retention_ratio is not None):
            raise ValueError('retention_ratio together with type = "retention_ratio"')
        if self.token_limits is not None and self.retention_ratio is None:
            raise ValueError('token_limits only with type = "retention_ratio"')
        return self


class TracingSettings(_Part):
    """`tracing`: "off", "auto", or a table that names the trace."""

    mode: Literal["off", "auto", "named"] = "named"
    workflow_name: str | None = Field(None, max_length=512)
    group_id: str | None = Field(None, max_length=512)
    metadata: Mapping[str, str] | None = None


class PromptSettings(_Part):
    """`prompt`: one that is stored at the provider."""

    id: str = Field(min_length=1, max_length=256)
    version: str | None = Field(None, min_length=1, max_length=64)
    variables: Mapping[str, str] | None = None


class ReasoningSettings(_Part):
    """`reasoning`: for models that do."""

    effort: Literal["minimal", "low", "medium", "high", "xhigh"]


class SessionSettings(BaseModel):
    """What `[realtime]` says for all agents, and `[[agents]]` for one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(
        "https://api.openai.com/v1",
        pattern=r"^https?://[^\s?#]+$",
        description="The provider's address; it also decides the region.",
    )
    model: str = Field("gpt-realtime-2.1", min_length=1, max_length=128)
    voice: str = Field("marin", min_length=1, max_length=128)
    speed: float | None = Field(None, ge=0.25, le=1.5)
    turn_detection: TurnDetectionSettings = TurnDetectionSettings()
    noise_reduction: NoiseReductionSettings | None = None
    transcription: TranscriptionSettings = TranscriptionSettings()
    max_output_tokens: Annotated[int | str | None, PlainValidator(_token_limit)] = None
    truncation: TruncationSettings | None = None
    tracing: TracingSettings | None = None
    prompt: PromptSettings | None = None
    reasoning: ReasoningSettings | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Annotated[str | dict[str, str], PlainValidator(_tool_choice)] = "auto"
    include: tuple[Literal["item.input_audio_transcription.logprobs"], ...] = ()

    def own(self) -> dict[str, Any]:
        """Tell what of a session is set here; the rest is left to the defaults."""
        mine = self.model_fields_set & SessionSettings.model_fields.keys()
        return {key: getattr(self, key) for key in mine}


_S = TypeVar("_S", bound=SessionSettings)


def with_own(defaults: _S, own: Mapping[str, Any]) -> _S:
    """Put what an agent has of its own over the defaults; tables are merged key by key."""
    return _merged(defaults, own)


def _merged(base: _M, changes: Mapping[str, Any]) -> _M:
    update: dict[str, Any] = {}
    for key, value in changes.items():
        before = getattr(base, key)
        if isinstance(value, BaseModel) and type(before) is type(value):
            is_other_kind = getattr(value, "type", None) != getattr(before, "type", None)
            # A semantic_vad has no use for the threshold of a server_vad.
            if not (is_other_kind and value.model_fields_set & _KIND_FIELDS):
                value = _merged(before, {k: getattr(value, k) for k in value.model_fields_set})
        update[key] = value
    return base.model_copy(update=update)


def session_of(profile: AgentProfile, settings: SessionSettings) -> dict[str, Any]:
    """Describe the session an agent needs, with everything set that we rely on.

    Returns:
        The session object of `session.update`. The model is not in it: it is
        fixed when the session is made.
    """
    session: dict[str, Any] = {
        "type": "realtime",
        "instructions": speakable(profile.instructions),
        "output_modalities": ["audio"],
        "tool_choice": settings.tool_choice,
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            }
            for tool in profile.tools
        ],
        "audio": {"input": _input_of(profile, settings), "output": _output_of(profile, settings)},
    }
    wishes = {
        "max_output_tokens": settings.max_output_tokens,
        "parallel_tool_calls": settings.parallel_tool_calls,
        "reasoning": _table(settings.reasoning),
        "prompt": _table(settings.prompt),
        "include": list(settings.include) or None,
    }
    session |= {key: value for key, value in wishes.items() if value is not None}
    if settings.truncation is not None:
        session["truncation"] = _table(settings.truncation, words=("auto", "disabled"))
    if settings.tracing is not None:
        tracing = settings.tracing
        named = tracing.model_dump(exclude={"mode"}, exclude_none=True)
        session["tracing"] = {"off": None, "auto": "auto", "named": named}[tracing.mode]
    return session


def _input_of(profile: AgentProfile, settings: SessionSettings) -> dict[str, Any]:
    detection = settings.turn_detection
    own = _SERVER_VAD if detection.type == "server_vad" else _SEMANTIC_VAD
    guards = profile.guards_interruptions
    audio: dict[str, Any] = {
        "turn_detection": {
            "type": detection.type,
            **{key: getattr(detection, key) for key in own if getattr(detection, key) is not None},
            "create_response": not guards,
            "interrupt_response": detection.interrupt_response and not guards,
        },
        "transcription": {
            key: value
            for key, value in settings.transcription.model_dump(mode="json").items()
            if value not in (None, [])
        },
    }
    if settings.noise_reduction is not None:
        is_off = settings.noise_reduction.type == "off"
        audio["noise_reduction"] = None if is_off else _table(settings.noise_reduction)
    return audio


def _output_of(profile: AgentProfile, settings: SessionSettings) -> dict[str, Any]:
    is_custom = profile.voice.startswith(_CUSTOM_VOICE)
    audio: dict[str, Any] = {"voice": {"id": profile.voice} if is_custom else profile.voice}
    if settings.speed is not None:
        audio["speed"] = settings.speed
    return audio


def _table(part: BaseModel | None, words: tuple[str, ...] = ()) -> Any:
    if part is None:
        return None
    table = part.model_dump(mode="json", exclude_none=True)
    return table["type"] if table.get("type") in words else table


def speakable(text: str) -> str:
    """Text that JSON can carry; lone surrogates cannot be."""
    return text.encode("utf-8", "replace").decode()
