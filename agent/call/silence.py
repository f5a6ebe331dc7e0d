"""No silence goes unnoticed: what `Watchdog` and `IdleCaller` find, noted and acted upon."""

from collections.abc import Callable, Mapping

from agent.call.bridge import Bridge
from agent.call.diary import Diary
from agent.call.events import AgentSpoke, CallEvent
from agent.call.farewell import Farewell
from agent.call.idle_caller import IdleCaller
from agent.call.ports import AgentLeg, AgentProfile, CallerLeg
from agent.call.records import Ending
from agent.call.watchdog import Trouble, Watchdog

_COUNT_EVERY_MS = 1000
_SAY_AGAIN = "The caller could not hear what you said last. Say it again, in one or two sentences."

Restart = Callable[[str], bool]
"""Begins the session anew with its history, for this reason; False if that cannot be."""


def cannot_restart(reason: str) -> bool:
    """Stand in where sessions cannot be begun anew."""
    del reason
    return False


class Silence:
    """The silences of one conversation."""

    def __init__(
        self,
        profile: AgentProfile,
        caller: CallerLeg,
        agent: AgentLeg,
        bridge: Bridge,
        farewell: Farewell,
        diary: Diary,
        restart: Restart = cannot_restart,
    ) -> None:
        """Serve one conversation."""
        self._idle_settings = profile.idle
        self._caller = caller
        self._agent = agent
        self._farewell = farewell
        self._diary = diary
        self._restart = restart
        self._watchdog = Watchdog(profile.watchdog, bridge.caller_track, bridge.agent_track)
        self._idle = IdleCaller(profile.idle)
        self._count_ms = 0
        self._gave_up = False

    @property
    def gave_up_on_caller(self) -> bool:
        """The goodbye that is being said is for a caller who no longer answers."""
        return self._gave_up and self._farewell.is_pending

    def has_doubt(self, now_ms: int) -> bool:
        """Something the caller said may not have reached the far end."""
        return self._watchdog.has_doubt(now_ms)

    def receive(self, event: CallEvent, now_ms: int, *, is_answer_due: bool) -> None:
        """Take one event; `is_answer_due` tells that it ends a turn of the caller."""
        self._idle.receive(event)
        self._watchdog.receive(event, now_ms)
        if is_answer_due:
            self.expect_answer(now_ms)

    def expect_answer(self, now_ms: int) -> None:
        """The caller's turn is over, and the agent's to come."""
        self._watchdog.expect_answer(now_ms)

    def stir(self) -> None:
        """The caller pressed a key: they are there."""
        self._idle.stir()

    def look(
        self, now_ms: int, *, is_waiting: bool, is_occupied: bool
    ) -> tuple[list[CallEvent], Ending | None]:
        """Look for silences, every few frames.

        Args:
            now_ms: Milliseconds since the answer.
            is_waiting: The agent is rightly silent.
            is_occupied: Nobody waits for the caller.

        Returns:
            What is to be taken for having happened, and how the call ends if it must.
        """
        self._look_for_caller(now_ms, is_occupied=is_occupied or is_waiting)
        troubles = self._count_packets(now_ms)
        if trouble := self._watchdog.check(now_ms, is_waiting=is_waiting):
            troubles.append(trouble)
        events: list[CallEvent] = []
        for trouble in troubles:
            self._diary.note(
                "silence_found", trouble=trouble.kind, repair=trouble.repair, **trouble.seen
            )
            if trouble.repair == "assume_spoken":
                events.append(AgentSpoke(trouble.response_id))
            elif not self._repair(trouble):
                return events, Ending("realtime", f"the agent fell silent: {trouble.kind}")
        return events, None

    def _repair(self, trouble: Trouble) -> bool:
        """Take the step; False if there is none left."""
        match trouble.repair:
            case "ask_again" if trouble.response_id:
                self._agent.interrupt()
                self._agent.speak(_SAY_AGAIN)
            case "ask_again":
                self._agent.answer()
            case "restart":
                return self._restart(trouble.kind)
            case "give_up":
                return False
            case _:
                pass
        return True

    def _look_for_caller(self, now_ms: int, *, is_occupied: bool) -> None:
        is_leaving = self._farewell.is_pending
        match self._idle.check(now_ms, is_occupied=is_occupied or is_leaving):
            case "ask":
                self._diary.note("caller_idle")
                self._agent.speak(say_exactly(self._idle_settings.question))
            case "goodbye":
                self._gave_up = True
                self._farewell.ask("", now_ms)
                self._agent.speak(say_exactly(self._idle_settings.goodbye))
            case _:
                pass

    def _count_packets(self, now_ms: int) -> list[Trouble]:
        if now_ms - self._count_ms < _COUNT_EVERY_MS:
            return []
        self._count_ms = now_ms
        quality = self._caller.quality()
        found = []
        for direction, name in (("received", "from_caller"), ("sent", "to_caller")):
            facts = quality.get(direction)
            packets = facts.get("packets") if isinstance(facts, Mapping) else None
            if isinstance(packets, int):
                found.append(self._watchdog.count(name, packets, now_ms))
        return [trouble for trouble in found if trouble is not None]


def say_exactly(words: str) -> str:
    """Word a request so that the agent says these words and no others."""
    return f'Say exactly these words to the caller, in their language, and nothing else: "{words}"'
