"""The agent of a whole call, whichever session carries it.

::

    Talk <-> AgentRelay <-> session 1          its time runs out, or it is lost
                        <-> session 2 ...      opened beside it, told the past, takes over

To the call this is one `AgentLeg`. When a session takes over is decided by `Succession`; here
it is done. What is named by a session after the first gets a name of its own, so that no
two of a call are alike: `s2_` and what the far end called it.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import structlog

from agent.audio.frame import SILENCE, Frame
from agent.call.diary import Diary
from agent.call.events import (
    AgentGone,
    AgentLost,
    CallerSpeechStarted,
    CallerText,
    CallerTextFailed,
    CallEvent,
    TurnBegan,
)
from agent.call.history import History, Item, Past, PastTool
from agent.call.ports import AgentConnector, AgentProfile, AgentSession, AgentUnavailable, CallOffer
from agent.call.settings import RecoverySettings
from agent.call.succession import GiveUp, Open, Succession, Switch
from agent.call.tasks import cancel
from agent.call.uplink import Uplink

_MOST_EVENTS = 1_000
_MOST_UNSAID = 2
_NAMES = ("item_id", "previous_item_id", "response_id", "tool_call_id", "source_id")
_LATER = re.compile(r"s\d+_")


@dataclass(slots=True)
class _Session:
    """One session, from when it could hear and speak."""

    leg: AgentSession
    holder: asyncio.Task[None]
    place: int


class AgentRelay:
    """One agent, session after session. Made by `open_relay`."""

    def __init__(
        self,
        connectors: Sequence[AgentConnector],
        profile: AgentProfile,
        offer: CallOffer,
        diary: Diary,
        settings: RecoverySettings,
    ) -> None:
        """Prepare; `connect` opens the first session."""
        self._connectors = connectors
        self._profile = profile
        self._offer = offer
        self._diary = diary
        self._log = structlog.get_logger().bind(call_id=diary.call_id)
        self._succession = Succession(settings, len(connectors))
        self._session: _Session | None = None
        self._successor: _Session | None = None
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: asyncio.Queue[CallEvent | BaseException] = asyncio.Queue(_MOST_EVENTS)
        self._uplink = Uplink()
        self._unsaid: deque[str] = deque(maxlen=_MOST_UNSAID)
        self._history = History()
        self._last_item_id = ""
        self._lost_ms: int | None = None
        self._realtime_call_id = ""
        self._quality: Mapping[str, object] = {}

    # --- the sessions

    async def connect(self) -> None:
        """Open the first session, with the first provider that can.

        Raises:
            AgentUnavailable: None can; what the preferred one said.
        """
        first_error: AgentUnavailable | None = None
        for place in range(len(self._connectors)):
            try:
                session = await self._open(place)
            except AgentUnavailable as error:
                first_error = first_error or error
                self._diary.note("session_unavailable", reason=error.reason, place=place)
                continue
            self._use(session)
            return
        assert first_error is not None
        raise first_error

    @property
    def lost_for_ms(self) -> int:
        """How long there has been no session; 0 while there is one."""
        return 0 if self._lost_ms is None else max(1, self._diary.now_ms() - self._lost_ms)

    @property
    def is_changing(self) -> bool:
        """The session is lost or of no use, and another is on its way."""
        return self._succession.is_urgent

    def restart(self, reason: str) -> bool:
        """Have another session take over soon; False if none is to be had."""
        return self._succession.restart(reason, self._diary.now_ms())

    def look(self, *, is_quiet: bool) -> Switch | None:
        """Do what time alone brings; call it every few frames.

        Args:
            is_quiet: Nobody would notice if another session took over now.

        Returns:
            That `succeed` must be called now; what was going on has been left.
        """
        match self._succession.look(self._diary.now_ms(), is_quiet=is_quiet):
            case Open(place):
                self._start(self._open_successor(place))
            case GiveUp(reason):
                self._tell(AgentGone(reason))
            case Switch() as switch:
                return switch
            case None:
                pass
        return None

    def succeed(self, switch: Switch, chain: Iterable[Item]) -> list[Past]:
        """Let the session that was opened take over, knowing the past.

        Args:
            switch: As `look` told.
            chain: Everything that was said, in order, as far as it was heard.

        Returns:
            The past, as it was told.
        """
        successor, self._successor = self._successor, None
        assert successor is not None
        gap_ms = self.lost_for_ms
        self._leave()
        past = self._history.told(chain)
        successor.leg.recall([_for_later(one) for one in past])
        self._use(successor)
        self._diary.note(
            "session_succeeded",
            reason=switch.reason,
            session=self._number,
            realtime_call_id=successor.leg.realtime_call_id,
            provider="standby" if successor.place else "first",
            gap_ms=gap_ms,
        )
        self._log.debug("= another session", session=self._number, reason=switch.reason)
        while self._unsaid:
            successor.leg.speak(self._unsaid.popleft())
        return past

    async def close(self) -> None:
        """End every session. Harmless when repeated."""
        self._leave()
        await cancel(*self._tasks)

    async def _open(self, place: int) -> _Session:
        opened: asyncio.Future[AgentSession] = asyncio.get_running_loop().create_future()
        holder = self._start(self._hold(self._connectors[place], opened))
        try:
            await asyncio.wait((opened, holder), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            holder.cancel()
            raise
        if not opened.done():
            holder.result()
        return _Session(opened.result(), holder, place)

    async def _hold(self, connector: AgentConnector, opened: asyncio.Future[AgentSession]) -> None:
        """Keep one session open until cancelled."""
        async with connector.open(self._profile, self._offer) as leg:
            opened.set_result(leg)
            await asyncio.Event().wait()

    async def _open_successor(self, place: int) -> None:
        try:
            self._successor = await self._open(place)
        except AgentUnavailable as error:
            self._diary.note("session_unavailable", reason=error.reason, place=place)
            self._succession.failed(error.reason, self._diary.now_ms())
        else:
            self._succession.opened()

    def _use(self, session: _Session) -> None:
        self._session = session
        self._number += 1
        self._lost_ms = None
        self._realtime_call_id = session.leg.realtime_call_id
        self._succession.began(self._diary.now_ms(), session.leg.lasts_s)
        self._start(self._follow(session, self._number))

    def _leave(self) -> None:
        """Part from the session in use; what it had not understood is kept."""
        if self._session is None:
            return
        session, self._session = self._session, None
        self._quality = session.leg.quality()
        self._uplink.lost()
        session.holder.cancel()

    async def _follow(self, session: _Session, number: int) -> None:
        async for event in session.leg.events():
            if self._session is not session:
                return
            if isinstance(event, AgentGone):
                self._lose(event.reason)
                return
            named = event if number == 1 else _prefixed(event, _prefix(number))
            self._note(named)
            await self._events.put(named)

    def _lose(self, reason: str) -> None:
        now_ms = self._diary.now_ms()
        self._lost_ms = now_ms
        self._leave()
        self._succession.lost(reason, now_ms)
        self._diary.note("session_lost", reason=reason, session=self._number)
        self._tell(AgentLost(reason))

    def _note(self, event: CallEvent) -> None:
        self._history.receive(event)
        match event:
            case TurnBegan(item_id):
                self._last_item_id = item_id
            case CallerSpeechStarted(item_id):
                self._uplink.heard(item_id)
            case CallerText(item_id) | CallerTextFailed(item_id):
                self._uplink.understood(item_id)
            case _:
                pass

    def _tell(self, event: CallEvent | BaseException) -> None:
        """Say something that must not be lost, however much else is waiting."""
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(event)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, AgentUnavailable):
            self._tell(error)

    # --- the `AgentLeg` of the call

    @property
    def realtime_call_id(self) -> str:
        """The far end's name of the session in use, or of the last one."""
        return self._realtime_call_id

    @property
    def is_catching_up(self) -> bool:
        """The caller's words are still being said again to a new session."""
        return self._uplink.is_behind

    def write_frame(self, frame: Frame) -> None:
        """Send the caller's next 20 ms up, or keep it until there is a session again."""
        if self._session is None:
            self._uplink.wait(frame)
        else:
            self._session.leg.write_frame(self._uplink.send(frame))

    def read_frame(self) -> Frame:
        """Give the next 20 ms for the caller's ear; silence between two sessions."""
        return SILENCE if self._session is None else self._session.leg.read_frame()

    async def events(self) -> AsyncIterator[CallEvent]:
        """Facts as they arrive, with `AgentLost` where a session was lost; ends after `AgentGone`.

        Raises:
            Exception: A session could not be opened, for a fault of ours.
        """
        while True:
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, AgentGone):
                return

    def flush(self) -> int:
        """Drop what has arrived but was not read; return how many ms were dropped."""
        return 0 if self._session is None else self._session.leg.flush()

    def interrupt(self) -> int:
        """Stop the agent now; return how many ms were dropped."""
        return 0 if self._session is None else self._session.leg.interrupt()

    def hold(self, is_held: bool) -> None:
        """Let the agent's voice wait, or go on where it stopped."""
        if self._session is not None:
            self._session.leg.hold(is_held)

    def answer(self) -> None:
        """Let the agent answer what was said; between sessions that follows by itself."""
        if self._session is not None:
            self._session.leg.answer()

    def greet(self, greeting: str) -> None:
        """Let the agent open the conversation with these words, now."""
        if self._session is not None:
            self._session.leg.greet(greeting)

    def speak(self, instructions: str) -> None:
        """Let the agent say something in its own words, as soon as there is one."""
        if self._session is None:
            self._unsaid.append(instructions)
        else:
            self._session.leg.speak(instructions)

    def note(self, text: str) -> None:
        """Tell the agent a fact that nobody said."""
        self._history.noted(text, self._last_item_id)
        if self._session is not None:
            self._session.leg.note(text)

    def give_tool_output(self, tool_call_id: str, output: str, *, reply: bool = True) -> None:
        """Hand back a tool's output, also to a session that did not ask for it."""
        self._history.tool_ended(tool_call_id, output)
        if self._session is not None:
            name = _native(tool_call_id, self._number)
            self._session.leg.give_tool_output(name, output, reply=reply)

    def buffered_ms(self) -> int:
        """How much speech has arrived and was not read yet."""
        return 0 if self._session is None else self._session.leg.buffered_ms()

    def waited_ms(self) -> int:
        """How long the frame `read_frame` gave last had waited here for its turn."""
        return 0 if self._session is None else self._session.leg.waited_ms()

    def quality(self) -> Mapping[str, object]:
        """Packets, loss and repairs of the session in use, or of the last one."""
        quality = self._quality if self._session is None else self._session.leg.quality()
        return {**quality, "sessions": self._number} if self._number > 1 else quality


