"""`[embedded]`: the offline Realtime server."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class EmbeddedSettings(BaseModel):
    """`[embedded]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = Field(
        "127.0.0.1:0", pattern=r"^.+:\d{1,5}$", description="Port 0: any free port."
    )
    facts_file: Path | None = Field(
        None, description="YAML with what the receptionist knows; a bakery when absent."
    )
    chat_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="An OpenAI-compatible chat completions base URL, such as "
        "http://127.0.0.1:11434/v1; answers instead of the rules.",
    )
    chat_model: str = Field("default", min_length=1, description="As that server names it.")
    chat_timeout_s: float = Field(
        10, gt=0, le=120, description="How long a caller waits for its first, or its next, words."
    )
    chat_api_key: SecretStr | None = Field(None, description="Only by environment.")
    api_key: SecretStr | None = Field(
        None, description="What clients must send as bearer; anyone may speak when absent."
    )
    max_sessions: int = Field(20, ge=1, description="More are refused with 429.")
    session_limit_s: float = Field(
        3600, gt=0, description="How long a session may last; the service's are 60 minutes."
    )
