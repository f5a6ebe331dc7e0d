"""`[tools]`: what agents may do, and where it gets done.

Secrets are never values of the file: `*_file` names a file that holds one, `*_env` a
variable of the environment. Whoever reads the configuration fills in `secret_headers`,
`secret_env` and `base_env`; none of them may stand in the file.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from agent.call.settings import ToolUseSettings
from agent.tools.arguments import ArgumentCheck

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Timeout = Annotated[float, Field(gt=0, le=120)]

BUILT_IN_TOOLS = (
    "hang_up",
    "transfer",
    "send_dtmf",
    "collect_digits",
    "take_message",
    "weather",
    "current_time",
)
"""`transfer` is offered to the model only where there are targets."""

INHERITED_VARIABLES = ("HOME", "LANG", "LOGNAME", "PATH", "TERM", "TMPDIR", "USER")
"""What of our environment an MCP server sees: none of our keys are among it."""

_SECRET_HEADERS = {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"}
_SECRET_VARIABLE = re.compile(r"(?i)token|secret|password|api_?key")


class WeatherSettings(BaseModel):
    """`[tools.weather]`: two HTTP services in Open-Meteo's form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    geocoding_url: str = Field(
        "https://geocoding-api.open-meteo.com/v1/search", pattern=r"^https?://\S+$"
    )
    forecast_url: str = Field("https://api.open-meteo.com/v1/forecast", pattern=r"^https?://\S+$")
    timeout_s: float = Field(5, gt=0)


