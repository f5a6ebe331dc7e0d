"""One call, told from the INVITE to the ending.

    offered -> agent connected while it rings -> answered -> greeted
            -> talk: events to log, tools, barge-in -> ended, and why

The one function to read is `Call._tell`. The decisions it acts on are made by
`Conversation` and `Farewell`, which know no clock and do no I/O.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from agent.call.bridge import Bridge
from agent.call.conversation import Conversation
from agent.call.events import (
    AgentError,
    AgentGone,
    CallerTextFailed,
    CallEvent,
    ResponseEnded,
    ToolCallRequested,
)
from agent.call.farewell import Farewell
from agent.call.ports import (
    AgentConnector,
    AgentLeg,
    AgentProfile,
    AgentUnavailable,
    CallerLeg,
    Journal,
    LegClosed,
    Toolbox,
)
from agent.call.records import (
    CallAnswered,
    CallEnded,
    CallEventRecord,
    CallOffered,
    Ending,
    ToolCallRecord,
    ToolStatus,
)
from agent.call.settings import LimitSettings

_T = TypeVar("_T")

_FAREWELL_CHECK_S = 0.02
_RETRY_AFTER_S = 5
_SAY_GOODBYE = "Say a short goodbye to the caller. The line is closed right after it."


class Call:
    """One call in progress. Create it for an offered leg, then `await run()` once."""

    def __init__(
        self,
        caller: CallerLeg,
        profile: AgentProfile,
        connector: AgentConnector,
        toolbox: Toolbox,
        journal: Journal,
        limits: LimitSettings,
    ) -> None:
        """Prepare; nothing happens before `run`."""
        self.call_id = caller.offer.call_id
        self._caller = caller
        self._profile = profile
        self._connector = connector
        self._toolbox = toolbox
        self._journal = journal
        self._limits = limits
        self._log = structlog.get_logger().bind(call_id=self.call_id)
        self._answered_s: float | None = None
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._ended_at: datetime | None = None
        self._duration_ms = 0
        self._is_leaving = False
        self._usage: Mapping[str, object] | None = None
        self._agent_quality: Mapping[str, object] = {}

    def end(self, ending: Ending) -> None:
        """End the call from outside, at any moment; the first reason given counts."""
        if not self._ending.done():
            self._ended_at = datetime.now(UTC)
            self._duration_ms = self._now_ms()
            self._ending.set_result(ending)

    async def run(self) -> Ending:
        """Carry the call to its end. Never raises for what a call can do to us."""
        offer = self._caller.offer
        self._journal(
            CallOffered(
                call_id=self.call_id,
                sip_call_id=offer.sip_call_id,
                direction="inbound",
                source="sip",
                trunk=offer.trunk,
                did=offer.did,
                caller_number=offer.caller_number,
                agent=self._profile.name,
                started_at=datetime.now(UTC),
            )
        )
        self._log.info("< INVITE", trunk=offer.trunk, agent=self._profile.name)
        ending = Ending("trunkline", "internal error")
        try:
            ending = await self._until_ended()
        except asyncio.CancelledError:
            ending = Ending("trunkline", "process ended")
            raise
        except Exception:  # noqa: BLE001 - the one place around a call: it ends, the others go on
            self._log.exception("! the call failed")
            self.end(ending)
            self._caller.reject(500)
        finally:
            self._caller.hang_up()
            self._record_end(ending)
        return ending

    async def _until_ended(self) -> Ending:
        """Tell the story until it ends by itself, the caller goes, or we are told to end."""
        story = asyncio.create_task(self._tell())
        closed = asyncio.create_task(self._caller.closed())
        closed.add_done_callback(self._note_closed)
        try:
            await asyncio.wait((story, self._ending), return_when=asyncio.FIRST_COMPLETED)
            if self._ending.done() and not self._is_leaving:
                story.cancel()
                if self._answered_s is None and self._ending.result().by == "trunkline":
                    # Not a 603 Decline: another agent may well take this caller.
                    self._caller.reject(503, _RETRY_AFTER_S)
            await asyncio.wait((story,))
            if not story.cancelled():
                story.result()
            return await self._ending
        finally:
            await _cancel(story, closed)

    async def _tell(self) -> None:
        """The call from top to bottom."""
        offer = self._caller.offer
        try:
            async with self._connector.open(self._profile, offer) as agent:
                bridge = Bridge(agent, self._now_ms)
                self._caller.connect(bridge)
                await self._caller.answer()
                self._answered_s = time.monotonic()
                self._record_answer(agent)
                agent.greet(self._profile.greeting)
                self._leave(await self._talk(agent, bridge))
                self._caller.hang_up()
        except AgentUnavailable as error:
            self._log.warning("! no agent", reason=error.reason)
            self._leave(Ending("realtime", error.reason))
            self._caller.reject(503, error.retry_after_s)
        except LegClosed:
            self._log.info("= the caller gave up before the answer")

    def _note_closed(self, closed: asyncio.Task[Ending]) -> None:
        if not closed.cancelled():
            self.end(closed.result())

    def _leave(self, ending: Ending) -> None:
        """We end it ourselves: what follows is closing, and must not be cut short."""
        self._is_leaving = True
        self.end(ending)

    async def _talk(self, agent: AgentLeg, bridge: Bridge) -> Ending:
        """Serve the conversation until somebody ends it."""
        conversation = Conversation(self.call_id, bridge.caller_track, bridge.agent_track)
        farewell = Farewell(int(self._limits.goodbye_timeout_s * 1000))
        try:
            async with asyncio.timeout(self._limits.max_call_s), _Tasks() as tasks:
                said_goodbye = tasks.start(self._hang_up_when_heard(farewell, agent))
                talk = tasks.start(self._follow(agent, conversation, farewell, tasks))
                done, _ = await asyncio.wait(
                    (said_goodbye, talk), return_when=asyncio.FIRST_COMPLETED
                )
                return (said_goodbye if said_goodbye in done else talk).result()
        except TimeoutError:
            return Ending("trunkline", f"maximum duration of {self._limits.max_call_s} s reached")
        finally:
            self._usage = conversation.usage
            self._agent_quality = agent.quality()
            for record in conversation.finish(self._now_ms()):
                self._journal(record)

    async def _follow(
        self, agent: AgentLeg, conversation: Conversation, farewell: Farewell, tasks: "_Tasks"
    ) -> Ending:
        async for event in agent.events():
            outcome = conversation.receive(event, self._now_ms())
            if outcome.clear_ear:
                self._note("barge_in", flushed_ms=agent.flush())
            for record in outcome.records:
                self._journal(record)
            farewell.receive(event)
            match event:
                case ToolCallRequested():
                    tasks.start(self._use_tool(event, agent, farewell))
                case AgentGone(reason):
                    return Ending("realtime", reason)
                case _:
                    self._note_trouble(event)
        return Ending("realtime", "the session ended")

    async def _use_tool(
        self, request: ToolCallRequested, agent: AgentLeg, farewell: Farewell
    ) -> None:
        started_ms = self._now_ms()

        def record(status: ToolStatus, output: str | None, error: str | None) -> None:
            duration_ms = None if status == "running" else self._now_ms() - started_ms
            self._journal(
                ToolCallRecord(
                    call_id=self.call_id,
                    tool_call_id=request.tool_call_id,
                    item_id=request.item_id,
                    name=request.name,
                    arguments=request.arguments,
                    output=output,
                    error=error,
                    status=status,
                    started_ms=started_ms,
                    duration_ms=duration_ms,
                )
            )

        record("running", None, None)
        try:
            result = await self._toolbox.run(request.name, request.arguments)
        except asyncio.CancelledError:
            record("failed", None, "the call ended before the tool did")
            raise
        record("failed" if result.error else "completed", result.output, result.error)
        if not result.ends_call:
            agent.give_tool_output(request.tool_call_id, result.output)
            return
        spoken = farewell.ask(request.response_id, self._now_ms())
        agent.give_tool_output(request.tool_call_id, result.output, reply=False)
        if not spoken:
            agent.speak(_SAY_GOODBYE)

    async def _hang_up_when_heard(self, farewell: Farewell, agent: AgentLeg) -> Ending:
        while not farewell.is_due(self._now_ms(), agent.buffered_ms()):  # noqa: ASYNC110 - what waits for the ear changes every tick, without events
            await asyncio.sleep(_FAREWELL_CHECK_S)
        return Ending("agent", "hung up")

    # --- what the log is told

    def _now_ms(self) -> int:
        if self._answered_s is None:
            return 0
        return int((time.monotonic() - self._answered_s) * 1000)

    def _record_answer(self, agent: AgentLeg) -> None:
        delay_ms = int((time.monotonic() - self._caller.offer.received_s) * 1000)
        self._journal(
            CallAnswered(
                call_id=self.call_id,
                realtime_call_id=agent.realtime_call_id,
                answered_at=datetime.now(UTC),
                answer_delay_ms=delay_ms,
            )
        )
        self._log.info("> 200", answer_delay_ms=delay_ms)

    def _record_end(self, ending: Ending) -> None:
        """Note the end as of the moment it was decided: closing takes its own time."""
        self.end(ending)
        self._journal(
            CallEnded(
                call_id=self.call_id,
                ended_at=self._ended_at or datetime.now(UTC),
                duration_ms=self._duration_ms,
                ending=ending,
                quality=self._quality(),
                usage=self._usage or None,
            )
        )
        self._log.info("x ended", by=ending.by, reason=ending.reason, duration_ms=self._duration_ms)

    def _quality(self) -> Mapping[str, object] | None:
        """How the sound travelled on both legs; None for a call without media."""
        caller = self._caller.quality()
        return {"caller": caller, "agent": self._agent_quality} if caller else None

    def _note(self, kind: str, **detail: object) -> None:
        self._journal(
            CallEventRecord(self.call_id, datetime.now(UTC), self._now_ms(), kind, detail)
        )

    def _note_trouble(self, event: CallEvent) -> None:
        """What went wrong at the far end belongs into the log, in its own words."""
        match event:
            case AgentError(code, message):
                self._note("agent_error", code=code, message=message)
            case CallerTextFailed(item_id, reason):
                self._note("transcript_failed", item_id=item_id, reason=reason)
            case ResponseEnded(response_id, "failed" | "incomplete" as status, reason):
                self._note(f"response_{status}", response_id=response_id, reason=reason)
            case _:
                pass


class _Tasks:
    """Tasks that live no longer than the block; the first failure of any is raised."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, traceback)

    def start(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run beside the others."""
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel and wait until each is over; their results no longer matter."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
