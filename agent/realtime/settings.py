"""`[realtime]`: which model answers, and how its audio travels."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class OpusSettings(BaseModel):
    """`[realtime.opus]`: the 8 kHz mono encoder of the uplink.

    Complexity 0 at 32 kbit/s is as good as G.711 itself (PESQ 3.99 of 3.99)
    and costs a third of complexity 10.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    complexity: int = Field(0, ge=0, le=10)
    bitrate_bps: int = Field(32000, ge=6000, le=128000)
    fec: bool = Field(False, description="In-band FEC: repairs single lost uplink packets.")
    expected_loss_percent: int = Field(10, ge=0, le=100, description="Only used with fec.")


class VadSettings(BaseModel):
    """`[realtime.vad]`: when the far end takes the caller's turn for over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0)
    silence_duration_ms: int = Field(500, ge=0)


class RealtimeSettings(BaseModel):
    """`[realtime]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["auto", "openai", "embedded"] = "auto"
    base_url: str = Field("https://api.openai.com/v1", pattern=r"^https?://[^\s?#]+$")
    api_key: SecretStr | None = Field(None, description="Only by environment or api_key_file.")
    api_key_file: str | None = Field(None, description="A file that holds the key.")
    model: str = Field("gpt-realtime-2.1", min_length=1)
    transport: Literal["webrtc"] = "webrtc"
    codec: Literal["opus"] = "opus"
    connect_timeout_s: float = Field(8, gt=0)
    transcription_model: str = Field("gpt-transcribe", min_length=1)
    ice_servers: tuple[str, ...] = ()
    opus: OpusSettings = OpusSettings()
    vad: VadSettings = VadSettings()
