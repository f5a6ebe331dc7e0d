"""The caller's turns: from the audio that comes to items with their words.

    audio -> Ears facts -> speech_started, speech_stopped -> item -> transcript -> Answers

A transcript is begun at the first pause, in case it is the end, and dropped
when the caller goes on. Orders of events: S2, S8 and S10 of the protocol
reference. What is answered, and when, belongs to `answers.py`.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.audio.frame import SAMPLE_RATE_HZ
from agent.embedded.answers import Answers
from agent.embedded.ears import (
    CHUNK_SAMPLES,
    Ears,
    SpeechFact,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
)
from agent.embedded.items import text_of
from agent.embedded.mind import Heard
from agent.embedded.partials import EVERY_MS, Partials
from agent.embedded.protocol import JsonObject, Refused, new_id
from agent.embedded.response import AUDIO_IN_MS_PER_TOKEN
from agent.embedded.semantic import wait_ms
from agent.embedded.session_object import turn_detection
from agent.embedded.state import State
from agent.embedded.transcriber import TranscriptionFailed

log = structlog.get_logger()

_LEAST_COMMIT_MS = 100
_MOST_TRANSCRIBING = 16
_BYTES_PER_MS = SAMPLE_RATE_HZ * 2 // 1000


@dataclass(slots=True)
class _Turn:
    """The caller's turn that is open, and the transcripts begun of it.

    Attributes:
        item_id: What it will be.
        start_ms: With the prefix padding.
        trial: Begun at the last pause, in case it is the end.
        partials: What was told of the words so far.
        told_ms: How far the last partial transcript reached.
    """

    item_id: str
    start_ms: int
    trial: asyncio.Task[str | None] | None = None
    partials: Partials = field(default_factory=Partials)
    told_ms: int = 0


class Turns:
    """The turns of one session's caller.

    Args:
        state: The session.
        ears: Its ears.
        answers: Told what was said.
    """

    def __init__(self, state: State, ears: Ears, answers: Answers) -> None:
        self._state = state
        self._ears = ears
        self._answers = answers
        self._turn: _Turn | None = None
        self._unaligned_bytes = 0

    def hear(self, pcm: bytes, *, over_agent: bool) -> None:
        """Take what the caller said: 8 kHz PCM of any length, in order. Never blocks.

        Args:
            pcm: The audio.
            over_agent: The caller hears the agent meanwhile.
        """
        self._unaligned_bytes = (self._unaligned_bytes + len(pcm)) % (CHUNK_SAMPLES * 2)
        for fact in self._ears.hear(pcm, over_agent=over_agent):
            self._on_fact(fact)
        self._tell_idle()
        self._transcribe_so_far()

    def configure(self) -> None:
        """Take the session's turn detection as it is now."""
        detection = turn_detection(self._state.config)
        self._ears.configure(detection)
        if detection is None:
            self._turn = None

    def commit(self, _event: JsonObject) -> None:
        """S10: the client says that the turn is over.

        Raises:
            Refused: There is less than 100 ms of it, or too much is waiting already.
        """
        self.demand_room()
        # The ears count in chunks of 32 ms: fill the last one, it belongs to the turn.
        if self._unaligned_bytes:
            self.hear(bytes(CHUNK_SAMPLES * 2 - self._unaligned_bytes), over_agent=False)
        start_ms, end_ms = self._ears.take_manual_turn()
        if end_ms - start_ms < _LEAST_COMMIT_MS:
            raise Refused(
                "input_audio_buffer_commit_empty", "The buffer holds less than 100 ms of audio."
            )
        trial = self._start_transcript(start_ms, end_ms)
        duration_ms = end_ms - start_ms
        pcm = self._ears.audio(start_ms, end_ms)
        self._commit(new_id("item_"), trial, duration_ms, duration_ms, pcm, is_auto=False)

    def clear(self, _event: JsonObject) -> None:
        """Forget what came since the last commit."""
        self._ears.take_manual_turn()
        self._state.emit({"type": "input_audio_buffer.cleared"})

    def _tell_idle(self) -> None:
        """S8: when nobody has said anything for long, the silence becomes the caller's turn."""
        since_ms = self._answers.silent_since()
        if since_ms is None:
            return
        item_id, now_ms = new_id("item_"), self._ears.now_ms
        self._state.emit(
            {
                "type": "input_audio_buffer.timeout_triggered",
                "audio_start_ms": since_ms,
                "audio_end_ms": now_ms,
                "item_id": item_id,
            }
        )
        silence = self._state.start(_no_words())
        pcm = self._ears.audio(since_ms, now_ms)
        self._commit(item_id, silence, now_ms - since_ms, 0, pcm, is_auto=False)
        self._answers.speak_up()

    def _on_fact(self, fact: SpeechFact) -> None:
        if isinstance(fact, SpeechStarted):
            self._turn = _Turn(new_id("item_"), fact.start_ms, told_ms=fact.start_ms)
            self._state.emit(
                {
                    "type": "input_audio_buffer.speech_started",
                    "audio_start_ms": fact.start_ms,
                    "item_id": self._turn.item_id,
                }
            )
            self._answers.caller_began()
            return
        turn = self._turn
        if turn is None:
            return
        if isinstance(fact, SpeechPaused):
            turn.trial = self._start_transcript(fact.start_ms, fact.now_ms)
            turn.trial.add_done_callback(lambda trial: self._judge_pause(turn, trial))
        elif isinstance(fact, SpeechResumed):
            if turn.trial is not None:
                turn.trial.cancel()
            turn.trial = None
        else:
            self._end_turn(turn, fact)

    def _judge_pause(self, turn: _Turn, trial: asyncio.Task[str | None]) -> None:
        """Let the words so far decide how long the pause may last: `semantic_vad`."""
        detection = turn_detection(self._state.config)
        if detection is None or detection.eagerness is None:
            return
        if self._turn is not turn or turn.trial is not trial or trial.cancelled():
            return
        if text := trial.result():
            mind = self._state.mind
            self._ears.wait(
                wait_ms(
                    text,
                    detection.eagerness,
                    is_complete=mind.knows(text),
                    wants_number=mind.wants_number,
                )
            )

    def _end_turn(self, turn: _Turn, fact: SpeechStopped) -> None:
        self._turn = None
        self._state.emit(
            {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": fact.end_ms,
                "item_id": turn.item_id,
            }
        )
        trial = turn.trial or self._start_transcript(fact.start_ms, fact.end_ms)
        self._commit(
            turn.item_id,
            trial,
            fact.end_ms - fact.start_ms,
            fact.voiced_ms,
            self._ears.audio(fact.start_ms, fact.end_ms),
            is_auto=self._state.takes_turns("create_response"),
            partials=turn.partials,
        )

    # -- words -----------------------------------------------------------------------------------

    def _transcribe_so_far(self) -> None:
        """Begin a partial transcript now and then, when nobody waits for a whole one."""
        turn, now_ms = self._turn, self._ears.now_ms
        if (
            turn is None
            or turn.trial is not None
            or now_ms - turn.told_ms < EVERY_MS
            or self._state.engines.is_transcribing
            or self._state.config["audio"]["input"]["transcription"] is None
        ):
            return
        turn.told_ms = now_ms
        self._state.start(self._tell_partial(turn, self._ears.audio(turn.start_ms, now_ms)))

    async def _tell_partial(self, turn: _Turn, pcm: bytes) -> None:
        text = await self._transcript(pcm)
        # Once the turn is over, its whole transcript is on its way.
        if text and self._turn is turn and (delta := turn.partials.hear(text)):
            self._emit_delta({"item_id": turn.item_id, "content_index": 0}, delta)

    def _emit_delta(self, about: JsonObject, delta: str) -> None:
        kind = "conversation.item.input_audio_transcription.delta"
        self._state.emit({"type": kind, **about, "delta": delta})

    def _start_transcript(self, start_ms: int, end_ms: int) -> asyncio.Task[str | None]:
        return self._state.start(self._transcript(self._ears.audio(start_ms, end_ms)))

    async def _transcript(self, pcm: bytes) -> str | None:
        """Write it down; None when the engine could not. A turn lost is no session lost."""
        try:
            return await self._state.engines.transcribe(pcm)
        except TranscriptionFailed as error:
            log.warning("! a turn could not be transcribed", reason=str(error))
            return None

    def _commit(
        self,
        item_id: str,
        trial: asyncio.Task[str | None],
        duration_ms: int,
        voiced_ms: int,
        pcm: bytes,
        *,
        is_auto: bool,
        partials: Partials | None = None,
    ) -> None:
        """S2: the turn becomes an item; its words follow when they are known."""
        item: JsonObject = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        place = {"previous_item_id": self._state.conversation.add(item)}
        emit = self._state.emit
        emit({"type": "input_audio_buffer.committed", **place, "item_id": item_id})
        emit({"type": "conversation.item.added", **place, "item": item})
        emit({"type": "conversation.item.done", **place, "item": item})
        self._state.heard_ms += duration_ms
        self._state.recordings.keep(item_id, 0, pcm)
        self._begin(
            self._understand(
                item, trial, duration_ms, voiced_ms, partials or Partials(), is_auto=is_auto
            )
        )

    def take_item(self, item: JsonObject, audio: Mapping[int, bytes]) -> None:
        """Understand an item with audio that the client brought whole.

        Args:
            item: In the conversation already.
            audio: 8 kHz PCM by content index.
        """
        for index, pcm in audio.items():
            self._state.recordings.keep(item["id"], index, pcm)
            self._state.heard_ms += len(pcm) // _BYTES_PER_MS
        self._begin(self._understand_item(item, audio))

    def demand_room(self) -> None:
        """Take no more audio of a client than can be understood in time.

        Raises:
            Refused: Many turns of this session still wait for their words.
        """
        if len(self._state.transcribing) >= _MOST_TRANSCRIBING:
            raise Refused(
                "rate_limit_exceeded", f"{_MOST_TRANSCRIBING} turns are being transcribed."
            )

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a turn be understood; responses wait for it."""
        task = self._state.start(work)
        self._state.transcribing.add(task)
        task.add_done_callback(self._state.transcribing.discard)

    async def _understand_item(self, item: JsonObject, audio: Mapping[int, bytes]) -> None:
        for index, pcm in audio.items():
            text = item["content"][index]["transcript"] or await self._transcript(pcm)
            self._tell_words(item, index, text, len(pcm) // _BYTES_PER_MS, Partials())
        self._answers.caller_said(Heard(text_of(item)), wants_answer=False)

    async def _understand(
        self,
        item: JsonObject,
        trial: asyncio.Task[str | None],
        duration_ms: int,
        voiced_ms: int,
        partials: Partials,
        *,
        is_auto: bool,
    ) -> None:
        text = await trial
        self._tell_words(item, 0, text, duration_ms, partials)
        self._answers.caller_said(Heard(text or "", voiced_ms), wants_answer=is_auto)

    def _tell_words(
        self,
        item: JsonObject,
        index: int,
        text: str | None,
        duration_ms: int,
        partials: Partials,
    ) -> None:
        """Put the words into the item, and tell a client who wants them; None: there are none."""
        about: JsonObject = {"item_id": item["id"], "content_index": index}
        wanted = self._state.config["audio"]["input"]["transcription"] is not None
        if text is not None:
            # The events already sent keep their own content: a new part, not a changed one.
            item["content"] = list(item["content"])
            item["content"][index] = {"type": "input_audio", "transcript": text}
        if not wanted:
            return
        kind = "conversation.item.input_audio_transcription"
        if text is None:
            failure = {
                "type": "transcription_error",
                "code": "audio_unintelligible",
                "message": self._state.engines.deafness or "The turn could not be transcribed.",
                "param": "",
            }
            self._state.emit({"type": f"{kind}.failed", **about, "error": failure})
            return
        if rest := partials.finish(text):
            self._emit_delta(about, rest)
        usage = _transcription_usage(duration_ms, text)
        self._state.emit({"type": f"{kind}.completed", **about, "transcript": text, "usage": usage})


async def _no_words() -> str | None:
    return ""


def _transcription_usage(duration_ms: int, text: str) -> dict[str, Any]:
    audio = duration_ms // AUDIO_IN_MS_PER_TOKEN
    words = len(text.split())
    return {
        "type": "tokens",
        "total_tokens": audio + words,
        "input_tokens": audio,
        "input_token_details": {"text_tokens": 0, "audio_tokens": audio},
        "output_tokens": words,
    }
