"""`[tools.*]`: where the built-in tools get their answers."""

from pydantic import BaseModel, ConfigDict, Field

from agent.call.settings import ToolUseSettings


class WeatherSettings(BaseModel):
    """`[tools.weather]`: two HTTP services in Open-Meteo's form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    geocoding_url: str = Field(
        "https://geocoding-api.open-meteo.com/v1/search", pattern=r"^https?://\S+$"
    )
    forecast_url: str = Field("https://api.open-meteo.com/v1/forecast", pattern=r"^https?://\S+$")
    timeout_s: float = Field(5, gt=0)


class ToolSettings(ToolUseSettings):
    """`[tools]`."""

    weather: WeatherSettings = WeatherSettings()
