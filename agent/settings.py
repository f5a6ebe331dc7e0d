"""The configuration: one TOML file, the environment, and nothing else.

Read once, at the start; every room is handed its own frozen part. A key of the
file can be replaced by `TRUNKLINE_<SECTION>__<KEY>`; secrets come only from the
environment or from a `*_file`.
"""

import os
import tomllib
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from agent.admin.settings import AdminSettings
from agent.call.cost import PriceList
from agent.call.instructions import VARIABLES, UnknownVariable, headers_of, variables_of
from agent.call.settings import (
    FallbackSettings,
    IdleSettings,
    InterruptionSettings,
    LimitSettings,
    PriceSettings,
    RecordingSettings,
    RecoverySettings,
    WatchdogSettings,
)
from agent.embedded.settings import EmbeddedSettings
from agent.realtime.session import SessionSettings, with_own
from agent.realtime.settings import RealtimeSettings
from agent.store.settings import DatabaseSettings
from agent.tools.settings import INHERITED_VARIABLES, ToolSettings
from sip.settings import RouteSettings, SipSettings, TrunkSettings

_PREFIX = "TRUNKLINE_"
_SHIPPED_PRICES = Path(__file__).with_name("prices.toml")
_OTHER_VARIABLES = {"TRUNKLINE_CONFIG", "TRUNKLINE_ADMIN_TOKEN"}
_SECRETS = {
    ("realtime", "api_key"): "OPENAI_API_KEY, TRUNKLINE_REALTIME__API_KEY or realtime.api_key_file",
    ("realtime", "safety_key"): ("TRUNKLINE_REALTIME__SAFETY_KEY or realtime.safety_key_file"),
    ("embedded", "chat_api_key"): "TRUNKLINE_EMBEDDED__CHAT_API_KEY",
    ("embedded", "api_key"): "TRUNKLINE_EMBEDDED__API_KEY",
    ("admin", "token"): "TRUNKLINE_ADMIN_TOKEN or admin.token_file",
}
_SECRET_WORDS = ("key", "token", "password", "secret", "url", "headers", "env", "credential")


class ConfigurationError(Exception):
    """The configuration cannot be used; the text names file, key, value and what is accepted."""


class AgentSettings(SessionSettings):
    """One `[[agents]]` table: who answers, and what is not as `[realtime]` has it."""

    name: str = Field(min_length=1, max_length=64)
    instructions: str = Field(
        "You answer the phone for a bakery. Be brief and friendly; this is a telephone call.",
        max_length=64_000,
    )
    greeting: str = Field("Hello, this is the bakery. How can I help?", max_length=1_000)
    initial_message: str = Field(
        "",
        max_length=8_000,
        description="Put into the conversation first; with an empty greeting, the agent answers it.",
    )
    tools: tuple[str, ...] = ("hang_up", "weather")
    tool_filler: str = Field(
        "", max_length=500, description="Said while a tool takes long; empty: a soft tone."
    )
    timezone: str = "UTC"
    interruption: InterruptionSettings | None = Field(
        None, description="Replaces [interruption] for this agent."
    )
    idle: IdleSettings | None = Field(None, description="Replaces [idle] for this agent.")

    @field_validator("instructions", "initial_message")
    @classmethod
    def _has_known_variables(cls, text: str) -> str:
        try:
            deque(variables_of(text), maxlen=0)
        except UnknownVariable as unknown:
            known = ", ".join(f"{{{name}}}" for name in (*VARIABLES, "header:NAME"))
            raise ValueError(
                f"variables {known}, not {{{unknown}}}; write {{{{{unknown}}}}} for the text itself"
            ) from None
        return text

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("an IANA name such as Europe/Lisbon") from None


