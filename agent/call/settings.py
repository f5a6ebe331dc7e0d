"""What a call may be told by configuration."""

from typing import Literal

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


class RecordingSettings(BaseModel):
    """`[recording]`: not built yet, so only `enabled = false` is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: Literal[False] = False
    folder: str = "recordings"
