"""What was said, by whom, when, and how much of it was heard.

Takes call events and the measured voice tracks, and returns records for the log.
Decides only; no I/O, no clock: every method is told `now_ms`, milliseconds since the answer.

Turns keep the order of the conversation's item chain. The caller's transcript
often arrives after the agent's reply has begun, so arrival says nothing.
"""

from dataclasses import asdict, dataclass

from agent.audio.voice import VoiceTrack
from agent.call.events import (
    AgentInterrupted,
    AgentLost,
    AgentSpeaking,
    AgentSpoke,
    AgentText,
    AgentTextDelta,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerText,
    CallerTextFailed,
    CallEvent,
    ResponseEnded,
    ResponseStarted,
    Speaker,
    TurnBegan,
    TurnTruncated,
)
from agent.call.history import Item
from agent.call.latency import Latency, Split
from agent.call.records import TurnRecord

SPOKEN_CHARS_PER_S = 15
"""How fast a telephone voice gets through text; measured 14 to 16 on English replies.

What a call is thought to be like until whole sentences of its own voice were heard.
"""

_PRIOR_MS = 2000  # how much speech the assumption weighs

_ONSET_LOOKBACK_MS = 250
"""Audio may reach the ear before the event that announces it: two channels, no common order."""

_RECENT_MS = 600
"""The far end hears speech only after its onset; a voice this recent is the one it means."""


_LATE_MS = 5000
"""Words and answers that have not come by then will hardly come."""


@dataclass(slots=True)
class _Turn:
    """One turn while it is being put together."""

    item_id: str
    speaker: Speaker
    response_id: str = ""
    text: str = ""
    heard_text: str = ""
    interrupted: bool = False
    mute: bool = False
    over: bool = False
    started_ms: int | None = None
    ended_ms: int | None = None
    latency_ms: int | None = None
    split: Split | None = None


