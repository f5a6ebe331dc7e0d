"""One Realtime session: what the client and the caller do, and what the agent does then.

Everything arrives in plain calls on the event loop and leaves by `emit`::

    data channel, WebSocket -> receive(text) -> server events
    telephone    -> hear(pcm) -> Ears facts  -> transcript -> Mind -> response
    pacer        -> next_frame()             -> the agent's voice

Where there is no RTP, audio comes and goes inside events (`audio_in_events`):
appended audio waits until `listen` hears it, the voice leaves as deltas, and
the client tells by truncation what it has played.

Orders of events: S1 to S8 and S10 of the protocol reference. Sockets,
codecs and clocks belong to `call.py`, `media.py` and `websocket.py`; engines are awaited, never
called. A client's mistake becomes an `error` event; the session lives on.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from agent.audio.frame import SAMPLE_RATE_HZ, SILENCE, Frame
from agent.embedded.chat import ChatFailed, ChatModel, messages
from agent.embedded.ears import (
    CHUNK_SAMPLES,
    Ears,
    SpeechFact,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
)
from agent.embedded.engines import Engines
from agent.embedded.event_audio import EventAudio, deltas
from agent.embedded.idle import IdleWatch
from agent.embedded.mind import Heard, Mind, Say, Step, words_to_say
from agent.embedded.mouth import Cut, Mouth, Started
from agent.embedded.partials import EVERY_MS, Partials
from agent.embedded.protocol import (
    Conversation,
    JsonObject,
    Refused,
    checked_item,
    checked_response,
    error_event,
    merge_session,
    new_id,
    offered_tools,
    parse_client_event,
    text_of,
    turn_detection,
)
from agent.embedded.response import AUDIO_IN_MS_PER_TOKEN, ResponseWriter
from agent.embedded.semantic import wait_ms
from agent.embedded.stage import Dropped, open_stage
from agent.embedded.transcriber import TranscriptionFailed
from agent.embedded.voice import DEFAULT_VOICE, PAUSE_BETWEEN_SENTENCES, VOICES, sentences

log = structlog.get_logger()

_BYTES_PER_MS = SAMPLE_RATE_HZ * 2 // 1000
_WORDS_PER_DELTA = 3
_LEAST_COMMIT_MS = 100
_MOST_EARLY = 64
_MOST_ASIDES = 8
STILL_THERE = "Are you still there?"
"""What a caller is told who says nothing, where the client asks for that."""
# A mind is brief; a client's greeting of this length takes two minutes to say.
_MOST_CHARS_SAID = 2000


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


class Session:
    """One conversation. Enter `run` before anything is heard or received.

    Args:
        engines: Shared by all sessions.
        config: The whole session object, as the client was told.
        emit: Sends one server event, JSON text. Never raises.
        local_time: For "are you open today".
        audio_in_events: There is no RTP.

    Attributes:
        opens_channel: False when a script keeps the data channel shut.
    """

    def __init__(
        self,
        engines: Engines,
        config: JsonObject,
        emit: Callable[[str], None],
        local_time: Callable[[], datetime],
        *,
        audio_in_events: bool = False,
    ) -> None:
        self._stage = stage = open_stage(engines, emit)
        self.opens_channel = stage is None or stage.opens_channel
        self._engines = stage or engines
        self._config = config
        self._send = stage.send if stage else emit
        self._local_time = local_time
        self._event_audio = EventAudio() if audio_in_events else None
        self._watchers: list[Callable[[str], None]] = []
        self._early: list[str] = []
        self._is_over = False
        self._conversation = Conversation()
        self._ears = Ears(engines.detector, turn_detection(config))
        self._mouth = Mouth()
        self._mind = stage.mind if stage else Mind(engines.rulebook, config["instructions"])
        self._tasks: asyncio.TaskGroup | None = None
        self._turn: _Turn | None = None
        self._transcribing: set[asyncio.Task[None]] = set()
        self._unanswered: list[Heard] = []
        self._owes_answer = False
        self._tool_outputs: list[tuple[str, str]] = []
        self._response: ResponseWriter | None = None
        self._response_task: asyncio.Task[None] | None = None
        self._spoken_ms: dict[str, int] = {}
        self._has_spoken = False
        self._heard_ms = 0
        self._appended_bytes = 0
        self._playing_until_ms = 0
        self._idle = IdleWatch()
        self._rulebook = engines.rulebook
        self._asides: dict[str, tuple[ResponseWriter, asyncio.Task[None]]] = {}
        self._handlers: dict[str, Callable[[JsonObject], None]] = {
            "session.update": self._update_session,
            "input_audio_buffer.append": self._append_audio,
            "input_audio_buffer.commit": self._commit_manually,
            "input_audio_buffer.clear": self._clear_input,
            "output_audio_buffer.clear": self._clear_output,
            "conversation.item.create": self._create_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.truncate": self._truncate_item,
            "conversation.item.delete": self._delete_item,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
        }

    async def run(self) -> None:
        """Keep the session's work together until cancelled; nothing survives it.

        Returns only when a script ends the session.
        """
        try:
            await self._run()
        except* Dropped:
            log.debug("x the script ended the session")

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            early, self._early = self._early, []
            for text in early:
                self.receive(text)
            try:
                await (self._stage.over() if self._stage else asyncio.Event().wait())
            finally:
                self._tasks = None
                if self._stage is not None:
                    self._stage.leave()
                self._is_over = True

    def opened(self) -> None:
        """The client can hear events now: S1."""
        self._send(_as_text({"type": "session.created", "session": self._config}))

    def watch(self, listener: Callable[[str], None]) -> None:
        """Let a sideband see every event from now on but the audio. It must not raise."""
        self._watchers.append(listener)

    def unwatch(self, listener: Callable[[str], None]) -> None:
        """End what `watch` began."""
        self._watchers.remove(listener)

    def expire(self, limit_s: float) -> str:
        """Tell the client that its time is over; returns the words of it."""
        length = f"{limit_s / 60:.0f} minutes" if limit_s >= 60 else f"{limit_s:g} seconds"
        refused = Refused("session_expired", f"Your session hit the maximum duration of {length}.")
        self._emit(error_event(refused))
        return refused.message

    def refuse_garbage(self) -> None:
        """Answer a message that could not even be read as text."""
        self._emit(error_event(Refused("invalid_event", "The event is not valid UTF-8.")))

    def _emit(self, event: JsonObject) -> None:
        text = _as_text(event)
        self._send(text)
        if event["type"] != "response.output_audio.delta":
            for listener in tuple(self._watchers):
                listener(text)

    # -- the client speaks ---------------------------------------------------------------------

    def receive(self, text: str) -> None:
        """Take one message of the data channel. Never raises on what it says."""
        if self._tasks is None:
            # A sideband may be sooner than the connection it is to control.
            if not self._is_over and len(self._early) < _MOST_EARLY:
                self._early.append(text)
            return
        event: JsonObject = {}
        try:
            event = parse_client_event(text)
            self._handlers.get(event["type"], _refuse_unknown)(event)
        except Refused as refused:
            log.debug("! client event refused", code=refused.code, param=refused.param)
            self._emit(error_event(refused, event.get("event_id")))

    def _update_session(self, event: JsonObject) -> None:
        if "session" not in event:
            raise Refused(
                "missing_required_parameter", "Missing required parameter: 'session'.", "session"
            )
        self._config = merge_session(self._config, event["session"], has_spoken=self._has_spoken)
        self._mind.instructions = self._config["instructions"]
        detection = turn_detection(self._config)
        self._ears.configure(detection)
        if detection is None:
            self._turn = None
        self._emit({"type": "session.updated", "session": self._config})

    def _append_audio(self, event: JsonObject) -> None:
        if self._event_audio is None:
            raise Refused("invalid_event", "The audio of this session comes over RTP.", "type")
        self._event_audio.put(event.get("audio"), self._config["audio"]["input"]["format"])

    async def listen(self) -> None:
        """Hear what the last append brought; other sessions have their turn in between."""
        while self._event_audio is not None and (pcm := self._event_audio.take()):
            self._appended_bytes += len(pcm)
            self.hear(pcm)
            await asyncio.sleep(0)

    def _commit_manually(self, _event: JsonObject) -> None:
        # The ears count in chunks of 32 ms: fill the last one, it belongs to the turn.
        surplus = self._appended_bytes % (CHUNK_SAMPLES * 2)
        self._appended_bytes = 0
        if surplus:
            self.hear(bytes(CHUNK_SAMPLES * 2 - surplus))
        start_ms, end_ms = self._ears.take_manual_turn()
        if end_ms - start_ms < _LEAST_COMMIT_MS:
            raise Refused(
                "input_audio_buffer_commit_empty", "The buffer holds less than 100 ms of audio."
            )
        trial = self._start_transcript(start_ms, end_ms)
        self._commit(new_id("item_"), trial, end_ms - start_ms, end_ms - start_ms, is_auto=False)

    def _clear_input(self, _event: JsonObject) -> None:
        self._ears.take_manual_turn()
        self._emit({"type": "input_audio_buffer.cleared"})

    def _clear_output(self, _event: JsonObject) -> None:
        if self._event_audio is not None:
            raise Refused("invalid_event", "The client of this session plays the audio.", "type")
        self._hush("client_cancelled")

    def _create_item(self, event: JsonObject) -> None:
        item = checked_item(event.get("item"))
        previous_item_id = self._conversation.add(item, event.get("previous_item_id"))
        for kind in ("added", "done"):
            self._emit(
                {
                    "type": f"conversation.item.{kind}",
                    "previous_item_id": previous_item_id,
                    "item": item,
                }
            )
        if item["type"] == "function_call_output":
            name = self._conversation.function_name(item["call_id"])
            self._tool_outputs.append((name, item["output"]))
        elif item["type"] == "message" and item["role"] == "user":
            self._unanswered.append(Heard(" ".join(part["text"] for part in item["content"])))

    def _retrieve_item(self, event: JsonObject) -> None:
        item = self._conversation.get(event.get("item_id"))
        self._emit({"type": "conversation.item.retrieved", "item": item})

    def _truncate_item(self, event: JsonObject) -> None:
        item = self._conversation.get(event.get("item_id"))
        end_ms = event.get("audio_end_ms")
        if not isinstance(end_ms, int) or isinstance(end_ms, bool) or end_ms < 0:
            raise Refused("invalid_value", "Expected a number of ms.", "audio_end_ms")
        audio_ms = self._spoken_ms.get(item["id"])
        if audio_ms is None:
            raise Refused("invalid_value", "Only spoken items can be truncated.", "item_id")
        if end_ms > audio_ms:
            raise Refused(
                "invalid_value",
                f"Audio content of {audio_ms}ms is already shorter than {end_ms}ms",
                "audio_end_ms",
            )
        self._truncate(item["id"], end_ms)
        if self._event_audio is not None:
            self._playing_until_ms = self._ears.now_ms
            self._mind.interrupted()

    def _delete_item(self, event: JsonObject) -> None:
        self._conversation.remove(event.get("item_id"))
        self._emit({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    def _create_response(self, event: JsonObject) -> None:
        options = checked_response(event.get("response"))
        for item in options.get("input") or ():
            if item["type"] == "item_reference":
                self._conversation.get(item["id"])
        if options.get("conversation") == "none":
            self._respond_aside(options)
            return
        if self._response is not None:
            raise Refused(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self._response.id}",
            )
        self._respond(options, None)

    def _cancel_response(self, event: JsonObject) -> None:
        wanted = event.get("response_id")
        if isinstance(wanted, str) and wanted in self._asides:
            self._mouth.complete(wanted)
            writer, task = self._asides.pop(wanted)
            task.cancel()
            writer.finish("cancelled", {"type": "cancelled", "reason": "client_cancelled"})
            return
        if self._response is None or (wanted is not None and wanted != self._response.id):
            raise Refused(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )
        self._mouth.complete(self._response.id)
        self._stop_generating("client_cancelled")

    # -- the caller speaks ---------------------------------------------------------------------

    def hear(self, pcm: bytes) -> None:
        """Take what the caller said: 8 kHz PCM of any length, in order. Never blocks."""
        if self._tasks is None:
            return
        for fact in self._ears.hear(pcm, over_agent=self._agent_speaks()):
            self._on_fact(fact)
        self._tell_idle()
        self._transcribe_so_far()

    def _tell_idle(self) -> None:
        """S8: when nobody has said anything for long, the silence becomes the caller's turn."""
        assert self._tasks is not None
        detection = self._config["audio"]["input"]["turn_detection"]
        now_ms = self._ears.now_ms
        since_ms = self._idle.due(
            now_ms,
            detection and detection.get("idle_timeout_ms"),
            agent_speaks=self._agent_speaks() or self._response is not None,
        )
        if since_ms is None:
            return
        item_id = new_id("item_")
        self._emit(
            {
                "type": "input_audio_buffer.timeout_triggered",
                "audio_start_ms": since_ms,
                "audio_end_ms": now_ms,
                "item_id": item_id,
            }
        )
        silence = self._tasks.create_task(_no_words())
        self._commit(item_id, silence, now_ms - since_ms, 0, is_auto=False)
        if self._takes_turns("create_response"):
            self._respond({}, [Say(STILL_THERE)])

    def _agent_speaks(self) -> bool:
        """Whether the caller hears the agent; a guess where the client plays the audio."""
        return self._mouth.speaking or self._ears.now_ms < self._playing_until_ms

    def _on_fact(self, fact: SpeechFact) -> None:
        if isinstance(fact, SpeechStarted):
            self._idle.disarm()
            self._turn = _Turn(new_id("item_"), fact.start_ms, told_ms=fact.start_ms)
            self._emit(
                {
                    "type": "input_audio_buffer.speech_started",
                    "audio_start_ms": fact.start_ms,
                    "item_id": self._turn.item_id,
                }
            )
            if self._takes_turns("interrupt_response"):
                self._hush("turn_detected")
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
        detection = turn_detection(self._config)
        if detection is None or detection.eagerness is None:
            return
        if self._turn is not turn or turn.trial is not trial or trial.cancelled():
            return
        if text := trial.result():
            self._ears.wait(
                wait_ms(
                    text,
                    detection.eagerness,
                    is_complete=self._mind.knows(text),
                    wants_number=self._mind.wants_number,
                )
            )

    def _transcribe_so_far(self) -> None:
        """Begin a partial transcript now and then, when nobody waits for a whole one."""
        turn, now_ms = self._turn, self._ears.now_ms
        if (
            turn is None
            or turn.trial is not None
            or now_ms - turn.told_ms < EVERY_MS
            or self._engines.is_transcribing
            or self._config["audio"]["input"]["transcription"] is None
        ):
            return
        assert self._tasks is not None
        turn.told_ms = now_ms
        self._tasks.create_task(self._tell_partial(turn, self._ears.audio(turn.start_ms, now_ms)))

    async def _tell_partial(self, turn: _Turn, pcm: bytes) -> None:
        text = await self._transcript(pcm)
        # Once the turn is over, its whole transcript is on its way.
        if text and self._turn is turn and (delta := turn.partials.hear(text)):
            self._emit_transcript_delta(turn.item_id, delta)

    def _emit_transcript_delta(self, item_id: str, delta: str) -> None:
        kind = "conversation.item.input_audio_transcription.delta"
        self._emit({"type": kind, "item_id": item_id, "content_index": 0, "delta": delta})

    def _end_turn(self, turn: _Turn, fact: SpeechStopped) -> None:
        self._turn = None
        self._emit(
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
            is_auto=self._takes_turns("create_response"),
            partials=turn.partials,
        )

    def _takes_turns(self, field: str) -> bool:
        detection = self._config["audio"]["input"]["turn_detection"]
        return detection is not None and bool(detection[field])

    def _start_transcript(self, start_ms: int, end_ms: int) -> asyncio.Task[str | None]:
        assert self._tasks is not None
        return self._tasks.create_task(self._transcript(self._ears.audio(start_ms, end_ms)))

    async def _transcript(self, pcm: bytes) -> str | None:
        """Write it down; None when the engine could not. A turn lost is no session lost."""
        try:
            return await self._engines.transcribe(pcm)
        except TranscriptionFailed as error:
            log.warning("! a turn could not be transcribed", reason=str(error))
            return None

    def _commit(
        self,
        item_id: str,
        trial: asyncio.Task[str | None],
        duration_ms: int,
        voiced_ms: int,
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
        previous_item_id = self._conversation.add(item)
        place = {"previous_item_id": previous_item_id}
        self._emit({"type": "input_audio_buffer.committed", **place, "item_id": item_id})
        self._emit({"type": "conversation.item.added", **place, "item": item})
        self._emit({"type": "conversation.item.done", **place, "item": item})
        self._heard_ms += duration_ms
        assert self._tasks is not None
        task = self._tasks.create_task(
            self._understand(
                item, trial, duration_ms, voiced_ms, partials or Partials(), is_auto=is_auto
            )
        )
        self._transcribing.add(task)
        task.add_done_callback(self._transcribing.discard)

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
        about: JsonObject = {"item_id": item["id"], "content_index": 0}
        wanted = self._config["audio"]["input"]["transcription"] is not None
        text = await trial
        if text is None:
            if wanted:
                failure = {
                    "type": "transcription_error",
                    "code": "audio_unintelligible",
                    "message": "The turn could not be transcribed.",
                    "param": "",
                }
                kind = "conversation.item.input_audio_transcription.failed"
                self._emit({"type": kind, **about, "error": failure})
        else:
            item["content"] = [{"type": "input_audio", "transcript": text}]
            if wanted:
                if rest := partials.finish(text):
                    self._emit_transcript_delta(item["id"], rest)
                kind = "conversation.item.input_audio_transcription.completed"
                usage = _transcription_usage(duration_ms, text)
                self._emit({"type": kind, **about, "transcript": text, "usage": usage})
        self._unanswered.append(Heard(text or "", voiced_ms))
        self._owes_answer = self._owes_answer or is_auto
        self._answer_if_free()

    # -- the agent answers -----------------------------------------------------------------------

    def _answer_if_free(self) -> None:
        """Answer what the caller said, unless somebody is at it or the caller goes on."""
        if not self._owes_answer or self._response is not None or self._ears.speaking:
            return
        if self._engines.chat is not None and any(heard.text for heard in self._unanswered):
            self._owes_answer = False
            self._respond({}, None)
            return
        steps = self._reply()
        if steps:
            self._respond({}, steps)

    def _reply(self) -> list[Step]:
        """Let the mind answer everything said since the last answer, as one turn."""
        heard = Heard(
            " ".join(heard.text for heard in self._unanswered if heard.text),
            sum(heard.voiced_ms for heard in self._unanswered),
        )
        self._unanswered.clear()
        self._owes_answer = False
        return self._mind.reply(heard, offered_tools(self._config), self._local_time())

    def _respond(self, options: JsonObject, steps: list[Step] | None) -> None:
        """Begin a response; without steps, what it does is decided once transcripts are there."""
        assert self._tasks is not None
        self._idle.disarm()
        writer = ResponseWriter(self._emit, self._conversation, self._config, options)
        self._response = writer
        writer.begin()
        self._response_task = self._tasks.create_task(self._produce(writer, options, steps))

    async def _produce(
        self, writer: ResponseWriter, options: JsonObject, steps: list[Step] | None
    ) -> None:
        async with aclosing(self._steps(options, steps)) as coming:
            async for step in coming:
                if isinstance(step, Say):
                    await self._say(writer, step.text[:_MOST_CHARS_SAID])
                else:
                    self._end_message(writer)
                    writer.call_tool(step.name, step.arguments)
        self._end_message(writer)
        writer.finish("completed", heard_ms=self._heard_ms)
        self._response = self._response_task = None
        now_ms = self._ears.now_ms
        self._idle.answered(now_ms, max(0, self._playing_until_ms - now_ms))
        self._answer_if_free()

    async def _steps(
        self, options: JsonObject, steps: list[Step] | None
    ) -> AsyncGenerator[Step, None]:
        """What a response does, step by step as it becomes known."""
        if steps is None:
            if self._transcribing:
                await asyncio.wait(self._transcribing)
            wish = str(options.get("instructions") or "")
            if self._engines.chat is not None and not words_to_say(wish):
                async with aclosing(self._ask_model(self._engines.chat, wish)) as answer:
                    async for step in answer:
                        yield step
                return
            steps = self._decide(options)
        for step in steps:
            yield step

    async def _ask_model(self, chat: ChatModel, wish: str) -> AsyncGenerator[Step, None]:
        """Let the language model answer all that was said and all that tools gave back."""
        self._unanswered.clear()
        self._tool_outputs.clear()
        self._owes_answer = False
        told = messages(self._config["instructions"], self._conversation.items, wish)
        try:
            async with aclosing(chat.answer(told, offered_tools(self._config))) as answer:
                async for step in answer:
                    yield step
        except ChatFailed as error:
            log.warning("! the language model did not answer", reason=str(error))
            for step in self._mind.trouble():
                yield step

    def _respond_aside(self, options: JsonObject) -> None:
        """Begin a response outside the conversation, beside whatever else is going on."""
        assert self._tasks is not None
        if len(self._asides) >= _MOST_ASIDES:
            raise Refused(
                "conversation_already_has_active_response",
                f"There are {_MOST_ASIDES} responses outside the conversation in progress.",
            )
        writer = ResponseWriter(self._emit, None, self._config, options)
        writer.begin()
        task = self._tasks.create_task(self._produce_aside(writer, options))
        self._asides[writer.id] = (writer, task)

    async def _produce_aside(self, writer: ResponseWriter, options: JsonObject) -> None:
        mind = Mind(self._rulebook, options.get("instructions") or self._config["instructions"])
        for step in self._decide_on_input(mind, options):
            if isinstance(step, Say):
                await self._say(writer, step.text[:_MOST_CHARS_SAID])
            else:
                self._end_message(writer)
                writer.call_tool(step.name, step.arguments)
        self._end_message(writer)
        self._asides.pop(writer.id, None)
        writer.finish("completed")

    def _decide_on_input(self, mind: Mind, options: JsonObject) -> list[Step]:
        """Answer the items a response was given instead of the conversation."""
        items = [
            self._conversation.find(item["id"]) if item["type"] == "item_reference" else item
            for item in options.get("input") or ()
        ]
        words = " ".join(text_of(item) for item in items if item and item.get("role") == "user")
        if not words or words_to_say(options.get("instructions") or ""):
            return mind.open(options.get("instructions") or "")
        tools = offered_tools({**self._config, **options})
        return mind.reply(Heard(words), tools, self._local_time())

    def _decide(self, options: JsonObject) -> list[Step]:
        if options.get("input") is not None:
            return self._decide_on_input(self._mind, options)
        if self._tool_outputs:
            outputs, self._tool_outputs = self._tool_outputs, []
            return [s for name, output in outputs for s in self._mind.tool_output(name, output)]
        if not options.get("instructions") and self._unanswered:
            return self._reply()
        return self._mind.open(options.get("instructions") or "")

    async def _say(self, writer: ResponseWriter, text: str) -> None:
        """Speak more of the response's message, one sentence while the next is made."""
        item_id = writer.message_id
        is_first = item_id is None
        if item_id is None:
            item_id = writer.begin_message()
            if writer.is_spoken and self._event_audio is None:
                self._mouth.begin(writer.id, item_id)
        speed = float(self._config["audio"]["output"]["speed"])
        voice = self._speaker()
        made_ms = self._spoken_ms.get(item_id, 0)
        for sentence in sentences(text):
            if writer.is_spoken:
                pcm = await self._engines.say(sentence, speed, voice)
                if not is_first:
                    pcm = PAUSE_BETWEEN_SENTENCES + pcm
                self._voice(writer, pcm)
                made_ms += len(pcm) // _BYTES_PER_MS
                writer.add_audio_ms(len(pcm) // _BYTES_PER_MS)
                self._spoken_ms[item_id] = made_ms
            for delta in _deltas(sentence, is_first=is_first):
                writer.delta(delta)
            is_first = False

    def _end_message(self, writer: ResponseWriter) -> None:
        """Close the message that is open, if one is."""
        if writer.message_id is None:
            return
        if writer.is_spoken:
            self._mouth.complete(writer.id)
        writer.end_message()

    def _speaker(self) -> str:
        """The session's voice; another when it is none of ours."""
        voice = self._config["audio"]["output"]["voice"]
        if isinstance(voice, str) and voice in VOICES:
            return voice
        if not self._has_spoken:
            log.warning("! no such voice; the default speaks", voice=voice, default=DEFAULT_VOICE)
        return DEFAULT_VOICE

    def _voice(self, writer: ResponseWriter, pcm: bytes) -> None:
        if self._event_audio is None:
            self._mouth.add(writer.id, pcm)
            return
        self._has_spoken = True
        for delta in deltas(pcm, writer.audio_format):
            writer.audio_delta(delta)
        begin_ms = max(self._playing_until_ms, self._ears.now_ms)
        self._playing_until_ms = begin_ms + len(pcm) // _BYTES_PER_MS

    def next_frame(self) -> Frame:
        """Take the agent's next 20 ms and tell the client what begins or ends with it."""
        frame, facts = self._mouth.next_frame()
        for fact in facts:
            if isinstance(fact, Started):
                self._has_spoken = True
                kind = "started"
            else:
                kind = "stopped"
            self._emit({"type": f"output_audio_buffer.{kind}", "response_id": fact.response_id})
        return SILENCE if self._stage is not None and self._stage.is_mute else frame

    def _hush(self, reason: str) -> None:
        """S5: stop speaking at once, and remember only what was really sent."""
        cuts: list[Cut] = self._mouth.clear()
        for cut in cuts:
            self._emit({"type": "output_audio_buffer.cleared", "response_id": cut.response_id})
            self._truncate(cut.item_id, cut.sent_ms)
        if cuts:
            self._mind.interrupted()
        self._stop_generating(reason)

    def _truncate(self, item_id: str, end_ms: int) -> None:
        item = self._conversation.find(item_id)
        if item is None:
            # Deleted, or never in the conversation: nothing is remembered of it.
            return
        item["content"] = [{"type": "output_audio", "transcript": ""}]
        self._spoken_ms[item_id] = end_ms
        self._emit(
            {
                "type": "conversation.item.truncated",
                "item_id": item_id,
                "content_index": 0,
                "audio_end_ms": end_ms,
            }
        )

    def _stop_generating(self, reason: str) -> None:
        writer, task = self._response, self._response_task
        self._response = self._response_task = None
        if writer is None or task is None:
            return
        task.cancel()
        details = {"type": "cancelled", "reason": reason}
        writer.finish("cancelled", details, heard_ms=self._heard_ms)


async def _no_words() -> str | None:
    return ""


def _as_text(event: JsonObject) -> str:
    return json.dumps({"event_id": new_id("event_"), **event})


def _refuse_unknown(event: JsonObject) -> None:
    raise Refused("invalid_value", f"Unknown event type: {event['type']:.80}", "type")


def _deltas(sentence: str, *, is_first: bool) -> list[str]:
    """Cut a sentence into a few words each, spaces in front, as the service's deltas have them."""
    words = sentence.split()
    groups = [
        " ".join(words[at : at + _WORDS_PER_DELTA]) for at in range(0, len(words), _WORDS_PER_DELTA)
    ]
    return [
        group if is_first and number == 0 else f" {group}" for number, group in enumerate(groups)
    ]


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
