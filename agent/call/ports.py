"""Ports: what a call needs of the world, in the call's own words.

The adapters in `sip`, `agent.realtime`, `agent.store` and `agent.tools`
satisfy these without importing them; `agent.service` plugs them together.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agent.audio.frame import Frame
from agent.call.events import CallEvent
from agent.call.history import Past
from agent.call.records import Ending, Record
from agent.call.settings import (
    IdleSettings,
    InterruptionSettings,
    ToolUseSettings,
    WatchdogSettings,
)


class AgentUnavailable(Exception):
    """No agent could be connected; the caller gets 503 and may try again.

    Attributes:
        reason: Short, for the log and the admin: what was tried and what came back.
        retry_after_s: When another attempt makes sense.
    """

    def __init__(self, reason: str, retry_after_s: int = 5) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class CallOffer:
    """An INVITE we are willing to answer. All text has been through `clean`."""

    call_id: str
    sip_call_id: str
    trunk: str
    did: str
    caller_number: str
    received_s: float
    """When the INVITE was read, on the loop's clock."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those of the INVITE that its trunk may send, by their configured names."""
    line_codec: str = ""
    """How the caller's line will carry voices, in SDP's words; empty while that is open."""


class LineRefused(Exception):
    """The telephone side would not do what was asked; the text says why, in few words."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as the model is told of it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON Schema of the arguments."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool brought back. `output` is what the model reads, also after an error."""

    output: str
    error: str | None = None
    ends_call: bool = False
    """The agent has said or will say goodbye; hang up once it was heard."""
    ending: Ending | None = None
    """The call is over for us, at once: somebody else has the caller now."""
    attempts: int = 1
    """How often it was tried; 0 if it never came to that."""
    is_repeatable: bool = False
    """The same call a moment later is a new wish, not a retry of this one."""


@dataclass(frozen=True, slots=True)
class DigitsWanted:
    """Which keys to wait for."""

    count: int
    """Enough when so many were pressed."""
    terminator: str
    """Enough when one of these was pressed; it is not part of the digits."""
    timeout_s: float
    """How long each key may take."""


@dataclass(frozen=True, slots=True)
class DigitsKeyed:
    """Which keys came, and whether they were enough."""

    digits: str
    reason: Literal["count", "terminator", "timeout"]


class Line(Protocol):
    """What a tool may do with the call it was asked for in."""

    async def transfer(self, target: str) -> None:
        """Hand the caller to a SIP URI, once they have heard what the agent says now.

        Raises:
            LineRefused: Nobody took the caller; the call goes on.
        """
        ...

    def send_digits(self, digits: str) -> None:
        """Press keys towards the caller's side; returns before they have all been sent.

        Raises:
            LineRefused: The far end does not take keys.
        """
        ...

    async def collect_digits(self, wanted: DigitsWanted) -> DigitsKeyed:
        """Wait for the caller's keys; until then they are nobody else's."""
        ...

    def note(self, kind: str, **detail: object) -> None:
        """Keep something with the call, for whoever reads its log."""
        ...


@dataclass(frozen=True, slots=True)
class ToolContext:
    """In which call a tool runs, and for whom. All text has been through `clean`."""

    call_id: str
    agent: str
    trunk: str
    did: str
    caller_number: str
    timezone: str
    """IANA name of the zone the agent speaks of."""
    tools: frozenset[str]
    """Names this agent was offered; no other is run."""
    line: Line


@dataclass(frozen=True, slots=True)
class AgentProfile:
    """Who answers: one `[[agents]]` table."""

    name: str
    instructions: str
    greeting: str
    voice: str
    tools: tuple[ToolSchema, ...] = field(default=())
    tool_names: tuple[str, ...] = ()
    """What it may use, as configured; `tools` are those that exist when the call begins."""
    tool_filler: str = ""
    """Said while a tool takes long; empty for a soft tone."""
    timezone: str = "UTC"
    """IANA name of the zone the agent speaks of."""
    interruption: InterruptionSettings = field(default=InterruptionSettings())
    idle: IdleSettings = field(default=IdleSettings())
    watchdog: WatchdogSettings = field(default=WatchdogSettings())
    yields: bool = True
    """Falls silent when the caller speaks; otherwise it says what it has to say to the end."""
    initial_message: str = ""
    """Put into the conversation before anybody speaks; without a greeting, the agent answers it."""
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    """What its connector shall do otherwise for this agent; the call does not look inside.

    A connector to somewhere else, such as a stand-by, is given a profile without.
    """

    @property
    def guards_interruptions(self) -> bool:
        """The call decides what interrupts the agent and what is answered, not the far end."""
        return self.interruption.guard != "off"


class MediaPort(Protocol):
    """The bridge as the phone's clock sees it: two calls per 20 ms, in one tick.

    Both run on the event loop and must not block, log or raise.
    """

    def hear_caller(self, frame: Frame) -> None:
        """Take what the caller said in the last 20 ms."""
        ...

    def speak_to_caller(self) -> Frame:
        """Give what the caller shall hear in the next 20 ms."""
        ...


