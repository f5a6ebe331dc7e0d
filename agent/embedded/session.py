"""One Realtime session: the client's events come in, and each goes to whom it concerns.

Everything arrives in plain calls on the event loop and leaves by `emit`::

    data channel, WebSocket -> receive(text) -> here, Turns, Answers -> server events
    telephone    -> hear(pcm)    -> Turns   (turns.py, what the caller says)
    pacer        -> next_frame() <- Speech  (speech.py, the agent's voice)
                                    Answers (answers.py, what the agent does)

Where there is no RTP, audio comes and goes inside events (`audio_in_events`):
appended audio waits until `listen` hears it.

Sockets, codecs and clocks belong to `call.py`, `media.py` and `websocket.py`;
engines are awaited, never called. A client's mistake becomes an `error` event;
the session lives on.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog

from agent.audio.frame import SILENCE, Frame
from agent.embedded.answers import Answers
from agent.embedded.ears import Ears
from agent.embedded.engines import Engines
from agent.embedded.event_audio import EventAudio, decode_item, encode_item
from agent.embedded.items import checked_item, split_audio
from agent.embedded.mind import Mind
from agent.embedded.protocol import JsonObject, Refused, error_event, new_id, parse_client_event
from agent.embedded.session_object import (
    CHANNEL_SESSION_CHARS,
    SOCKET_SESSION_CHARS,
    merge_session,
    turn_detection,
)
from agent.embedded.speech import Speech
from agent.embedded.stage import Dropped, open_stage
from agent.embedded.state import State
from agent.embedded.trace import SessionTrace
from agent.embedded.turns import Turns

log = structlog.get_logger()

_MOST_EARLY_CHARS = 1024 * 1024
# What a transcription session does not take, as if it had never heard of it.
_TALKING = frozenset({"response.create", "response.cancel", "output_audio_buffer.clear"})


class Session:
    """One conversation. Enter `run` before anything is heard or received.

    Args:
        engines: Shared by all sessions.
        config: The whole session object, as the client was told.
        emit: Sends one server event, JSON text. Never raises.
        local_time: For "are you open today".
        audio_in_events: There is no RTP.
        trace: Told every event, in and out.

    Attributes:
        stage: The performance, where a script is played.
    """

    def __init__(
        self,
        engines: Engines,
        config: JsonObject,
        emit: Callable[[str], None],
        local_time: Callable[[], datetime],
        *,
        audio_in_events: bool = False,
        trace: SessionTrace | None = None,
    ) -> None:
        self._trace = trace
        if trace is not None:
            trace.opened(config)
            emit = trace.before(emit)
        self.stage = stage = open_stage(engines, emit)
        self._send = stage.send if stage else emit
        self._watchers: list[Callable[[str], None]] = []
        self._early: list[str] = []
        self._is_over = False
        mind = stage.mind if stage else Mind(engines.rulebook, config.get("instructions", ""))
        self._state = State(config, stage or engines, mind, self._emit, local_time)
        self._event_audio = EventAudio() if audio_in_events else None
        ears = Ears(engines.detector, turn_detection(config))
        self._speech = Speech(self._state, ears, in_events=audio_in_events)
        self._answers = Answers(self._state, ears, self._speech)
        self._turns = Turns(self._state, ears, self._answers)
        self._handlers: dict[str, Callable[[JsonObject], None]] = {
            "session.update": self._update_session,
            "input_audio_buffer.append": self._append_audio,
            "input_audio_buffer.commit": self._turns.commit,
            "input_audio_buffer.clear": self._turns.clear,
            "output_audio_buffer.clear": self._clear_output,
            "conversation.item.create": self._create_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.truncate": self._truncate_item,
            "conversation.item.delete": self._delete_item,
            "response.create": self._answers.create,
            "response.cancel": self._answers.cancel,
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
            self._state.tasks = tasks
            early, self._early = self._early, []
            for text in early:
                self._take(text)
            try:
                await (self.stage.over() if self.stage else asyncio.Event().wait())
            finally:
                self._state.tasks = None
                if self.stage is not None:
                    self.stage.leave()
                self._is_over = True

    def opened(self) -> None:
        """The client can hear events now: S1."""
        self._send(_as_text({"type": "session.created", "session": self._state.config}))

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
        if self._trace is not None:
            self._trace.received(text)
        self._take(text)

    def _take(self, text: str) -> None:
        if self._state.tasks is None:
            # A sideband may be sooner than the connection it is to control.
            if not self._is_over and sum(map(len, self._early)) + len(text) < _MOST_EARLY_CHARS:
                self._early.append(text)
            return
        event: JsonObject = {}
        try:
            event = parse_client_event(text)
            if self.stage is not None and not self.stage.lets_in(event):
                return
            handler = self._handlers.get(event["type"], _refuse_unknown)
            if self._state.is_transcription and event["type"] in _TALKING:
                handler = _refuse_talk
            handler(event)
        except Refused as refused:
            log.debug("! client event refused", code=refused.code, param=refused.param)
            self._emit(error_event(refused, event.get("event_id")))

    def _update_session(self, event: JsonObject) -> None:
        change, state = _required(event, "session"), self._state
        state.config = merge_session(
            state.config,
            change,
            has_begun=state.conversation.last_id is not None or self._answers.is_busy,
            has_spoken=self._speech.has_begun,
            # A sideband can be told of what is too long for the data channel.
            most_chars=SOCKET_SESSION_CHARS
            if self._event_audio or self._watchers
            else CHANNEL_SESSION_CHARS,
        )
        state.mind.instructions = state.config.get("instructions", "")
        self._turns.configure()
        self._emit({"type": "session.updated", "session": state.config})

    def _append_audio(self, event: JsonObject) -> None:
        if self._event_audio is None:
            raise Refused("invalid_event", "The audio of this session comes over RTP.", "type")
        audio_format = self._state.config["audio"]["input"]["format"]
        self._event_audio.put(event.get("audio"), audio_format)

    def _clear_output(self, _event: JsonObject) -> None:
        if self._event_audio is not None:
            raise Refused("invalid_event", "The client of this session plays the audio.", "type")
        self._answers.hush("client_cancelled")

    def _create_item(self, event: JsonObject) -> None:
        item = checked_item(_required(event, "item"))
        audio = self._audio_in(event["item"])
        if audio:
            self._turns.demand_room()
        place = {
            "previous_item_id": self._state.conversation.add(item, event.get("previous_item_id"))
        }
        self._emit({"type": "conversation.item.added", **place, "item": item})
        self._emit({"type": "conversation.item.done", **place, "item": item})
        if audio:
            self._turns.take_item(item, audio)
        else:
            self._answers.take_item(item)

    def _audio_in(self, item: JsonObject) -> dict[int, bytes]:
        audio_format = self._state.config["audio"]["input"]["format"]
        return {
            index: decode_item(audio, audio_format, f"item.content[{index}].audio")
            for index, audio in split_audio(item)[1].items()
        }

    def _retrieve_item(self, event: JsonObject) -> None:
        item = self._state.conversation.get(_required(event, "item_id"))
        # A data channel carries 256 KiB at once; that is five seconds of audio.
        if self._event_audio is not None and item["type"] == "message":
            audio_format = self._state.config["audio"]["input"]["format"]
            parts = list(item["content"])
            for index, part in enumerate(parts):
                if pcm := self._state.recordings.find(item["id"], index):
                    parts[index] = {**part, "audio": encode_item(pcm, audio_format)}
            item = {**item, "content": parts}
        self._emit({"type": "conversation.item.retrieved", "item": item})

    def _truncate_item(self, event: JsonObject) -> None:
        item = self._state.conversation.get(_required(event, "item_id"))
        if _required(event, "content_index") != 0:
            raise Refused("invalid_value", "A spoken item has one part, 0.", "content_index")
        self._speech.truncate(item["id"], _required(event, "audio_end_ms"))

    def _delete_item(self, event: JsonObject) -> None:
        self._state.conversation.remove(_required(event, "item_id"))
        self._state.recordings.forget(event["item_id"])
        self._emit({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    # -- audio -----------------------------------------------------------------------------------

    def hear(self, pcm: bytes) -> None:
        """Take what the caller said: 8 kHz PCM of any length, in order. Never blocks."""
        if self._state.tasks is not None:
            self._turns.hear(pcm, over_agent=self._speech.is_heard)

    async def listen(self) -> None:
        """Hear what the last append brought; other sessions have their turn in between."""
        while self._event_audio is not None and (pcm := self._event_audio.take()):
            self.hear(pcm)
            await asyncio.sleep(0)

    def next_frame(self) -> Frame:
        """Take the agent's next 20 ms and tell the client what begins or ends with it."""
        frame = self._speech.next_frame()
        return SILENCE if self.stage is not None and self.stage.is_mute else frame


def _as_text(event: JsonObject) -> str:
    return json.dumps({"event_id": new_id("event_"), **event})


def _required(event: JsonObject, field: str) -> Any:
    if field not in event:
        raise Refused(
            "missing_required_parameter", f"Missing required parameter: '{field}'.", field
        )
    return event[field]


def _refuse_talk(event: JsonObject) -> None:
    raise Refused(
        "invalid_value", f"A transcription session has no {event['type']}: it only listens.", "type"
    )


def _refuse_unknown(event: JsonObject) -> None:
    raise Refused("invalid_value", f"Unknown event type: {event['type']:.80}", "type")
