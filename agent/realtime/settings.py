"""`[realtime]`: which model answers, how it is reached, and how its audio travels."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from agent.realtime.session import SessionSettings

_HeaderText = Annotated[str, Field(pattern=r"^[!-~]*$", max_length=256)]


_ICE_URL = re.compile(
    r"stun:[^?:\s]+(:\d+)?|turn:[^?:\s]+(:\d+)?(\?transport=(udp|tcp))?"
    r"|turns:[^?:\s]+(:\d+)?(\?transport=tcp)?"
)


def _ice_url(url: str) -> str:
    if not _ICE_URL.fullmatch(url):
        raise ValueError(
            "stun:HOST[:PORT], turn:HOST[:PORT][?transport=udp|tcp] or turns:HOST[:PORT]"
        )
    return url


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


class IceServerSettings(BaseModel):
    """One of `realtime.ice_servers`: a STUN or TURN server; a URL alone stands for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: tuple[Annotated[str, AfterValidator(_ice_url)], ...] = Field(min_length=1)
    username: str | None = None
    credential: SecretStr | None = Field(
        None, description="Only by credential_file or credential_env."
    )
    credential_file: str | None = Field(None, description="A file that holds the credential.")
    credential_env: str | None = Field(None, description="A variable that holds the credential.")

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("urls"), str):
            value = {**value, "urls": [value["urls"]]}
        return {"urls": [value]} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        is_turn = any(url.startswith("turn") for url in self.urls)
        if is_turn and not (self.username and self.credential):
            raise ValueError("a TURN server with username, and credential_file or credential_env")
        return self


class StandbySettings(SessionSettings):
    """`[realtime.standby]`: asked when the first has no session; what it does not set is the same."""

    provider: Literal["openai", "azure", "embedded"] | None = None
    api_key: SecretStr | None = Field(None, description="Only by environment or api_key_file.")
    api_key_file: str | None = Field(None, description="A file that holds the key.")

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if not self.own() and self.provider is None:
            raise ValueError("at least one of provider, base_url and model")
        return self


class RealtimeSettings(SessionSettings):
    """`[realtime]`: also the defaults of what an agent may have of its own."""

    provider: Literal["auto", "openai", "azure", "embedded"] = "auto"
    api_key: SecretStr | None = Field(None, description="Only by environment or api_key_file.")
    api_key_file: str | None = Field(None, description="A file that holds the key.")
    auth: Literal["key", "ephemeral"] = Field(
        "key",
        description="ephemeral: each call gets a secret of its own, and goes without the key.",
    )
    secret_life_s: int = Field(
        60, ge=10, le=7200, description="How long such a secret can open sessions."
    )
    organization: _HeaderText = ""
    project: _HeaderText = ""
    safety_key: SecretStr | None = Field(
        None, description="Only by environment or safety_key_file; made at first start otherwise."
    )
    safety_key_file: str | None = Field(None, description="A file that holds the safety key.")
    warm_every_s: float = Field(
        25, ge=0, le=3600, description="How often an idle connection is used; 0: never."
    )
    transport: Literal["webrtc", "websocket"] = "webrtc"
    codec: Literal["opus", "pcmu", "pcma", "auto"] = Field(
        "opus",
        description="auto: the caller's law first, Opus second, and what the far end takes."
        " A WebSocket knows no Opus: it carries the caller's law unless pcmu or pcma is set.",
    )
    connect_timeout_s: float = Field(8, gt=0)
    ice_servers: tuple[IceServerSettings, ...] = ()
    opus: OpusSettings = OpusSettings()
    standby: StandbySettings | None = Field(
        None, description="Asked for a session when there is none to be had."
    )

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.provider == "azure" and "base_url" not in self.model_fields_set:
            raise ValueError(
                'provider = "azure" with base_url = "https://RESOURCE.openai.azure.com/openai/v1"'
            )
        urls = [url for server in self.ice_servers for url in server.urls]
        for kind in ("stun", "turn"):
            if sum(url.startswith(kind) for url in urls) > 1:
                raise ValueError(f"ice_servers with one {kind.upper()} URL at most")
        return self

    @property
    def uses_secrets(self) -> bool:
        """A WebRTC call is opened with a secret of its own; Azure takes nothing else."""
        return self.auth == "ephemeral" or self.provider == "azure"
