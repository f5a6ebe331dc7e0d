"""Whether a sound from the caller shall stop the agent.

A cough, an "mm-hm" or the line's own echo is no wish to speak. Without a guard the
far end decides, and its decision is only followed. With one, the agent falls silent
or goes on lower at once, and what the sound was decides the rest::

    sound while the agent is busy -> in doubt -> it lasts, or has words -> stop, answer
                                              -> it was nothing         -> go on

Decides only: told events and `now_ms`, returns what follows.
"""

import re
from dataclasses import dataclass

from agent.audio.echo import is_echo
from agent.audio.voice import VoiceTrack
from agent.call.events import (
    AgentLost,
    AgentSpoke,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerText,
    CallerTextDelta,
    CallerTextFailed,
    CallEvent,
    ResponseStarted,
)
from agent.call.settings import InterruptionSettings

_RECENT_MS = 600
"""The far end hears speech only after its onset; a voice this recent is the one it means."""

_NO_ECHO_MS = 300
"""A voice that has gone its own way for so long is no echo any more."""

_LONGEST_QUIET_MS = 2500
"""Nobody has spoken for so long, whatever the far end believes: the agent is not kept waiting."""

_LAST_WORDS_MS = 1500
"""Said into what were the agent's last words, a "yes" is no backchannel but the answer."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """What follows; by default nothing.

    Attributes:
        flush: The agent has stopped by itself: drop what has arrived.
        stop: The agent must be stopped.
        doubts: It became doubtful whether the agent may go on (True), or certain that
            it may (False).
        answer: The caller's turn is over and meant for the agent.
        ignored: Why a sound did not count; empty if none was judged.
    """

    flush: bool = False
    stop: bool = False
    doubts: bool | None = None
    answer: bool = False
    ignored: str = ""


NOTHING = Reaction()


@dataclass(slots=True)
class _Doubt:
    item_id: str
    since_ms: int
    text: str = ""
    ended_ms: int | None = None
    is_echo: bool = False


class Interruption:
    """The caller's sounds of one call, judged."""

    def __init__(
        self, settings: InterruptionSettings, caller_track: VoiceTrack, agent_track: VoiceTrack
    ) -> None:
        """Judge by what both sides were heard to say on the phone leg."""
        self._settings = settings
        self._caller_track = caller_track
        self._agent_track = agent_track
        self._backchannels = {word for phrase in settings.backchannels for word in _words(phrase)}
        self._doubt: _Doubt | None = None
        self._open_id = ""
        """The caller's turn that is going on and is meant."""
        self._is_asked = False
        """An answer was asked for and has not begun."""
        self._ignored_id = ""
        self._ignored_text = ""
        self._ignored_as_echo = False
        self._ignored_ms = 0

    @property
    def is_guarding(self) -> bool:
        """We decide, not the far end."""
        return self._settings.guard != "off"

    def receive(self, event: CallEvent, now_ms: int, *, is_busy: bool) -> Reaction:
        """Take one event.

        Args:
            event: What happened.
            now_ms: Milliseconds since the answer.
            is_busy: The agent speaks, or is about to.
        """
        reaction = self._judge(event, now_ms, is_busy=is_busy)
        self._is_asked = self._is_asked or reaction.answer
        return reaction

    def _judge(self, event: CallEvent, now_ms: int, *, is_busy: bool) -> Reaction:
        match event:
            case ResponseStarted() if self._is_asked and self.is_guarding:
                # The caller went on before the answer began: it would talk over them.
                self._is_asked = False
                return Reaction(stop=bool(self._open_id))
            case AgentLost():
                self._doubt, self._open_id, self._is_asked = None, "", False
                return NOTHING
            case CallerSpeechStarted(item_id):
                return self._begin(item_id, now_ms, is_busy=is_busy)
            case CallerSpeechStopped(item_id):
                return self._end(item_id, now_ms, is_busy=is_busy)
            case CallerTextDelta(item_id, text) if doubt := self._in_doubt(item_id):
                doubt.text += text
                return self._look(now_ms, is_busy=is_busy)
            case CallerText(item_id, text):
                return self._read(item_id, text, now_ms, is_busy=is_busy)
            case CallerTextFailed(item_id) if doubt := self._in_doubt(item_id):
                return self._ignore(doubt, now_ms)
            case AgentSpoke() if self._ignored_text:
                is_answer = now_ms - self._ignored_ms < _LAST_WORDS_MS
                self._ignored_text = ""
                return Reaction(answer=is_answer)
            case _:
                return NOTHING

    def check(self, now_ms: int, *, is_busy: bool) -> Reaction:
        """Look again, every few frames: time alone may decide."""
        reaction = self._look(now_ms, is_busy=is_busy)
        self._is_asked = self._is_asked or reaction.answer
        return reaction

    def _look(self, now_ms: int, *, is_busy: bool) -> Reaction:
        doubt = self._doubt
        if doubt is None:
            return NOTHING
        if doubt.is_echo:
            return self._check_echo(doubt, now_ms, is_busy=is_busy)
        if not is_busy or self._is_meant(doubt):
            return self._confirm(doubt, is_busy=is_busy)
        return self._ignore(doubt, now_ms) if self._is_stale(doubt, now_ms) else NOTHING

    def press(self, *, is_busy: bool) -> Reaction:
        """The caller pressed a key that no tool waits for."""
        if not self._settings.keys or not is_busy:
            return NOTHING
        self._doubt = None
        return Reaction(stop=True)

    # --- one sound

    def _begin(self, item_id: str, now_ms: int, *, is_busy: bool) -> Reaction:
        self._ignored_text = ""
        if not self.is_guarding:
            return Reaction(flush=is_busy)
        if not is_busy:
            self._doubt = None
            self._open_id = item_id
            return NOTHING
        was_in_doubt = self._doubt is not None and not self._doubt.is_echo
        if self._doubt is not None and was_in_doubt:
            # Its words may still come, and count.
            self._ignored_id, self._ignored_as_echo = self._doubt.item_id, False
        runs = self._caller_track.runs
        is_recent = bool(runs) and runs[-1][1] > now_ms - _RECENT_MS
        self._doubt = _Doubt(
            item_id, runs[-1][0] if is_recent else now_ms, is_echo=self._hears_echo()
        )
        if self._doubt.is_echo:
            return NOTHING
        return NOTHING if was_in_doubt else Reaction(doubts=True)

    def _end(self, item_id: str, now_ms: int, *, is_busy: bool) -> Reaction:
        doubt = self._in_doubt(item_id)
        if doubt is None:
            self._open_id = ""
            return Reaction(answer=item_id != self._ignored_id)
        if doubt.is_echo:
            return self._ignore(doubt, now_ms)
        doubt.ended_ms = now_ms
        return self._look(now_ms, is_busy=is_busy)

    def _read(self, item_id: str, text: str, now_ms: int, *, is_busy: bool) -> Reaction:
        if doubt := self._in_doubt(item_id):
            doubt.text = text
            if doubt.ended_ms is None or self._is_meant(doubt):
                return self._look(now_ms, is_busy=is_busy)
            return self._ignore(doubt, now_ms)
        if item_id != self._ignored_id or self._ignored_as_echo:
            return NOTHING
        self._ignored_text = text
        if self._word_count(text) < self._settings.min_words:
            return NOTHING
        # It took longer to understand than we waited: better late than never.
        self._ignored_id = self._ignored_text = ""
        return Reaction(stop=is_busy, answer=True)

    def _check_echo(self, doubt: _Doubt, now_ms: int, *, is_busy: bool) -> Reaction:
        """An echo ends with its cause; what goes on by itself is somebody speaking."""
        if self._hears_echo():
            doubt.since_ms = now_ms
        if self._caller_track.voiced_ms_since(doubt.since_ms) < _NO_ECHO_MS:
            return NOTHING
        doubt.is_echo, doubt.text = False, ""
        return Reaction(doubts=True) if is_busy else self._confirm(doubt, is_busy=False)

    def _confirm(self, doubt: _Doubt, *, is_busy: bool) -> Reaction:
        self._doubt = None
        is_over = doubt.ended_ms is not None
        self._open_id = "" if is_over else doubt.item_id
        return Reaction(stop=is_busy, doubts=False, answer=is_over)

    def _ignore(self, doubt: _Doubt, now_ms: int) -> Reaction:
        self._doubt = None
        self._ignored_id = doubt.item_id
        self._ignored_text = "" if doubt.is_echo else doubt.text
        self._ignored_as_echo = doubt.is_echo
        self._ignored_ms = now_ms
        why = "echo" if doubt.is_echo else "backchannel" if doubt.text.strip() else "no words"
        return Reaction(doubts=False, ignored=why)

    # --- what it was

    def _in_doubt(self, item_id: str) -> _Doubt | None:
        doubt = self._doubt
        return doubt if doubt is not None and doubt.item_id == item_id else None

    def _is_meant(self, doubt: _Doubt) -> bool:
        return (
            self._caller_track.voiced_ms_since(doubt.since_ms) >= self._settings.min_speech_ms
            or self._word_count(doubt.text) >= self._settings.min_words
        )

    def _is_stale(self, doubt: _Doubt, now_ms: int) -> bool:
        """No words came in time, or not even the end of the sound was told."""
        if doubt.ended_ms is not None:
            return now_ms - doubt.ended_ms >= self._settings.words_timeout_ms
        voiced_ms = self._caller_track.last_voiced_before(now_ms) or 0
        return now_ms - max(voiced_ms, doubt.since_ms) >= _LONGEST_QUIET_MS

    def _word_count(self, text: str) -> int:
        """Count the words that are more than a nod."""
        return sum(word not in self._backchannels for word in _words(text))

    def _hears_echo(self) -> bool:
        return is_echo(
            self._agent_track.levels, self._caller_track.levels, self._settings.echo_below_db
        )


def _words(text: str) -> list[str]:
    """Words in lower case; "mm-hm" is one, and marks are none."""
    return re.findall(r"[^\W_]+(?:[-'\u2019][^\W_]+)*", text.lower())
