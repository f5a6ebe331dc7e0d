"""What a call may be told by configuration."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class LimitSettings(BaseModel):
    """`[limits]`: how long things may take."""

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
