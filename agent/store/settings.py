"""`[database]`: where the call log lives."""

from pydantic import BaseModel, ConfigDict, Field


class DatabaseSettings(BaseModel):
    """`[database]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        "sqlite:///trunkline.db",
        pattern=r"^(sqlite:///.+|postgresql://.+)$",
        description="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME",
    )
