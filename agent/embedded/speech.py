"""The agent's voice on its way to the client, and how much of it the caller heard.

    RTP        words -> pcm -> Mouth -> next_frame(), 20 ms at a time
    in events  words -> pcm -> response.output_audio.delta; the client plays it

Over RTP the server knows what was sent; in events it guesses from the audio
that came meanwhile, and the client tells by truncation what it has played.
"""

import asyncio
import math
from collections.abc import Iterable
from contextlib import suppress

import structlog

from agent.audio.frame import SAMPLE_RATE_HZ, Frame
from agent.embedded.ears import Ears
from agent.embedded.event_audio import deltas
from agent.embedded.mouth import Cut, Mouth, Started
from agent.embedded.protocol import Refused
from agent.embedded.response import OutOfTokens, ResponseWriter
from agent.embedded.state import State
from agent.embedded.voice import (
    DEFAULT_VOICE,
    PAUSE_BETWEEN_SENTENCES,
    VOICES,
    first_breath,
    sentences,
)

log = structlog.get_logger()

_BYTES_PER_MS = SAMPLE_RATE_HZ * 2 // 1000
_WORDS_PER_DELTA = 3
# The pacer takes a frame every 20 ms.
_BEGIN_TIMEOUT_S = 0.1


class Speech:
    """The voice of one session.

    Args:
        state: The session.
        ears: Whose clock tells what the client may have played.
        in_events: There is no RTP.

    Attributes:
        has_begun: Audio went out already, which locks the voice.
        heard: Of each item that was cut short, by id: the words that came before the cut.
    """

    def __init__(self, state: State, ears: Ears, *, in_events: bool) -> None:
        self.has_begun = False
        self.heard: dict[str, str] = {}
        self._state = state
        self._ears = ears
        self._in_events = in_events
        self._mouth = Mouth()
        self._begun = asyncio.Event()
        self._spoken_ms: dict[str, int] = {}
        self._sentences: dict[str, list[tuple[str, int]]] = {}
        self._playing_until_ms = 0

    @property
    def is_heard(self) -> bool:
        """Whether the caller hears the agent; a guess where the client plays the audio."""
        return self._mouth.speaking or self._ears.now_ms < self._playing_until_ms

    @property
    def ahead_ms(self) -> int:
        """How long the client may still play what it was sent in events."""
        return max(0, self._playing_until_ms - self._ears.now_ms)

    @property
    def waiting_ms(self) -> int:
        """How much the caller has still to be told over RTP."""
        return self._mouth.waiting_ms

    async def say(self, writer: ResponseWriter, text: str) -> None:
        """Speak or write more of a response's message, one sentence while the next is made.

        Raises:
            OutOfTokens: Its `max_output_tokens` are spent; what fitted was said.
        """
        item_id = writer.message_id
        is_first = item_id is None
        if item_id is None:
            item_id = writer.begin_message()
            if writer.is_spoken and not self._in_events:
                self._mouth.begin(writer.id, item_id)
        speed = float(self._state.config["audio"]["output"]["speed"])
        voice = self._speaker(writer.voice)
        pieces = sentences(text)
        goes_on = False
        if is_first and writer.is_spoken and pieces:
            head, rest = first_breath(pieces[0])
            goes_on = bool(rest)
            pieces[:1] = [head, rest] if goes_on else [head]
        for number, sentence in enumerate(pieces):
            pcm = b""
            if writer.is_spoken:
                # The comma keeps the voice up where the sentence goes on.
                words = f"{sentence.rstrip(',;:')}," if goes_on and number == 0 else sentence
                pcm = await self._state.engines.say(words, speed, voice)
                if pcm and not is_first and not (goes_on and number == 1):
                    pcm = PAUSE_BETWEEN_SENTENCES + pcm
            share = writer.afford(sentence, len(pcm) // _BYTES_PER_MS)
            if pcm:
                spoken = (sentence, len(pcm) // _BYTES_PER_MS)
                self._sentences.setdefault(item_id, []).append(spoken)
                self._voice(writer, item_id, pcm[: int(share * len(pcm)) // 2 * 2])
            said = sentence[: int(share * len(sentence))]
            if share < 1:
                said = said.rpartition(" ")[0]
            for delta in _deltas(said, is_first=is_first):
                writer.delta(delta)
            if share < 1:
                raise OutOfTokens
            is_first = False

    def write(self, writer: ResponseWriter, text: str) -> None:
        """Write more of a response's message, every character as it is.

        Raises:
            OutOfTokens: Its `max_output_tokens` are spent; what fitted was written.
        """
        if writer.message_id is None:
            writer.begin_message()
        share = writer.afford(text)
        if fitting := text[: math.ceil(share * len(text))]:
            writer.delta(fitting)
        if share < 1:
            raise OutOfTokens

    def _speaker(self, voice: object) -> str:
        """The voice wished for; another when it is none of ours."""
        if isinstance(voice, str) and voice in VOICES:
            return voice
        if not self.has_begun:
            log.warning("! no such voice; the default speaks", voice=voice, default=DEFAULT_VOICE)
        return DEFAULT_VOICE

    def _voice(self, writer: ResponseWriter, item_id: str, pcm: bytes) -> None:
        duration_ms = len(pcm) // _BYTES_PER_MS
        writer.add_audio_ms(duration_ms)
        self._spoken_ms[item_id] = self._spoken_ms.get(item_id, 0) + duration_ms
        if not self._in_events:
            self._mouth.add(writer.id, pcm)
            return
        self.has_begun = True
        for delta in deltas(pcm, writer.audio_format):
            writer.audio_delta(delta)
        begin_ms = max(self._playing_until_ms, self._ears.now_ms)
        self._playing_until_ms = begin_ms + duration_ms

    async def end_message(self, writer: ResponseWriter, *, is_whole: bool = True) -> None:
        """Close the response's message, if one is open.

        S3: what can be heard at once has begun before. Nothing else is waited for.
        """
        if writer.message_id is None:
            return
        self.complete(writer.id)
        if self._mouth.is_about_to_begin(writer.id):
            self._begun.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEGIN_TIMEOUT_S):
                    await self._begun.wait()
        writer.end_message("completed" if is_whole else "incomplete")

    def complete(self, response_id: str) -> None:
        """Nothing more will be said in this response."""
        self._mouth.complete(response_id)

    def next_frame(self) -> Frame:
        """Take the agent's next 20 ms and tell the client what begins or ends with it."""
        frame, facts = self._mouth.next_frame()
        for fact in facts:
            if isinstance(fact, Started):
                self.has_begun = True
                self._begun.set()
                kind = "started"
            else:
                kind = "stopped"
            self._state.emit(
                {"type": f"output_audio_buffer.{kind}", "response_id": fact.response_id}
            )
        return frame

    def cut(self) -> None:
        """S5: stop speaking at once, and remember only what was really sent."""
        cuts: list[Cut] = self._mouth.clear()
        for cut in cuts:
            self._state.emit(
                {"type": "output_audio_buffer.cleared", "response_id": cut.response_id}
            )
            # Deleted, or never in the conversation: nothing is remembered of it.
            if self._state.conversation.find(cut.item_id) is not None:
                self._truncate(cut.item_id, cut.sent_ms)
        if cuts:
            self._state.mind.interrupted()

    def truncate(self, item_id: str, end_ms: object) -> None:
        """Forget what the caller did not hear of an item, as the client says.

        Raises:
            Refused: It was never spoken, or not for so long.
        """
        if not isinstance(end_ms, int) or isinstance(end_ms, bool) or end_ms < 0:
            raise Refused("invalid_value", "Expected a number of ms.", "audio_end_ms")
        audio_ms = self._spoken_ms.get(item_id)
        if audio_ms is None:
            raise Refused("invalid_value", "Only spoken items can be truncated.", "item_id")
        if end_ms > audio_ms:
            raise Refused(
                "invalid_value",
                f"Audio content of {audio_ms}ms is already shorter than {end_ms}ms",
                "audio_end_ms",
            )
        self._truncate(item_id, end_ms)
        if self._in_events:
            self._playing_until_ms = self._ears.now_ms
            self._state.mind.interrupted()

    def _truncate(self, item_id: str, end_ms: int) -> None:
        item = self._state.conversation.get(item_id)
        item["content"] = [{"type": "output_audio", "transcript": ""}]
        self._spoken_ms[item_id] = end_ms
        self.heard[item_id] = words_until(self._sentences.get(item_id, ()), end_ms)
        self._state.emit(
            {
                "type": "conversation.item.truncated",
                "item_id": item_id,
                "content_index": 0,
                "audio_end_ms": end_ms,
            }
        )


def words_until(spoken: Iterable[tuple[str, int]], end_ms: int) -> str:
    """Find the words that were spoken before a moment.

    Args:
        spoken: Sentences, and how long each took.
        end_ms: From the beginning of the first.
    """
    told: list[str] = []
    for sentence, duration_ms in spoken:
        words = sentence.split()
        share = min(1.0, max(0, end_ms) / duration_ms) if duration_ms else 1.0
        told += words[: int(share * len(words))]
        end_ms -= duration_ms
    return " ".join(told)


def _deltas(sentence: str, *, is_first: bool) -> list[str]:
    """Cut a sentence into a few words each, spaces in front, as the service's deltas have them."""
    words = sentence.split()
    groups = [
        " ".join(words[at : at + _WORDS_PER_DELTA]) for at in range(0, len(words), _WORDS_PER_DELTA)
    ]
    return [
        group if is_first and number == 0 else f" {group}" for number, group in enumerate(groups)
    ]
