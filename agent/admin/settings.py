"""`[admin]`: where the API and the page are served."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class AdminSettings(BaseModel):
    """`[admin]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = Field("127.0.0.1:8080", pattern=r"^.+:\d{1,5}$")
    token: SecretStr | None = Field(
        None, description="Only by environment; without one, a token is made at first start."
    )
    token_file: str | None = Field(None, description="A file that holds the token.")