class Conversation:
    """The turns of one call, from the greeting to the ending."""

    def __init__(
        self,
        call_id: str,
        caller_track: VoiceTrack,
        agent_track: VoiceTrack,
        latency: Latency | None = None,
    ) -> None:
        """Tell the turns of `call_id`; waits are divided only where `latency` is measured."""
        self._call_id = call_id
        self._caller_track = caller_track
        self._agent_track = agent_track
        self._latency = latency
        self._chain: list[str] = []
        self._turns: dict[str, _Turn] = {}
        self._spoken_in: dict[str, list[_Turn]] = {}
        self._touched: set[str] = set()
        self._agent_ended_ms = 0
        self._speaking_ms: dict[str, int] = {}
        self._running: dict[str, None] = {}
        self._holds: list[tuple[int, int | None]] = []
        self._spoken_chars = SPOKEN_CHARS_PER_S * _PRIOR_MS // 1000
        self._spoken_ms = _PRIOR_MS
        self._last_told: dict[str, TurnRecord] = {}

    @property
    def agent_is_speaking(self) -> bool:
        """Audio of some response has begun and neither ended nor been cut."""
        return bool(self._speaking_ms)

    @property
    def agent_is_busy(self) -> bool:
        """The agent speaks, or is about to."""
        return bool(self._speaking_ms or self._running)

    @property
    def chain(self) -> list[Item]:
        """Everything in order: what was said, as far as it was heard, and what was not spoken."""
        return [
            Item(item_id, turn.speaker, turn.heard_text) if turn else Item(item_id)
            for item_id in self._chain
            for turn in (self._turns.get(item_id),)
        ]

    def is_settled(self, now_ms: int) -> bool:
        """Everything the caller said is written down and answered, or was so long ago."""
        last = next((turn for turn in map(self._turns.get, reversed(self._chain)) if turn), None)
        open_turns = [turn for turn in self._turns.values() if not turn.over]
        if last is not None and last.speaker == "caller":
            open_turns.append(last)
        return all(
            now_ms - (turn.ended_ms or turn.started_ms or 0) >= _LATE_MS for turn in open_turns
        )

    def receive(self, event: CallEvent, now_ms: int) -> list[TurnRecord]:
        """Take one event; return what the log must be told."""
        match event:
            case TurnBegan(item_id, previous_item_id, speaker):
                self._begin(item_id, previous_item_id, speaker, now_ms)
            case CallerSpeechStarted(item_id):
                self._caller_turn(item_id).started_ms = self._caller_onset(now_ms)
            case CallerSpeechStopped(item_id):
                self._caller_turn(item_id).ended_ms = self._caller_track.last_voiced_before(now_ms)
            case CallerText(item_id, text):
                turn = self._caller_turn(item_id)
                turn.text = turn.heard_text = text
                turn.over = True
            case CallerTextFailed(item_id):
                self._caller_turn(item_id).over = True
            case AgentTextDelta(item_id, response_id, text):
                turn = self._agent_turn(item_id, response_id)
                if not turn.over:
                    turn.text += text
            case AgentText(item_id, response_id, text):
                turn = self._agent_turn(item_id, response_id)
                turn.text = text
                if turn.over:
                    turn.heard_text = self._heard(turn)
            case AgentSpeaking(response_id):
                self._speaking_ms.setdefault(response_id, now_ms)
            case AgentSpoke(response_id):
                self._running.pop(response_id, None)  # its end may have been lost on the way
                self._finish_response(response_id, now_ms)
            case AgentInterrupted(response_id):
                self._cut_agent((response_id,), now_ms)
            case AgentLost():
                self._lose(now_ms)
            case TurnTruncated(item_id, audio_end_ms):
                self._truncate(item_id, audio_end_ms)
            case ResponseStarted(response_id):
                # One at a time: whatever else runs, its end was lost on the way.
                self._running = {response_id: None}
            case ResponseEnded(response_id):
                self._running.pop(response_id, None)
            case _:
                pass
        return self._changed(now_ms)

    def cut(self, now_ms: int) -> list[TurnRecord]:
        """The agent was stopped: what it was saying ends here; return what the log must be told."""
        self._cut_agent(tuple(self._speaking_ms), now_ms)
        self._running.clear()
        self.hold(now_ms, is_held=False)
        return self._changed(now_ms)

    def hold(self, now_ms: int, *, is_held: bool) -> None:
        """The agent's voice was made to wait, or goes on: waiting is no time of speech."""
        waits = bool(self._holds) and self._holds[-1][1] is None
        if is_held and not waits:
            self._holds.append((now_ms, None))
        elif waits and not is_held:
            self._holds[-1] = (self._holds[-1][0], now_ms)

    def finish(self, now_ms: int) -> list[TurnRecord]:
        """The call is over: what the agent was still saying was heard only in part."""
        self._cut_all(now_ms)
        return self._changed(now_ms)

    # --- the chain

    def _begin(
        self, item_id: str, previous_item_id: str | None, speaker: Speaker | None, now_ms: int
    ) -> None:
        if item_id not in self._chain:
            self._insert(item_id, previous_item_id)
        if speaker == "caller":
            turn = self._caller_turn(item_id)
            if turn.started_ms is None:
                turn.started_ms = self._caller_onset(now_ms)
        elif speaker == "agent":
            self._agent_turn(item_id, "")

    def _insert(self, item_id: str, previous_item_id: str | None) -> None:
        if previous_item_id in self._chain[:-1]:
            place = self._chain.index(previous_item_id) + 1
            self._touched.update(self._chain[place:])
            self._chain.insert(place, item_id)
        else:
            self._chain.append(item_id)

    def _caller_turn(self, item_id: str) -> _Turn:
        self._touched.add(item_id)
        return self._turns.setdefault(item_id, _Turn(item_id, "caller"))

    def _agent_turn(self, item_id: str, response_id: str) -> _Turn:
        self._touched.add(item_id)
        turn = self._turns.setdefault(item_id, _Turn(item_id, "agent"))
        if response_id and not turn.response_id:
            turn.response_id = response_id
            self._spoken_in.setdefault(response_id, []).append(turn)
        if item_id not in self._chain:
            self._chain.append(item_id)
        return turn

    # --- the ear

    def _caller_onset(self, now_ms: int) -> int:
        runs = self._caller_track.runs
        if runs and runs[-1][1] > now_ms - _RECENT_MS:
            return runs[-1][0]
        return max(now_ms, 0)

    def _note_start(self, turn: _Turn) -> None:
        """Find when this turn reached the ear, and how long the caller had waited for it."""
        speaking_ms = self._speaking_ms.get(turn.response_id)
        if turn.started_ms is not None or speaking_ms is None:
            return
        turn.started_ms = self._agent_track.first_voiced_since(
            max(speaking_ms - _ONSET_LOOKBACK_MS, self._agent_ended_ms)
        )
        if turn.started_ms is not None and self._caller_spoke_last(turn):
            last_voiced_ms = self._caller_track.last_voiced_before(turn.started_ms)
            if last_voiced_ms is not None:
                turn.latency_ms = turn.started_ms - last_voiced_ms
                if self._latency is not None:
                    turn.split = self._latency.split(
                        turn.response_id, last_voiced_ms, turn.started_ms
                    )

    def _caller_spoke_last(self, turn: _Turn) -> bool:
        """Whether the caller waited for this turn; one that gave no sound ended no wait."""
        for item_id in reversed(self._chain[: self._chain.index(turn.item_id)]):
            earlier = self._turns.get(item_id)
            if earlier is not None and not (earlier.over and earlier.started_ms is None):
                return earlier.speaker == "caller"
        return False

    def _finish_response(self, response_id: str, now_ms: int) -> None:
        turns = [turn for turn in self._spoken_in.get(response_id, ()) if not turn.over]
        # Two turns of one response share its sound: judged before the first of them is ended.
        # Not by the announcement of the sound, which may come after a short word is over.
        is_mute = self._agent_track.first_voiced_since(self._agent_ended_ms) is None
        for turn in turns:
            turn.mute = is_mute and turn.started_ms is None
            self._end_agent_turn(turn, now_ms, interrupted=False)
        self._speaking_ms.pop(response_id, None)

    def _cut_agent(self, response_ids: tuple[str, ...], now_ms: int) -> None:
        for response_id in response_ids:
            for turn in self._spoken_in.get(response_id, ()):
                self._end_agent_turn(turn, now_ms, interrupted=True)
            self._speaking_ms.pop(response_id, None)

    def _cut_all(self, now_ms: int) -> None:
        self._cut_agent(tuple(self._speaking_ms), now_ms)
        for turn in self._turns.values():
            if turn.speaker == "agent" and not turn.over:
                self._end_agent_turn(turn, now_ms, interrupted=True)

    def _lose(self, now_ms: int) -> None:
        """Nothing more will be heard of what is not over."""
        self._cut_all(now_ms)
        self.hold(now_ms, is_held=False)
        self._running.clear()
        for turn in self._turns.values():
            if not turn.over:
                turn.over = True
                turn.ended_ms = turn.ended_ms or self._caller_track.last_voiced_before(now_ms)
                self._touched.add(turn.item_id)

    def _end_agent_turn(self, turn: _Turn, now_ms: int, *, interrupted: bool) -> None:
        self._note_start(turn)
        self._touched.add(turn.item_id)
        if turn.over:
            return
        turn.over = True
        turn.interrupted = interrupted
        turn.ended_ms = now_ms
        if turn.started_ms is not None or not (turn.mute or interrupted):
            last_voiced_ms = self._agent_track.last_voiced_before(now_ms)
            turn.ended_ms = max(last_voiced_ms or now_ms, turn.started_ms or 0)
        turn.heard_text = self._heard(turn)
        self._agent_ended_ms = max(self._agent_ended_ms, turn.ended_ms)
        if not interrupted and turn.started_ms is not None:
            self._spoken_chars += len(turn.text)
            self._spoken_ms += self._speech_ms(turn.started_ms, turn.ended_ms)

    def _truncate(self, item_id: str, audio_end_ms: int) -> None:
        turn = self._turns.get(item_id)
        if turn is None or turn.speaker != "agent" or not turn.interrupted:
            return
        if turn.started_ms is not None and turn.ended_ms is not None:
            held_ms = (
                turn.ended_ms - turn.started_ms - self._speech_ms(turn.started_ms, turn.ended_ms)
            )
            turn.ended_ms = min(turn.ended_ms, turn.started_ms + audio_end_ms + held_ms)
        self._touched.add(item_id)
        turn.heard_text = self._heard(turn)

    def _heard(self, turn: _Turn) -> str:
        """The words that fit into the time the ear was given; whole words only.

        The far end tells the text of a turn long before its sound, so only the pace of
        this voice says where in the text a moment lies.
        """
        if turn.mute:
            return ""
        if not turn.interrupted:
            return turn.text
        if turn.started_ms is None or turn.ended_ms is None:
            return ""
        speech_ms = self._speech_ms(turn.started_ms, turn.ended_ms)
        chars = speech_ms * self._spoken_chars // self._spoken_ms
        if chars >= len(turn.text):
            return turn.text
        return turn.text[: turn.text.rfind(" ", 0, chars + 1) + 1].rstrip()

    def _speech_ms(self, from_ms: int, to_ms: int) -> int:
        """A stretch of time without what the agent was held."""
        held_ms = sum(
            max(0, min(to_ms if end is None else end, to_ms) - max(start, from_ms))
            for start, end in self._holds
        )
        return max(0, to_ms - from_ms - held_ms)

    # --- what the log is told

    def _changed(self, now_ms: int) -> list[TurnRecord]:
        for response_id in self._speaking_ms:
            self._touched.update(turn.item_id for turn in self._spoken_in.get(response_id, ()))
        touched, self._touched = self._touched, set()
        changed = []
        for item_id in sorted(touched & self._turns.keys(), key=self._position):
            turn = self._turns[item_id]
            position = self._position(item_id)
            if position < 0 or (turn.speaker == "agent" and not turn.text):
                continue
            self._note_start(turn)
            streaming = turn.speaker == "agent" and not turn.over
            told = self._last_told.get(item_id)
            started_ms = turn.started_ms
            if started_ms is None:
                started_ms = told.started_ms if told else max(now_ms, 0)
            record = TurnRecord(
                call_id=self._call_id,
                item_id=item_id,
                position=position,
                speaker=turn.speaker,
                text=turn.text,
                heard_text=turn.heard_text,
                interrupted=turn.interrupted,
                started_ms=started_ms,
                ended_ms=turn.ended_ms,
                latency_ms=turn.latency_ms,
                **(asdict(turn.split) if turn.split else {}),
            )
            if record != told and not (streaming and self._only_grew(told, record)):
                self._last_told[item_id] = record
                changed.append(record)
        return changed

    def _position(self, item_id: str) -> int:
        """Where the item stands in the chain; -1 while it has no place in it yet."""
        for position in range(len(self._chain) - 1, -1, -1):
            if self._chain[position] == item_id:
                return position
        return -1

    @staticmethod
    def _only_grew(told: TurnRecord | None, record: TurnRecord) -> bool:
        """A few more words of a sentence in progress are not worth a write each."""
        return (
            told is not None
            and told.position == record.position
            and told.started_ms == record.started_ms
            and len(record.text) - len(told.text) < SPOKEN_CHARS_PER_S * 2
        )