@asynccontextmanager
async def open_relay(
    connectors: Sequence[AgentConnector],
    profile: AgentProfile,
    offer: CallOffer,
    diary: Diary,
    settings: RecoverySettings,
) -> AsyncIterator[AgentRelay]:
    """Hold the sessions of one call, none at first; end them all however the block is left.

    Args:
        connectors: Where sessions are had, the preferred one first.
        profile: Who answers.
        offer: Who called.
        diary: Told of every session after the first, and of those that could not be had.
        settings: When to look for another.
    """
    relay = AgentRelay(connectors, profile, offer, diary, settings)
    try:
        yield relay
    finally:
        await relay.close()


def _prefix(number: int) -> str:
    return f"s{number}_"


def _prefixed(event: CallEvent, prefix: str) -> CallEvent:
    names = (field.name for field in fields(event) if field.name in _NAMES)
    new: dict[str, Any] = {
        name: prefix + value for name in names if (value := getattr(event, name))
    }
    return replace(event, **new) if new else event


def _for_later(past: Past) -> Past:
    """What the first session named gets a name that no later session gives."""
    if not isinstance(past, PastTool):
        return past
    return replace(past, tool_call_id=_later_name(past.tool_call_id))


def _later_name(tool_call_id: str) -> str:
    return tool_call_id if _LATER.match(tool_call_id) else _prefix(1) + tool_call_id


def _native(tool_call_id: str, number: int) -> str:
    """The name by which session `number` knows a tool call."""
    if number == 1:
        return tool_call_id
    own = _prefix(number)
    if tool_call_id.startswith(own):
        return tool_call_id.removeprefix(own)
    return _later_name(tool_call_id)
