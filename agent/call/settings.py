"""What a call may be told by configuration."""

from collections.abc import Mapping
from datetime import UTC, date, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    field_validator,
    model_validator,
)

from agent.audio.wav import read_wav

_Usd = Annotated[Decimal, Field(ge=0, le=10_000)]
_Budget = Annotated[Decimal, Field(gt=0, le=1_000_000_000)]


def _zone_name(value: str) -> str:
    try:
        if value != "UTC":
            ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be an IANA time zone such as Europe/Brussels") from None
    return value


class PriceSettings(BaseModel):
    """One `[[prices]]` table: what a model costs from a day on, in USD per 1M tokens.

    Where a cached price is absent, cached tokens cost what others do; a kind of
    token without a price makes the cost of what used it unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description='As configured; "embedded" is the offline server.')
    from_day: date = Field(alias="from", description="The first day it is in force.")
    text_in: _Usd | None = None
    text_cached: _Usd | None = None
    text_out: _Usd | None = None
    audio_in: _Usd | None = None
    audio_cached: _Usd | None = None
    audio_out: _Usd | None = None
    image_in: _Usd | None = None
    image_cached: _Usd | None = None
    per_minute: _Usd | None = Field(None, description="Of audio, for transcription models.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set - {"model", "from_day"}:
            raise ValueError("no price in it; at least one is needed, such as text_in = 4.0")
        return self


class BudgetSettings(BaseModel):
    """`[limits.budget]`: what may be spent, in USD. Without a figure there is no brake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    call_usd: _Budget | None = Field(None, description="In one call.")
    caller_day_usd: _Budget | None = Field(
        None, description="By one caller in a day; those without a number are one caller."
    )
    day_usd: _Budget | None = Field(None, description="By everybody in a day.")
    warn_share: Decimal = Field(
        Decimal("0.8"), gt=0, le=1, description="From this share on the agent wraps up."
    )

    @property
    def spans_calls(self) -> bool:
        """What earlier and other calls spent matters, too."""
        return self.caller_day_usd is not None or self.day_usd is not None

    @property
    def is_set(self) -> bool:
        """There is a brake at all."""
        return self.spans_calls or self.call_usd is not None


class LimitSettings(BaseModel):
    """`[limits]`: how long things may take, and what they may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_call_s: int = Field(3600, ge=1, description="A call is ended after this long.")
    drain_timeout_s: int = Field(
        30, ge=0, description="How long calls may go on after SIGTERM before they are ended."
    )
    no_rtp_timeout_s: float = Field(
        20, gt=0, description="A caller from whom no RTP comes for this long is taken for gone."
    )
    goodbye_timeout_s: float = Field(
        12, gt=0, description="How long the last sentence may take before we hang up anyway."
    )
    timezone: Annotated[str, AfterValidator(_zone_name)] = Field(
        "UTC", description="Where the days of the budgets begin and end."
    )
    budget: BudgetSettings = BudgetSettings()

    @property
    def zone(self) -> tzinfo:
        """The zone of `timezone`; UTC needs no database of zones."""
        return UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)


_BACKCHANNELS = (
    "mm-hm", "mhm", "mm", "hm", "hmm", "uh-huh", "uh", "um", "ah", "oh", "aha",
    "yeah", "yes", "yep", "ok", "okay", "right", "sure",
)  # fmt: skip


class InterruptionSettings(BaseModel):
    """`[interruption]`: what it takes to stop the agent in mid-sentence.

    Without a guard the far end stops by itself the moment it hears a voice. With one
    it waits for us: the answer to every turn is then asked for by us, which costs
    half a round trip to the provider.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    guard: Literal["off", "duck", "pause"] = Field(
        "off",
        description="While it is not clear whether the caller means it: off stops at once, duck "
        "goes on 12 dB lower, pause falls silent and goes on where it stopped.",
    )
    min_speech_ms: int = Field(
        700, ge=100, le=5000, description="A voice that lasts this long means it."
    )
    min_words: int = Field(
        1, ge=1, le=10, description="So many words that are no backchannels mean it, too."
    )
    words_timeout_ms: int = Field(
        800, ge=0, le=3000, description="How long the words of a short sound are waited for."
    )
    backchannels: tuple[str, ...] = Field(
        _BACKCHANNELS,
        description="What listeners say without wanting to speak; case and marks do not matter.",
    )
    echo_below_db: float = Field(
        6, ge=0, le=40, description="Sound that follows the agent's own, so much weaker, is echo."
    )
    keys: bool = Field(True, description="A key pressed on the telephone stops the agent.")


