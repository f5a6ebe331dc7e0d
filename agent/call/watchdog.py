"""Silence that should not be, found and repaired.

A model may announce speech and send none, write words without a voice, fail, or not
answer at all; a network may carry one direction only. The events say what should be
heard, the voice tracks what is, and the difference is a trouble::

    expected and not heard -> Trouble -> ask again -> restart the session -> give up

Each step is given time, and whatever is heard meanwhile ends the trouble. Decides
only: told events, voice tracks and `now_ms`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.audio.voice import VoiceTrack
from agent.call.events import (
    AgentInterrupted,
    AgentLost,
    AgentSpeaking,
    AgentSpoke,
    AgentText,
    AgentTextDelta,
    CallerSpeechStarted,
    CallEvent,
    ResponseEnded,
    ResponseStarted,
    ToolCallRequested,
)
from agent.call.settings import WatchdogSettings

Repair = Literal["none", "assume_spoken", "ask_again", "restart", "give_up"]

_STEPS: tuple[Repair, ...] = ("ask_again", "restart", "give_up")
_MEANT_MS = 1000
"""A voice that lasted so long was no noise: the far end should have heard it."""

_LAG_MS = 300
"""Sound and the events about it travel apart; further than this they do not come apart."""

_FAILURES = 2
"""The first failed response is asked for again by the agent's leg itself."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was found, and what to do about it.

    Attributes:
        kind: What it is, as the log calls it.
        repair: The step to take now.
        seen: What was measured.
        response_id: The response it concerns, if any.
    """

    kind: str
    repair: Repair
    seen: Mapping[str, object] = field(default_factory=dict)
    response_id: str = ""


@dataclass(slots=True)
class _Response:
    response_id: str
    began_ms: int
    text_ms: int | None = None
    speaking_ms: int | None = None
    is_done: bool = False
    calls_tool: bool = False


class Watchdog:
    """The silences of one call that are somebody's fault."""

    def __init__(
        self, settings: WatchdogSettings, caller_track: VoiceTrack, agent_track: VoiceTrack
    ) -> None:
        """Watch what both sides are heard to say on the phone leg."""
        self._settings = settings
        self._caller_track = caller_track
        self._agent_track = agent_track
        self._response: _Response | None = None
        self._spoke: tuple[_Response, int] | None = None
        """What all audio has come of, and when: soon it must have been heard."""
        self._owed_ms: int | None = None
        self._heard_caller_ms = 0
        self._failures = 0
        self._failures_told = 0
        self._reason = ""
        self._step = 0
        self._repaired_ms: int | None = None
        self._waited_until_ms = 0
        self._counts: dict[str, tuple[int, int, bool]] = {}

    def has_doubt(self, now_ms: int) -> bool:
        """A repair was not heard yet, or the caller said something the far end did not hear."""
        start_ms, end_ms = self._caller_track.runs[-1] if self._caller_track.runs else (0, 0)
        is_unheard = end_ms - start_ms >= _MEANT_MS and not self._is_past(start_ms, now_ms)
        return self._repaired_ms is not None or is_unheard

    def expect_answer(self, now_ms: int) -> None:
        """The caller's turn is over, and the agent's to come."""
        self._owed_ms = now_ms

    def receive(self, event: CallEvent, now_ms: int) -> None:
        """Follow what the far end says it does."""
        response = self._response
        match event:
            case CallerSpeechStarted():
                self._heard_caller_ms = now_ms
                self._owed_ms = None
                self._repaired_ms = None
            case ResponseStarted(response_id):
                self._owed_ms = None
                self._response = _Response(response_id, now_ms)
            case AgentTextDelta(response_id=response_id) | AgentText(response_id=response_id):
                if response and response.response_id == response_id and response.text_ms is None:
                    response.text_ms = now_ms
            case AgentSpeaking(response_id):
                if response is None or response.response_id != response_id:
                    response = self._response = _Response(response_id, now_ms)
                response.speaking_ms = now_ms
            case ToolCallRequested(response_id=response_id):
                if response and response.response_id == response_id:
                    response.calls_tool = True
            case AgentSpoke(response_id):
                if response and response.response_id == response_id:
                    self._spoke = (response, now_ms)
                self._close(response_id)
            case AgentInterrupted(response_id):
                self._close(response_id)
            case AgentLost():
                self._response = self._spoke = self._owed_ms = None
                self._failures = self._failures_told = 0
                if self._repaired_ms is not None:
                    self._repaired_ms = now_ms  # the next session is the repair
            case ResponseEnded(response_id, status):
                self._end(response_id, status, now_ms)
            case _:
                pass

    def check(self, now_ms: int, *, is_waiting: bool) -> Trouble | None:
        """Look at what is heard; call it a few times a second.

        Args:
            now_ms: Milliseconds since the answer.
            is_waiting: The agent is rightly silent: a tool runs, keys are waited for, or
                it is made to wait.
        """
        if is_waiting:
            self._waited_until_ms = now_ms
            return None
        if self._repaired_ms is not None:
            return self._check_repair(now_ms, self._repaired_ms)
        return self._find(now_ms)

    def count(self, direction: str, packets: int, now_ms: int) -> Trouble | None:
        """Take how many RTP packets passed the phone leg in one direction so far.

        Returns:
            A trouble when they stop, once; the leg itself looks for the caller elsewhere.
        """
        before, since_ms, is_told = self._counts.get(direction, (packets, now_ms, False))
        if packets != before:
            since_ms, is_told = now_ms, False
        silent_ms = now_ms - since_ms
        is_news = not is_told and silent_ms >= self._settings.rtp_timeout_s * 1000
        self._counts[direction] = (packets, since_ms, is_told or is_news)
        if not is_news:
            return None
        return Trouble(f"no_rtp_{direction}", "none", {"packets": packets, "silent_ms": silent_ms})

    # --- what should be heard

    def _close(self, response_id: str) -> None:
        if self._response is not None and self._response.response_id == response_id:
            self._response = None

    def _end(self, response_id: str, status: str, now_ms: int) -> None:
        self._failures = self._failures + 1 if status == "failed" else 0
        self._failures_told = min(self._failures_told, self._failures)
        response = self._response
        if response is None or response.response_id != response_id:
            return
        response.is_done = True
        if response.speaking_ms is not None and status != "failed":
            return
        is_silent = response.text_ms is None and not response.calls_tool
        if status in ("cancelled", "failed") or is_silent or response.calls_tool:
            self._response = None
        if is_silent and status in ("completed", "incomplete"):
            self._owed_ms = now_ms  # it said nothing at all: the caller still waits

    def _find(self, now_ms: int) -> Trouble | None:
        settings = self._settings
        if self._has_failed():
            return self._repair("responses_failed", now_ms, {"in_row": self._failures})
        if self._spoke is not None and now_ms - self._spoke[1] >= _LAG_MS:
            response, _ = self._spoke
            self._spoke = None
            if not self._was_heard(response, now_ms):
                seen = {"response_id": response.response_id, "announced_ms": response.speaking_ms}
                return self._repair("mute", now_ms, seen, response.response_id)
            self._step = 0
        if self._owed_ms is not None:
            silent_ms = now_ms - max(self._owed_ms, self._waited_until_ms)
            if silent_ms >= settings.answer_timeout_s * 1000:
                return self._repair("no_response", now_ms, {"silent_ms": silent_ms})
        if self._response is not None:
            return self._check_response(self._response, now_ms)
        return self._check_ears(now_ms)

    def _was_heard(self, response: _Response, now_ms: int) -> bool:
        """Something reached the ear since shortly before it was announced: two channels."""
        heard_ms = self._agent_track.last_voiced_before(now_ms) or 0
        return heard_ms > (response.speaking_ms or response.began_ms) - _LAG_MS

    def _check_response(self, response: _Response, now_ms: int) -> Trouble | None:
        heard_ms = self._agent_track.last_voiced_before(now_ms) or 0
        announced = [ms for ms in (response.text_ms, response.speaking_ms) if ms is not None]
        timeout_s = self._settings.sound_timeout_s if announced else self._settings.voice_timeout_s
        since_ms = max(min(announced, default=response.began_ms), heard_ms, self._waited_until_ms)
        silent_ms = now_ms - since_ms
        if silent_ms < timeout_s * 1000:
            return None
        seen = {"response_id": response.response_id, "silent_ms": silent_ms}
        was_heard = self._was_heard(response, now_ms)
        if was_heard and response.speaking_ms is None and response.is_done:
            self._response = None  # its words are over; only what announces sound was lost
            return None
        if was_heard and response.is_done:
            self._response = None
            return Trouble("stuck_buffer", "assume_spoken", seen, response.response_id)
        kind = "no_voice" if not announced else "mute"
        if response.speaking_ms is None and announced:
            kind = "text_without_sound"
        return self._repair(kind, now_ms, seen, response.response_id)

    def _check_ears(self, now_ms: int) -> Trouble | None:
        """A caller who spoke, fell silent and was never heard: the far end is deaf or gone."""
        runs = self._caller_track.runs
        if not runs:
            return None
        start_ms, end_ms = runs[-1]
        quiet_ms = now_ms - max(end_ms, self._waited_until_ms)
        if (
            end_ms - start_ms < _MEANT_MS
            or quiet_ms < self._settings.answer_timeout_s * 1000
            or self._is_past(start_ms, now_ms)
        ):
            return None
        self._heard_caller_ms = now_ms
        return self._repair(
            "caller_unheard", now_ms, {"spoke_ms": end_ms - start_ms, "silent_ms": quiet_ms}
        )

    def _is_past(self, start_ms: int, now_ms: int) -> bool:
        """Since then the far end heard the caller, or was heard."""
        agent_ms = self._agent_track.last_voiced_before(now_ms) or 0
        return max(self._heard_caller_ms, agent_ms) > start_ms

    def _has_failed(self) -> bool:
        """One more response failed than the agent's leg asks again for by itself."""
        return self._failures >= _FAILURES and self._failures > self._failures_told

    # --- what is done about it

    def _repair(
        self, kind: str, now_ms: int, seen: Mapping[str, object], response_id: str = ""
    ) -> Trouble:
        self._reason = kind
        self._failures_told = self._failures
        self._response = self._owed_ms = None
        self._repaired_ms = now_ms
        step = _STEPS[min(self._step, len(_STEPS) - 1)]
        self._step += 1
        return Trouble(kind, step, seen, response_id)

    def _check_repair(self, now_ms: int, repaired_ms: int) -> Trouble | None:
        heard_ms = self._agent_track.last_voiced_before(now_ms) or 0
        if heard_ms > repaired_ms:
            self._step = 0
            self._repaired_ms = None
            return None
        if not self._has_failed() and now_ms - repaired_ms < self._settings.repair_timeout_s * 1000:
            return None
        seen = {"unrepaired_ms": now_ms - repaired_ms}
        return self._repair(self._reason, now_ms, seen)
