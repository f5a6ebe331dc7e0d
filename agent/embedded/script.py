"""The script of a Realtime server that only plays a part: what it hears, answers and breaks.

A YAML file becomes one frozen `Script`::

    file -> load_script() -> Script -> doorstep.py  what happens to offers
                                    -> stage.py     what is heard and answered
                                    -> faults.py    what goes wrong on the way out

Nothing here plays anything. By example: docs/realtime-script.md.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from agent.audio.wav import read_wav, tone

_MOST_WAIT_S = 3600
_MOST_EVENT_BYTES = 1_000_000
_MOST_SOUND_MS = 600_000
_MOST_DELAY_MS = 10_000

CHANGING = frozenset({"repeat", "hold", "omit", "fail_response"})
"""Faults that change a server event on its way out."""
ANSWERING = frozenset({"refuse", "ignore"})
"""Faults that meet a client event in the session's place."""
OF_RTP = frozenset({"lose", "duplicate", "reorder", "delay", "jitter"})
"""Faults of the agent's RTP packets, from then on."""
CLIENT_EVENTS = frozenset(
    {
        "session.update",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "input_audio_buffer.clear",
        "output_audio_buffer.clear",
        "conversation.item.create",
        "conversation.item.retrieve",
        "conversation.item.truncate",
        "conversation.item.delete",
        "response.create",
        "response.cancel",
    }
)
CUE = "cue."
"""Begins the types of events that are meant for the script alone."""


