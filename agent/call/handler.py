"""One call, told from the INVITE to the ending.

    offered -> agent connected while it rings -> answered -> talk -> ended, and why

The one function to read is `Call._tell`; what happens between the answer and the
ending is `Talk`.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import structlog

from agent.call.bridge import Bridge
from agent.call.diary import Diary
from agent.call.fallback import Fallback, fall_back
from agent.call.ports import (
    AgentConnector,
    AgentProfile,
    AgentUnavailable,
    CallerLeg,
    Journal,
    LegClosed,
    Toolbox,
)
from agent.call.purse import Purse
from agent.call.records import CallAnswered, CallEnded, CallOffered, Ending
from agent.call.relay import AgentRelay, open_relay
from agent.call.settings import LimitSettings, RecoverySettings
from agent.call.talk import Talk
from agent.call.tasks import cancel

_RETRY_AFTER_S = 5


class Call:
    """One call in progress. Create it for an offered leg, then `await run()` once."""

    def __init__(
        self,
        caller: CallerLeg,
        profile: AgentProfile,
        connectors: Sequence[AgentConnector],
        toolbox: Toolbox,
        journal: Journal,
        limits: LimitSettings,
        purse: Purse,
        recovery: RecoverySettings,
        fallback: Fallback,
    ) -> None:
        """Prepare; nothing happens before `run`.

        Args:
            caller: An offered leg.
            profile: Who answers.
            connectors: Where its sessions are had, the preferred provider first.
            toolbox: Runs its tools.
            journal: Told everything.
            limits: How long things may take.
            purse: What it may cost.
            recovery: When another session is looked for.
            fallback: What the caller gets when there is none.
        """
        self.call_id = caller.offer.call_id
        self._caller = caller
        self._profile = profile
        self._connectors = connectors
        self._toolbox = toolbox
        self._diary = Diary(self.call_id, journal)
        self._limits = limits
        self._recovery = recovery
        self._fallback = fallback
        self._account = purse.open(self._diary, caller.offer.caller_number, datetime.now(UTC))
        self._log = structlog.get_logger().bind(call_id=self.call_id)
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._ended_at: datetime | None = None
        self._duration_ms = 0
        self._is_leaving = False
        self._cause: Ending | None = None
        """There is no agent any more: that is why the call ends, whoever hangs up first."""
        self._agent_quality: Mapping[str, object] = {}

    def end(self, ending: Ending) -> None:
        """End the call from outside, at any moment; the first reason given counts."""
        if not self._ending.done():
            self._ended_at = datetime.now(UTC)
            self._duration_ms = self._diary.now_ms()
            self._ending.set_result(self._cause or ending)

    async def run(self) -> Ending:
        """Carry the call to its end. Never raises for what a call can do to us."""
        offer = self._caller.offer
        self._diary.tell(
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
                if not self._diary.is_started and self._ending.result().by == "trunkline":
                    # Not a 603 Decline: another agent may well take this caller.
                    self._caller.reject(503, _RETRY_AFTER_S)
            await asyncio.wait((story,))
            if not story.cancelled():
                story.result()
            return await self._ending
        finally:
            await cancel(story, closed)

    async def _tell(self) -> None:
        """The call from top to bottom."""
        offer = self._caller.offer
        try:
            problem: Ending | None = None
            if refusal := await self._account.refusal():
                self._log.warning("! refused", reason=refusal.reason)
                problem = Ending("trunkline", refusal.reason)
                if not self._fallback.takes_calls:
                    self._leave(problem)
                    self._caller.reject(503, refusal.retry_after_s)
                    return
            async with open_relay(
                self._connectors, self._profile, offer, self._diary, self._recovery
            ) as agent:
                bridge = Bridge(agent, self._diary.now_ms)
                ending = await self._serve(agent, bridge, problem)
                if ending is problem or ending.by == "realtime":
                    self._cause = ending
                    await fall_back(self._fallback, self._caller, bridge, self._diary)
                self._leave(ending)
                self._caller.hang_up()
        except AgentUnavailable as error:
            self._log.warning("! no agent", reason=error.reason)
            self._leave(Ending("realtime", error.reason))
            self._caller.reject(503, error.retry_after_s)
        except LegClosed:
            self._log.info("= the caller gave up before the answer")

    async def _serve(self, agent: AgentRelay, bridge: Bridge, problem: Ending | None) -> Ending:
        """Answer, and talk if there is an agent; say how that ended.

        Args:
            agent: Not connected yet.
            bridge: What the caller hears.
            problem: Why the caller gets no agent, if that is known: none is opened then.

        Raises:
            AgentUnavailable: There is none, and nothing else to answer for.
            LegClosed: The caller gave up before.
        """
        try:
            if problem is None:
                await agent.connect()
        except AgentUnavailable as error:
            if not self._fallback.takes_calls:
                raise
            self._log.warning("! no agent", reason=error.reason)
            problem = Ending("realtime", error.reason)
        self._caller.connect(bridge)
        await self._caller.answer()
        self._diary.start()
        self._record_answer(agent)
        return problem or await self._talk(agent, bridge)

    def _note_closed(self, closed: asyncio.Task[Ending]) -> None:
        if not closed.cancelled():
            self.end(closed.result())

    def _leave(self, ending: Ending) -> None:
        """We end it ourselves: what follows is closing, and must not be cut short."""
        self._is_leaving = True
        self.end(ending)

    async def _talk(self, agent: AgentRelay, bridge: Bridge) -> Ending:
        talk = Talk(
            self._profile,
            self._caller,
            agent,
            bridge,
            self._toolbox,
            self._diary,
            self._limits,
            self._account,
        )
        try:
            return await talk.run()
        finally:
            self._agent_quality = agent.quality()

    # --- what the log is told

    def _record_answer(self, agent: AgentRelay) -> None:
        delay_ms = int((time.monotonic() - self._caller.offer.received_s) * 1000)
        self._diary.tell(
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
        self._diary.tell(
            CallEnded(
                call_id=self.call_id,
                ended_at=self._ended_at or datetime.now(UTC),
                duration_ms=self._duration_ms,
                ending=ending,
                quality=self._quality(),
            )
        )
        self._log.info("x ended", by=ending.by, reason=ending.reason, duration_ms=self._duration_ms)

    def _quality(self) -> Mapping[str, object] | None:
        """How the sound travelled on both legs; None for a call without media."""
        caller = self._caller.quality()
        return {"caller": caller, "agent": self._agent_quality} if caller else None