class CallerLeg(Protocol):
    """The telephone side of a call."""

    @property
    def offer(self) -> CallOffer: ...

    def connect(self, media: MediaPort) -> None:
        """Let the phone's clock drive this bridge, from the first media on."""
        ...

    async def answer(self) -> None:
        """Send 200 and wait until audio can flow (ACK seen, media up).

        Raises:
            LegClosed: The caller gave up first.
        """
        ...

    def reject(self, status: int, retry_after_s: int | None = None) -> None:
        """Refuse the INVITE with a final SIP status. Harmless once it is over."""
        ...

    def hang_up(self) -> None:
        """BYE, or a 603 before the answer. Harmless once it is over."""
        ...

    def digits(self) -> AsyncIterator[str]:
        """Keys as the caller presses them, one character of `0-9*#A-D` each.

        One reader at a time; ends with the dialog. Keys nobody reads are dropped,
        the oldest first.
        """
        ...

    def send_digits(self, digits: str) -> None:
        """Press keys towards the caller's side; returns before they have all been sent.

        Raises:
            LineRefused: The far end does not take keys, or there is no media.
        """
        ...

    async def transfer(self, target: str) -> None:
        """Ask the caller's side to call `target` instead (REFER), and await the outcome.

        Returns once somebody there has answered; the dialog is still ours to end.

        Raises:
            LineRefused: It was refused, failed, or its outcome was never told;
                the call goes on as before.
        """
        ...

    async def closed(self) -> Ending:
        """Wait until the far end or the network ended the dialog, and say how."""
        ...

    def quality(self) -> Mapping[str, object]:
        """Packets, loss and jitter so far, both directions; {} before media."""
        ...


class LegClosed(Exception):
    """The leg is gone; there is nobody to hear or to speak to."""


class AgentLeg(Protocol):
    """The model's side of a call.

    How the far end takes turns is its own affair: it may run them itself, or the adapter
    may drive them. The call only speaks and listens, and knows no request for a response,
    no item but by the opaque name an event gave it, and no truncation.

    An adapter may assume that `write_frame` and `read_frame` are called once each per
    20 ms, on the event loop, and that all else is asked for now and then; that nothing is
    asked before it was connected; and that ids it is handed are ones it told. It may not
    assume an order among `speak`, `answer`, `note` and the events: each is a wish that is
    met as soon as the far end can, or made pointless by what happens meanwhile. Nothing here
    raises or blocks for what the far end does: a session that is over tells `AgentGone` once.
    """

    @property
    def realtime_call_id(self) -> str:
        """The far end's name of this session, for the log; "" if it has none."""
        ...

    def write_frame(self, frame: Frame) -> None:
        """Send the caller's next 20 ms up. Never blocks, never raises."""
        ...

    def read_frame(self) -> Frame:
        """Give the next 20 ms for the caller's ear; silence when nothing is due."""
        ...

    def flush(self) -> int:
        """Drop what has arrived but was not read; return how many ms were dropped.

        For an agent that has stopped by itself. Speech still on its way from the
        interrupted response is dropped too, and the agent's memory stays true to
        what `read_frame` gave.
        """
        ...

    def interrupt(self) -> int:
        """Stop the agent now, whatever it does; otherwise as `flush`.

        The next `read_frame` gives silence. What was asked for and not begun is
        forgotten, and `hold` is over.
        """
        ...

    def hold(self, is_held: bool) -> None:
        """Let the agent's voice wait, or go on where it stopped.

        While held, `read_frame` gives silence and what arrives is kept, the last few
        seconds of it.
        """
        ...

    def answer(self) -> None:
        """Let the agent answer what was said, as soon as it is free.

        Needed after every turn when `AgentProfile.guards_interruptions`, because then
        only the call knows which sounds are turns; otherwise the agent answers by
        itself, and this asks again. Asking twice is asking once.
        """
        ...

    def note(self, text: str) -> None:
        """Tell the agent a fact that nobody said, such as keys that were pressed."""
        ...

    def buffered_ms(self) -> int:
        """How much speech has arrived and was not read yet."""
        ...

    def waited_ms(self) -> int:
        """How long the frame `read_frame` gave last had waited here for its turn."""
        ...

    def events(self) -> AsyncIterator[CallEvent]:
        """Facts as they arrive; ends after `AgentGone`."""
        ...

    def greet(self, greeting: str) -> None:
        """Let the agent open the conversation with these words, now."""
        ...

    def speak(self, instructions: str) -> None:
        """Let the agent say something in its own words, as soon as it is free."""
        ...

    def quality(self) -> Mapping[str, object]:
        """Packets, loss and repairs so far; {} before media."""
        ...

    def give_tool_output(self, tool_call_id: str, output: str, *, reply: bool = True) -> None:
        """Hand back a tool's output.

        With `reply` the agent goes on speaking once every output of that
        response is there; without it, it waits for the caller.
        """
        ...


class AgentSession(AgentLeg, Protocol):
    """An agent's leg that may be one of several of its call: it ends, and another follows."""

    @property
    def lasts_s(self) -> float | None:
        """How much longer the far end will keep this session; None if it did not say."""
        ...

    def recall(self, past: Sequence[Past]) -> None:
        """Let a fresh session know what was said and done before it, in this order.

        Called once, before anything is said in it. Nothing is answered and no events come of
        it. The output of a tool that still runs is given later with `give_tool_output`, by
        the id told here.
        """
        ...


class AgentConnector(Protocol):
    """Opens agent legs with one provider.

    Several may be open for one call at a time: one that is heard, and its successor.
    """

    def open(
        self, profile: AgentProfile, offer: CallOffer
    ) -> AbstractAsyncContextManager[AgentSession]:
        """Connect one session; entered, it can hear and speak, and says nothing unasked.

        Raises:
            AgentUnavailable: It could not be opened within the timeout.
        """
        ...


class Toolbox(Protocol):
    """Runs tools."""

    @property
    def settings(self) -> ToolUseSettings:
        """What the call keeps to when it uses them."""
        ...

    async def run(self, name: str, arguments: str, context: ToolContext) -> ToolResult:
        """Run one tool to its end or its timeout. Errors are results, not exceptions."""
        ...


Journal = Callable[[Record], None]
"""Puts a record on its way to the log. Never blocks and never fails the call."""