class ScriptError(ValueError):
    """The script cannot be played; the text names the key, what was found and what is accepted."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Replacement(_Part):
    """What is altered in an SDP answer."""

    find: str = Field(description="A regular expression; `^` and `$` are at every line.")
    put: str = Field("", description="What takes the place of all it finds, \\1 as in `re.sub`.")

    @model_validator(mode="after")
    def _is_a_pattern(self) -> "Replacement":
        try:
            self.applied("")
        except (re.error, IndexError) as error:
            raise ValueError(f"found {self.find!r:.80}, no regular expression: {error}") from None
        return self

    def applied(self, sdp: str) -> str:
        """The SDP with the replacement made."""
        return re.sub(self.find, self.put, sdp, flags=re.MULTILINE)


class OfferManners(_Part):
    """How one SDP offer is received; the defaults are polite."""

    delay_s: float = Field(0, ge=0, le=_MOST_WAIT_S, description="How long the reply takes.")
    status: int = Field(201, description="201, or a refusal with this status.")
    headers: dict[str, str | int] = Field(default_factory=dict, description="Added to the reply.")
    error: dict[str, Any] = Field(default_factory=dict, description="Fields of a refusal's error.")
    silent: bool = Field(False, description="The request is taken and never answered.")
    answer: str | None = Field(None, description="Sent in place of the SDP answer.")
    alter: tuple[Replacement, ...] = Field((), description="Done to the SDP answer, in order.")
    location: bool = Field(True, description="False: the reply does not name the call.")

    @model_validator(mode="after")
    def _status_is_known(self) -> "OfferManners":
        if self.status != 201 and not 400 <= self.status <= 599:
            raise ValueError(f"status: found {self.status}, accepted: 201 or 400 to 599")
        if self.status == 201 and self.error:
            raise ValueError("found error with status 201, accepted: only with a refusal's status")
        if self.answer is not None and self.alter:
            raise ValueError("found both answer and alter, accepted: one of them")
        return self


class ScriptStep(_Part):
    """One thing the agent does: says a text, or calls a tool and waits for its output."""

    say: str | None = Field(None, min_length=1, description="{output} is the last tool's output.")
    after_s: float = Field(0, ge=0, le=_MOST_WAIT_S, description="How long the voice takes.")
    silent: bool = Field(False, description="Every event of speech, and not a sound.")
    tone_hz: float | None = Field(None, gt=0, lt=4000, description="Heard in place of the voice.")
    tone_ms: int = Field(0, ge=0, le=_MOST_SOUND_MS, description="How long the tone is.")
    wav: Path | None = Field(None, description="Heard in place of the voice; beside the script.")
    call: str | None = Field(None, min_length=1, description="The tool's name.")
    arguments: dict[str, Any] = Field(default_factory=dict)
    _sound: bytes | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _is_one_thing(self) -> "ScriptStep":
        if (self.say is None) == (self.call is None):
            raise ValueError("found neither or both of say and call, accepted: one of them")
        beside_say = {"after_s", "silent", "tone_hz", "tone_ms", "wav"} & self.model_fields_set
        if self.call is not None and beside_say:
            found = " and ".join(sorted(beside_say))
            raise ValueError(f"found {found} beside call, accepted: only beside say")
        if self.say is not None and self.arguments:
            raise ValueError("found arguments beside say, accepted: only beside call")
        if (self.tone_hz is None) != (self.tone_ms == 0):
            raise ValueError("found one of tone_hz and tone_ms, accepted: both or neither")
        if self.tone_hz is not None and self.wav is not None:
            raise ValueError("found both tone_hz and wav, accepted: one of them")
        return self

    @model_validator(mode="after")
    def _makes_its_sound(self, info: ValidationInfo) -> "ScriptStep":
        if self.tone_hz is not None:
            self._sound = tone(self.tone_hz, self.tone_ms)
        elif self.wav is not None:
            folder: Path = (info.context or {}).get("folder", Path())
            self._sound = read_wav(folder / self.wav)
        return self

    @property
    def sound(self) -> bytes | None:
        """What is heard, 8 kHz PCM; None leaves it to the voice."""
        return self._sound


class ScriptTurn(_Part):
    """One turn of the caller and what answers it."""

    hear: str | None = Field(None, description="The words heard, whatever was said.")
    hear_after_s: float = Field(0, ge=0, le=60, description="How long hearing takes.")
    answer: tuple[ScriptStep, ...] = ()


class ScriptFault(_Part):
    """One thing that goes wrong, once in each session."""

    at: float | str = Field(
        description="Seconds after the session began, or the type of an event, the server's or "
        "the client's; '*' is any event of the server."
    )
    nth: int = Field(1, ge=1, description="Which event of that type.")
    after_s: float = Field(0, ge=0, le=_MOST_WAIT_S, description="How much later it strikes.")
    do: Literal[
        "drop",
        "freeze",
        "mute",
        "expire",
        "vanish",
        "send",
        "repeat",
        "hold",
        "omit",
        "fail_response",
        "refuse",
        "ignore",
        "lose",
        "duplicate",
        "reorder",
        "delay",
        "jitter",
    ]
    event: dict[str, Any] | None = Field(None, description="What `send` sends.")
    text: str | None = Field(None, description="What `send` sends, as it is.")
    hex: str | None = Field(None, description="What `send` sends: a text of these bytes.")
    size_bytes: int = Field(0, ge=0, le=_MOST_EVENT_BYTES, description="Sent at this length.")
    error: dict[str, Any] = Field(
        default_factory=dict, description="Fields of the error of `fail_response` and `refuse`."
    )
    packets: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Which RTP packets from then on; the first is 0."
    )
    every: int = Field(0, ge=0, description="The last of so many RTP packets, again and again.")
    delay_ms: int = Field(0, ge=0, le=_MOST_DELAY_MS, description="How late RTP packets leave.")

    @model_validator(mode="after")
    def _is_at_its_place(self) -> "ScriptFault":
        if isinstance(self.at, float) and not 0 <= self.at <= _MOST_WAIT_S:
            raise ValueError(f"at: found {self.at:g}, accepted: 0 to {_MOST_WAIT_S} seconds")
        accepted = None
        if self.do in CHANGING and (isinstance(self.at, float) or self.is_at_client_event):
            accepted = "a type of the server's events"
        elif self.do in ANSWERING and self.at not in CLIENT_EVENTS:
            accepted = f"one of {', '.join(sorted(CLIENT_EVENTS))}"
        elif self.do == "fail_response" and self.at != "response.done":
            accepted = "response.done"
        if accepted:
            found = f"{self.at:g} s" if isinstance(self.at, float) else self.at
            raise ValueError(f"at: found {found}, accepted with do: {self.do}: {accepted}")
        if self.after_s and self.do in CHANGING | ANSWERING:
            raise ValueError(f"found after_s, not accepted with do: {self.do}")
        return self

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "ScriptFault":
        messages = sum(found is not None for found in (self.event, self.text, self.hex))
        if (self.do == "send") != (messages == 1) or messages > 1:
            raise ValueError("do: send takes one of event, text and hex; nothing else takes them")
        if self.hex is not None:
            try:
                bytes.fromhex(self.hex)
            except ValueError:
                raise ValueError(
                    f"hex: found {self.hex!r:.80}, accepted: two digits a byte"
                ) from None
        if self.error and self.do not in {"fail_response", "refuse"}:
            raise ValueError("found error, accepted only with do: fail_response or refuse")
        is_of_rtp = self.do in OF_RTP
        if is_of_rtp != bool(self.packets) + bool(self.every) or (self.packets and self.every):
            raise ValueError(
                f"do: {', '.join(sorted(OF_RTP))} take either packets or every; nothing else does"
            )
        if (self.do in {"delay", "jitter"}) != (self.delay_ms > 0):
            raise ValueError("do: delay and do: jitter take delay_ms; nothing else does")
        return self

    @property
    def is_at_client_event(self) -> bool:
        """Whether a message of the client sets it off."""
        return self.at in CLIENT_EVENTS or str(self.at).startswith(CUE)


class Script(_Part):
    """The whole part, played from the start in every session."""

    offers: tuple[OfferManners, ...] = Field(
        (), description="The first offer, the second ...; the last entry is for all others."
    )
    channel: bool = Field(True, description="False: the data channel never opens.")
    echo: bool = Field(False, description="RTP goes back as it came; nothing is heard or spoken.")
    greeting: str | None = Field(None, description="Said when the client asks for a greeting.")
    turns: tuple[ScriptTurn, ...] = ()
    otherwise: str = Field(
        "The script ends here.", min_length=1, description="Said after the last turn."
    )
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
        return Script.model_validate(content, context={"folder": file.parent})
    except ValidationError as error:
        raise ScriptError(_explained(error, file)) from None


_MODELS: dict[str, type[_Part]] = {
    "offers": OfferManners,
    "alter": Replacement,
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