class LogSettings(BaseModel):
    """`[log]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """Everything that can be configured, by room."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    sip: SipSettings = SipSettings()
    realtime: RealtimeSettings = RealtimeSettings()
    database: DatabaseSettings = DatabaseSettings()
    admin: AdminSettings = AdminSettings()
    recording: RecordingSettings = RecordingSettings()
    limits: LimitSettings = LimitSettings()
    interruption: InterruptionSettings = InterruptionSettings()
    idle: IdleSettings = IdleSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    recovery: RecoverySettings = RecoverySettings()
    fallback: FallbackSettings = FallbackSettings()
    tools: ToolSettings = ToolSettings()
    embedded: EmbeddedSettings = EmbeddedSettings()
    log: LogSettings = LogSettings()
    prices: tuple[PriceSettings, ...] = ()
    agents: tuple[AgentSettings, ...] = ()
    trunks: tuple[TrunkSettings, ...] = ()
    routes: tuple[RouteSettings, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which comes in as `init_settings`."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _refer_to_what_exists(self) -> "Settings":
        _once("agents", (agent.name for agent in self.agents))
        _once("trunks", (trunk.name for trunk in self.trunks))
        _once("routes", (route.did for route in self.routes))
        _once("prices", (f"{price.model} from {price.from_day}" for price in self.prices))
        names = [agent.name for agent in self.answering_agents]
        for agent in self.agents:
            for tool in agent.tools:
                if not self.tools.knows(tool):
                    raise ValueError(
                        f"agents.{agent.name}.tools: found {tool!r},"
                        f" accepted are: {', '.join(self.tools.names)}"
                    )
            self._let_headers_in(agent)
        for route in self.routes:
            if route.agent not in names:
                raise ValueError(
                    f"routes.{route.did}.agent: found {route.agent!r},"
                    f" accepted are the names under [[agents]]: {', '.join(names)}"
                )
        return self

    def _let_headers_in(self, agent: AgentSettings) -> None:
        let_in = {header.lower() for trunk in self.trunks for header in trunk.headers}
        for key in ("instructions", "initial_message"):
            for header in sorted(headers_of(getattr(agent, key))):
                if header.lower() not in let_in:
                    raise ValueError(
                        f"agents.{agent.name}.{key}: found {{header:{header}}}, which no trunk"
                        f' lets in; accepted with headers = ["{header}"] under [[trunks]]'
                    )

    @property
    def answering_agents(self) -> tuple[AgentSettings, ...]:
        """The configured agents, or the built-in one."""
        return self.agents or (AgentSettings(name="receptionist"),)

    @property
    def provider(self) -> Literal["openai", "azure", "embedded"]:
        """Who the caller will talk to: with no key and no wish, the embedded server."""
        if self.realtime.provider == "auto":
            return "openai" if self.realtime.api_key else "embedded"
        return self.realtime.provider

    @property
    def uses_embedded(self) -> bool:
        """The embedded server is needed, at first or as the stand-by."""
        standby = self.realtime.standby
        return "embedded" in (self.provider, standby.provider if standby else None)

    @property
    def price_list(self) -> PriceList:
        """What models cost: as configured, or else as shipped in `agent/prices.toml`."""
        shipped = tomllib.loads(_SHIPPED_PRICES.read_text(encoding="utf-8"))["prices"]
        own = {price.model for price in self.prices}
        others = (PriceSettings.model_validate(p) for p in shipped if p["model"] not in own)
        return PriceList((*self.prices, *others))

    @property
    def billed_models(self) -> tuple[str, ...]:
        """The models that calls are charged for, each once."""
        if self.provider == "embedded":
            return ("embedded",)
        sessions: list[SessionSettings] = [
            with_own(self.realtime, agent.own()) for agent in self.answering_agents
        ]
        if (standby := self.realtime.standby) and standby.provider != "embedded":
            sessions.append(with_own(self.realtime, standby.own()))
        models = [each.model for each in sessions] + [each.transcription.model for each in sessions]
        return tuple(dict.fromkeys(models))


def load_settings(
    path: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Find, read and check the configuration.

    Args:
        path: The file named with `-c`; otherwise `$TRUNKLINE_CONFIG`, then
            `./trunkline.toml`, then `/etc/trunkline/trunkline.toml`, then none.
        environment: Looked into for `TRUNKLINE_CONFIG` and secrets; the
            process's own by default.

    Raises:
        ConfigurationError: With one message fit for stderr.
    """
    environment = os.environ if environment is None else environment
    file = _find(path, environment)
    values = _read(file) if file else {}
    source = str(file) if file else "built-in configuration"
    _refuse_secrets(values, source)
    _refuse_unknown_variables(environment)
    _add_secrets(values, environment, source)
    _add_standby_key(values, environment, source)
    _add_ice_credentials(values, environment, source)
    _add_tool_secrets(values, environment, source)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, source, environment)) from None


def _find(path: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = path or (
        Path(environment["TRUNKLINE_CONFIG"]) if environment.get("TRUNKLINE_CONFIG") else None
    )
    if named is not None:
        if not named.is_file():
            raise ConfigurationError(f"{named}: there is no such file")
        return named
    for candidate in (Path("trunkline.toml"), Path("/etc/trunkline/trunkline.toml")):
        if candidate.is_file():
            return candidate
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: not valid TOML: it is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None


def _refuse_secrets(values: Mapping[str, Any], source: str) -> None:
    for (section, key), instead in _SECRETS.items():
        table = values.get(section)
        if isinstance(table, dict) and key in table:
            raise ConfigurationError(
                f"{source}: {section}.{key}: found a secret in the file;"
                f" accepted only through {instead}"
            )


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    for name in environment:
        if not name.startswith(_PREFIX) or name in _OTHER_VARIABLES:
            continue
        section = name.removeprefix(_PREFIX).split("__")[0].lower()
        if section not in Settings.model_fields:
            known = ", ".join(f"{_PREFIX}{field.upper()}__…" for field in Settings.model_fields)
            raise ConfigurationError(f"environment: {name}: unknown; accepted are: {known}")


def _add_secrets(values: dict[str, Any], environment: Mapping[str, str], source: str) -> None:
    """Fill in secrets from the plain variables and from files named in the configuration."""
    plain = {
        ("realtime", "api_key"): environment.get("OPENAI_API_KEY"),
        ("realtime", "safety_key"): None,
        ("admin", "token"): environment.get("TRUNKLINE_ADMIN_TOKEN"),
    }
    for (section, key), secret in plain.items():
        table = values.setdefault(section, {})
        if not isinstance(table, dict):
            continue
        file_key = f"{key}_file"
        variable = f"{_PREFIX}{section.upper()}__{file_key.upper()}"
        file = environment.get(variable) or table.get(file_key)
        if not secret and isinstance(file, str):
            try:
                secret = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"{source}: {section}.{file_key}: found {file!r}, which cannot be read: {error}"
                ) from None
        if secret:
            table[key] = SecretStr(secret)


def _add_standby_key(values: dict[str, Any], environment: Mapping[str, str], source: str) -> None:
    """Fill in what `realtime.standby.api_key_file` names."""
    realtime = values.get("realtime")
    standby = realtime.get("standby") if isinstance(realtime, dict) else None
    if not isinstance(standby, dict):
        return
    where = f"{source}: realtime.standby"
    if "api_key" in standby:
        raise ConfigurationError(
            f"{where}.api_key: found a secret in the file; accepted only through"
            " TRUNKLINE_REALTIME__STANDBY__API_KEY or realtime.standby.api_key_file"
        )
    if file := standby.get("api_key_file"):
        named = {"secret_file": {"api_key": file}}
        standby |= _secrets_of(named, "secret", environment, where)


def _add_ice_credentials(
    values: dict[str, Any], environment: Mapping[str, str], source: str
) -> None:
    """Fill in what `credential_file` and `credential_env` of ICE servers name."""
    realtime = values.get("realtime")
    servers = realtime.get("ice_servers") if isinstance(realtime, dict) else None
    for index, server in enumerate(servers if isinstance(servers, list) else ()):
        if not isinstance(server, dict):
            continue
        where = f"{source}: realtime.ice_servers.{index}"
        if "credential" in server:
            raise ConfigurationError(
                f"{where}.credential: found a secret in the file;"
                " accepted only through credential_file or credential_env"
            )
        # Read as the one secret of a table of secrets.
        named = {
            f"credential_{by}": {"": server[f"credential_{by}"]}
            for by in ("file", "env")
            if f"credential_{by}" in server
        }
        for secret in _secrets_of(named, "credential", environment, where).values():
            server["credential"] = secret


def _add_tool_secrets(values: dict[str, Any], environment: Mapping[str, str], source: str) -> None:
    """Fill in what `*_file`, `*_env` and `env_from` of tools name; only names are in the file."""
    tools = values.get("tools")
    for kind in ("http", "mcp"):
        entries = tools.get(kind) if isinstance(tools, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict):
                continue
            where = f"{source}: tools.{kind}.{entry.get('name', '?')}"
            for key in ("secret_headers", "secret_env", "base_env"):
                if key in entry:
                    raise ConfigurationError(
                        f"{where}.{key}: unknown key; use headers_file, headers_env, env_file"
                        " or env_from"
                    )
            headers = _secrets_of(entry, "headers", environment, where)
            if headers:
                entry["secret_headers"] = headers
            if kind == "mcp":
                names = entry.get("env_from")
                wanted = {name: name for name in names} if isinstance(names, list) else {}
                entry["secret_env"] = _secrets_of(
                    {**entry, "env_env": wanted}, "env", environment, where
                )
                entry["base_env"] = {
                    name: environment[name] for name in INHERITED_VARIABLES if name in environment
                }


def _secrets_of(
    entry: Mapping[str, Any], key: str, environment: Mapping[str, str], where: str
) -> dict[str, SecretStr]:
    """Read the secrets that a table names by file (`KEY_file`) and by variable (`KEY_env`)."""
    found: dict[str, SecretStr] = {}
    files, variables = entry.get(f"{key}_file"), entry.get(f"{key}_env")
    for name, file in files.items() if isinstance(files, dict) else ():
        try:
            secret = Path(str(file)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{where}.{f'{key}_file.{name}'.rstrip('.')}: found {file!r}, which cannot be read: {error}"
            ) from None
        found[name] = SecretStr(secret)
    for name, variable in variables.items() if isinstance(variables, dict) else ():
        if str(variable) not in environment:
            raise ConfigurationError(
                f"{where}.{f'{key}_env.{name}'.rstrip('.')}: the environment has no {variable}; set it"
            )
        found[name] = SecretStr(environment[str(variable)])
    return found


def _once(section: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{section}: found {name!r} twice, accepted is each name once")
        seen.add(name)


def _explain(error: ValidationError, source: str, environment: Mapping[str, str]) -> str:
    """One line a finding: where, what was found, what is accepted."""
    return "\n".join(_explain_one(detail, source, environment) for detail in error.errors())


def _explain_one(detail: ErrorDetails, source: str, environment: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    variable = _PREFIX + "__".join(str(part).upper() for part in detail["loc"])
    where = f"environment: {variable}" if variable in environment else f"{source}: {key}"
    message = detail["msg"].removeprefix("Value error, ")
    if not key:
        return f"{source}: {message}"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key; accepted are: {', '.join(_known_keys(detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{where}: missing; it is required"
    last = str(detail["loc"][-1])
    found = "a value" if _is_secret(last) else repr(_without_secrets(detail["input"]))
    accepted = message[0].lower() + message[1:]
    accepted = accepted.removeprefix("input should be ").removeprefix("must be ")
    return f"{where}: found {found[:200]}, accepted: {accepted}"


def _is_secret(key: str) -> bool:
    return any(word in key.lower().split("_") for word in _SECRET_WORDS)


def _without_secrets(value: object) -> object:
    """A table as it was found, fit for stderr: what its secrets are is left out."""
    if isinstance(value, Mapping):
        return {
            key: "..." if _is_secret(str(key)) else _without_secrets(inner)
            for key, inner in value.items()
        }
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = Settings
    for part in loc:
        if not isinstance(part, int):
            model = _model_in(model.model_fields[part].annotation)
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> Any:
    """Find the table's class in `Table`, `Table | None` or `tuple[Table, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
