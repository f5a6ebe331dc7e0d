"""The script of a Realtime server that only plays a part: what it hears, answers and breaks.

A YAML file becomes one frozen `Script`::

    file -> load_script() -> Script -> doorstep.py  what happens to offers
                                    -> stage.py     what is heard and answered
                                    -> faults.py    what goes wrong on the way out

Nothing here plays anything. By example: docs/realtime-script.md.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

_MOST_WAIT_S = 3600
_MOST_EVENT_BYTES = 1_000_000


class ScriptError(ValueError):
    """The script cannot be played; the text names the key, what was found and what is accepted."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OfferManners(_Part):
    """How one SDP offer is received; the defaults are polite."""

    delay_s: float = Field(0, ge=0, le=_MOST_WAIT_S, description="How long the reply takes.")
    status: int = Field(201, description="201, or a refusal with this status.")
    retry_after_s: int | None = Field(None, ge=0, description="The Retry-After of a refusal.")
    code: str = Field("scripted_refusal", description="The error code of a refusal.")
    message: str = Field("The script says no.", description="The error message of a refusal.")
    silent: bool = Field(False, description="The request is taken and never answered.")
    answer: str | None = Field(None, description="Sent in place of the SDP answer.")

    @model_validator(mode="after")
    def _status_is_known(self) -> "OfferManners":
        if self.status != 201 and not 400 <= self.status <= 599:
            raise ValueError(f"status: found {self.status}, accepted: 201 or 400 to 599")
        return self


class ScriptStep(_Part):
    """One thing the agent does: says a text, or calls a tool and waits for its output."""

    say: str | None = Field(None, min_length=1, description="{output} is the last tool's output.")
    after_s: float = Field(0, ge=0, le=_MOST_WAIT_S, description="How long the voice takes.")
    silent: bool = Field(False, description="Every event of speech, and not a sound.")
    call: str | None = Field(None, min_length=1, description="The tool's name.")
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_one_thing(self) -> "ScriptStep":
        if (self.say is None) == (self.call is None):
            raise ValueError("found neither or both of say and call, accepted: one of them")
        if self.call is not None and (self.after_s or self.silent):
            raise ValueError("found after_s or silent beside call, accepted: only beside say")
        if self.say is not None and self.arguments:
            raise ValueError("found arguments beside say, accepted: only beside call")
        return self


class ScriptTurn(_Part):
    """One turn of the caller and what answers it."""

    hear: str | None = Field(None, description="The words heard, whatever was said.")
    hear_after_s: float = Field(0, ge=0, le=60, description="How long hearing takes.")
    answer: tuple[ScriptStep, ...] = ()


class ScriptFault(_Part):
    """One thing that goes wrong, once in each session."""

    at: float | str = Field(
        description="Seconds after the session began, or the type of an event; '*' is any event."
    )
    nth: int = Field(1, ge=1, description="Which event of that type.")
    do: Literal[
        "drop", "freeze", "mute", "expire", "send", "repeat", "hold", "omit", "fail_response"
    ]
    event: dict[str, Any] | None = Field(None, description="What `send` sends.")
    text: str | None = Field(None, description="What `send` sends, as it is.")
    size_bytes: int = Field(0, ge=0, le=_MOST_EVENT_BYTES, description="Sent at this length.")
    code: str = Field("rate_limit_exceeded", description="Why `fail_response` failed.")

    @model_validator(mode="after")
    def _fits(self) -> "ScriptFault":
        if isinstance(self.at, float) and not 0 <= self.at <= _MOST_WAIT_S:
            raise ValueError(f"at: found {self.at:g}, accepted: 0 to {_MOST_WAIT_S} seconds")
        if (self.do == "send") != ((self.event is None) != (self.text is None)):
            raise ValueError("do: send takes either event or text; nothing else takes them")
        if self.do in {"repeat", "hold", "omit"} and isinstance(self.at, float):
            raise ValueError(f"at: found seconds, accepted with do: {self.do}: a type of event")
        if self.do == "fail_response" and self.at != "response.done":
            raise ValueError("do: fail_response is accepted only with at: response.done")
        return self


class Script(_Part):
    """The whole part, played from the start in every session."""

    offers: tuple[OfferManners, ...] = Field(
        (), description="The first offer, the second ...; the last entry is for all others."
    )
    channel: bool = Field(True, description="False: the data channel never opens.")
    greeting: str | None = Field(None, description="Said when the client asks for a greeting.")
    turns: tuple[ScriptTurn, ...] = ()
    otherwise: str = Field("The script ends here.", description="Said after the last turn.")
    faults: tuple[ScriptFault, ...] = ()


def load_script(file: Path) -> Script:
    """Read and check a script.

    Args:
        file: YAML in UTF-8.

    Raises:
        ScriptError: It cannot be read or played; one line for each finding.
    """
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise ScriptError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        found = " ".join(str(error).split())
        raise ScriptError(f"{file}: found no YAML: {found[:200]}") from None
    if not isinstance(content, dict):
        raise ScriptError(f"{file}: found {content!r:.80}, accepted: {_keys(Script)}")
    try:
        return Script.model_validate(content)
    except ValidationError as error:
        raise ScriptError(_explained(error, file)) from None


_MODELS: dict[str, type[_Part]] = {
    "offers": OfferManners,
    "turns": ScriptTurn,
    "answer": ScriptStep,
    "faults": ScriptFault,
}


def _keys(model: type[_Part]) -> str:
    return ", ".join(model.model_fields)


def _explained(error: ValidationError, file: Path) -> str:
    lines: list[str] = []
    for detail in error.errors():
        names = [part for part in detail["loc"] if part not in {"float", "str"}]
        where = f"{file}: {'.'.join(str(name) for name in names)}"
        message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if detail["type"] == "extra_forbidden":
            within = [name for name in names[:-1] if isinstance(name, str)]
            model = _MODELS[within[-1]] if within else Script
            lines.append(f"{where}: found an unknown key, accepted: {_keys(model)}")
        elif detail["type"] == "missing":
            lines.append(f"{where}: missing; it is required")
        elif detail["type"] == "value_error":
            lines.append(f"{where}: {message}")
        else:
            found = f"{detail['input']!r:.80}"
            lines.append(f"{where}: found {found}, accepted: {message[:1].lower()}{message[1:]}")
    return "\n".join(lines)