class TransferTarget(BaseModel):
    """One `[[tools.transfer.targets]]`: somebody a caller may be handed to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    description: str = Field("", max_length=500)
    uri: str = Field(pattern=r'^(sips?|tel):[^\s<>"]{1,255}$')


class TransferSettings(BaseModel):
    """`[tools.transfer]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: tuple[TransferTarget, ...] = ()

    @field_validator("targets")
    @classmethod
    def _each_name_once(cls, targets: tuple[TransferTarget, ...]) -> tuple[TransferTarget, ...]:
        names = [target.name for target in targets]
        if len(set(names)) < len(names):
            raise ValueError("each name once")
        return targets


class PythonToolSettings(BaseModel):
    """One `[[tools.python]]`: a function of a module that can be imported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    name: ToolName = Field(default_factory=lambda data: data.get("function", ":x").split(":")[-1])
    timeout_s: Timeout = 10


class HttpToolSettings(BaseModel):
    """One `[[tools.http]]`: a request to a service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ToolName
    description: str = Field(min_length=1, max_length=2_000)
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: str = Field(max_length=2_000)
    parameters: Mapping[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}, "additionalProperties": False}
    )
    headers: Mapping[str, str] = Field(default_factory=dict)
    headers_file: Mapping[str, Path] = Field(default_factory=dict)
    headers_env: Mapping[str, str] = Field(default_factory=dict)
    secret_headers: Mapping[str, SecretStr] = Field(default_factory=dict, repr=False)
    timeout_s: Timeout = 5
    max_bytes: int = Field(100_000, ge=1, le=1_000_000)
    allow_private: bool = False

    @property
    def host(self) -> str:
        """Where it is sent."""
        return urlsplit(self.url).hostname or ""

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        return _plain_headers(headers)

    @model_validator(mode="after")
    def _fits_together(self) -> "HttpToolSettings":
        check_url(self.url)
        ArgumentCheck(self.parameters)
        parts = urlsplit(self.url)
        wanted = set(_placeholders(parts.path)) | set(_placeholders(parts.query))
        if set(_placeholders(self.url)) - wanted:
            raise ValueError("url: a placeholder may stand in the path or the query only")
        missing = sorted(wanted - set(self.parameters.get("required", ())))
        if missing:
            raise ValueError(
                f"url: {{{missing[0]}}} must be among the required of parameters, so that it is"
                " always there"
            )
        return self


class McpServerSettings(BaseModel):
    """One `[[tools.mcp]]`: a server of the Model Context Protocol."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,23}$")]
    command: tuple[str, ...] = ()
    url: str = Field("", max_length=2_000)
    tools: tuple[str, ...] = Field(min_length=1)
    """What may be used of it, by its own names; `*` for all it has."""
    env: Mapping[str, str] = Field(default_factory=dict)
    env_file: Mapping[str, Path] = Field(default_factory=dict)
    env_from: tuple[str, ...] = ()
    secret_env: Mapping[str, SecretStr] = Field(default_factory=dict, repr=False)
    base_env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """PATH and the like of our own environment."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    headers_file: Mapping[str, Path] = Field(default_factory=dict)
    headers_env: Mapping[str, str] = Field(default_factory=dict)
    secret_headers: Mapping[str, SecretStr] = Field(default_factory=dict, repr=False)
    timeout_s: Timeout = 10
    connect_timeout_s: Timeout = 15
    allow_private: bool = False

    @field_validator("headers")
    @classmethod
    def _no_secret_headers(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        return _plain_headers(headers)

    @field_validator("env")
    @classmethod
    def _no_secret_env(cls, env: Mapping[str, str]) -> Mapping[str, str]:
        for name in env:
            if _SECRET_VARIABLE.search(name):
                raise ValueError(
                    f"only what is no secret ({name} looks like one); use env_file or env_from"
                )
        return env

    @model_validator(mode="after")
    def _one_way_in(self) -> "McpServerSettings":
        if bool(self.command) == bool(self.url):
            raise ValueError("either a command or a url")
        if self.url:
            check_url(self.url)
        return self


class ToolSettings(ToolUseSettings):
    """`[tools]`."""

    max_output_chars: int = Field(
        16_000, ge=100, le=100_000, description="A longer answer is not given to the model."
    )
    http_hosts: tuple[str, ...] = Field(
        (), description="Hosts that HTTP tools may be sent to; empty: those of their URLs."
    )
    weather: WeatherSettings = WeatherSettings()
    transfer: TransferSettings = TransferSettings()
    python: tuple[PythonToolSettings, ...] = ()
    http: tuple[HttpToolSettings, ...] = ()
    mcp: tuple[McpServerSettings, ...] = ()

    @model_validator(mode="after")
    def _names_and_hosts(self) -> "ToolSettings":
        names = [*BUILT_IN_TOOLS, *(t.name for t in self.python), *(t.name for t in self.http)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} names two tools; accepted is each name once")
        servers = [server.name for server in self.mcp]
        if len(set(servers)) < len(servers):
            raise ValueError("mcp: accepted is each name once")
        for tool in self.http:
            if self.http_hosts and tool.host not in self.http_hosts:
                raise ValueError(
                    f"http.{tool.name}.url: found the host {tool.host!r}, accepted are those of"
                    f" tools.http_hosts: {', '.join(self.http_hosts)}"
                )
        return self

    def knows(self, name: str) -> bool:
        """Tell whether an agent may list this name: a tool, `SERVER.TOOL` or `SERVER.*`."""
        server_name, dot, tool_name = name.partition(".")
        if dot:
            allowed = {server.name: server.tools for server in self.mcp}.get(server_name, ())
            return bool(allowed) and (tool_name in ("*", *allowed) or "*" in allowed)
        return name in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """What an agent may list, with `SERVER.*` for each MCP server."""
        own = (*(tool.name for tool in self.python), *(tool.name for tool in self.http))
        return (*BUILT_IN_TOOLS, *own, *(f"{server.name}.*" for server in self.mcp))


def check_url(url: str) -> None:
    """Refuse what is no plain address of an HTTP service.

    Raises:
        ValueError: Saying what is accepted.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    if (
        not port_is_fine
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or re.search(r"[\s{}]", parts.netloc)
        or not url.isprintable()
    ):
        raise ValueError("url: http:// or https:// and a host are accepted")
    if parts.username is not None or parts.password is not None:
        raise ValueError("url: no name and password in it; use headers_file or headers_env")
    _placeholders(url)


def _placeholders(template: str) -> list[str]:
    try:
        fields = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"url: {error}") from None
    names = [name for _, name, _, _ in fields if name is not None]
    for _, name, form, conversion in fields:
        if name is not None and (form or conversion or not name.isidentifier()):
            raise ValueError("url: a placeholder is written {name}")
    return names


def _plain_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if name.lower() in _SECRET_HEADERS:
            raise ValueError(
                f"only what is no secret ({name} is one); use headers_file or headers_env"
            )
        if not value.isprintable() or not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise ValueError(f"{name!r} is no header")
    return headers