class IdleSettings(BaseModel):
    """`[idle]`: a caller who says nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_s: float = Field(
        12, ge=0, le=600, description="Silence after which the caller is asked; 0: never."
    )
    times: int = Field(2, ge=1, le=10, description="How often before the call is ended.")
    question: str = Field("Are you still there?", min_length=1, max_length=500)
    goodbye: str = Field(
        "I cannot hear you any more, so I will hang up. Goodbye.", min_length=1, max_length=500
    )


class WatchdogSettings(BaseModel):
    """`[watchdog]`: after how much silence something must be wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer_timeout_s: float = Field(
        6, gt=0, le=60, description="From the end of the caller's turn to a response."
    )
    voice_timeout_s: float = Field(
        8, gt=0, le=60, description="From the beginning of a response to its first sound."
    )
    sound_timeout_s: float = Field(
        4, gt=0, le=60, description="Words or speech that are announced, and nothing is heard."
    )
    rtp_timeout_s: float = Field(
        4, gt=0, le=60, description="No packet from the caller's telephone."
    )
    repair_timeout_s: float = Field(
        4, gt=0, le=60, description="How long a repair may take before the next one is tried."
    )


class RecoverySettings(BaseModel):
    """`[recovery]`: sessions that end before the call does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_max_s: float = Field(
        3300, gt=0, description="At this age a session is succeeded by another at the latest."
    )
    session_margin_s: float = Field(
        300, ge=0, description="So long before the far end's own limit, if it tells one."
    )
    attempts: int = Field(
        3,
        ge=0,
        le=20,
        description="How often a session is opened anew, with each provider, before there is no "
        "hope; 0: the call ends with its session.",
    )
    backoff_s: float = Field(
        0.3, ge=0, le=10, description="Before the second attempt; each further wait is doubled."
    )
    timeout_s: float = Field(
        15, gt=0, le=120, description="How long a caller may be left without an agent."
    )


class FallbackSettings(BaseModel):
    """`[fallback]`, or `fallback` of a trunk: what callers get when there is no agent.

    Or no money for one. In the middle of a call, without anything here, they hear an apology
    and are hung up on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    announcement: FilePath | None = Field(
        None, description="A WAV file of 16 bit PCM; heard first."
    )
    transfer: str = Field(
        "",
        pattern=r"^((sips?|tel):[^\s<>\"]{1,255})?$",
        description="A SIP or telephone address; the caller is handed there (REFER).",
    )

    @field_validator("announcement", mode="before")
    @classmethod
    def _may_be_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("announcement")
    @classmethod
    def _can_be_played(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_wav(path)
        return path


class ToolUseSettings(BaseModel):
    """The part of `[tools]` that the call itself keeps to, whatever the tools are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filler_after_s: float = Field(
        1.5, ge=0, le=60, description="A tool may be silent for so long; 0: as long as it likes."
    )
    duplicate_window_s: float = Field(
        10,
        ge=0,
        le=600,
        description="The same call again within this time is a retry of the first.",
    )
    max_calls_per_call: int = Field(100, ge=1, le=10_000)
    max_calls_at_once: int = Field(8, ge=1, le=64)
    max_failures_in_row: int = Field(
        5, ge=1, le=100, description="Then the agent must speak with the caller first."
    )
    max_calls: Mapping[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="How often a tool may be called in one call, by its name."
    )


class RecordingSettings(BaseModel):
    """`[recording]`: not built yet, so only `enabled = false` is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: Literal[False] = False
    folder: str = "recordings"
