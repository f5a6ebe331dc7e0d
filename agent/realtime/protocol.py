"""The Realtime protocol: JSON text in and out, facts for the call in between.

    data channel text -> RealtimeProtocol.receive -> call events
    greet, speak, give_tool_output -> take_outgoing -> data channel text

Decides only; no I/O, no clock. Here and nowhere else is known what an event is
called. Whatever the far end sends, `receive` does not raise: unknown events are
ignored and garbage is counted, each logged once per kind.

The far end runs one response at a time, and may start one by itself whenever
the caller stops speaking. So what we want said waits in a line here until
nothing is being said, and goes back into it when the far end was faster.

Source: the GA event reference of the OpenAI Realtime API, names of August 2026.
"""

import binascii
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import orjson
import structlog

from agent.call.clean import clean
from agent.call.events import (
    AgentError,
    AgentGone,
    AgentInterrupted,
    AgentSpeaking,
    AgentSpoke,
    AgentText,
    AgentTextDelta,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerText,
    CallerTextDelta,
    CallerTextFailed,
    CallEvent,
    ResponseEnded,
    ResponseStarted,
    ResponseStatus,
    Speaker,
    ToolCallRequested,
    TurnBegan,
    TurnTruncated,
    UsageReported,
)
from agent.call.history import Past, PastNote, PastTool, PastTurn
from agent.call.ports import AgentProfile
from agent.realtime.session import session_of, speakable
from agent.realtime.settings import RealtimeSettings
from agent.realtime.usage import response_usage, transcription_usage

_V = TypeVar("_V")

_MOST_EVENT_CHARS = 1_000_000
_MOST_ID_CHARS = 128
_MOST_TEXT_CHARS = 8_000
_MOST_REASON_CHARS = 300
_MOST_ARGUMENT_CHARS = 64_000
_MOST_OUTPUT_CHARS = 32_000
_MOST_REMEMBERED = 1_000  # items and responses of one call; a talkative hour has some hundred
_MOST_WAITING_REQUESTS = 8
_MOST_LOGGED_KINDS = 32

_STATUSES: dict[str, ResponseStatus] = {
    "completed": "completed",
    "cancelled": "cancelled",
    "incomplete": "incomplete",
    "failed": "failed",
}
_BILLED = ("completed", "incomplete")
"""A response that ended so was paid for, whether we are told how much or not."""
_SPEAKERS: dict[str, Speaker] = {"user": "caller", "assistant": "agent"}
_ALREADY_ACTIVE = "conversation_already_has_active_response"
_NOT_ACTIVE = "response_cancel_not_active"
_LEAST_UNHEARD_MS = 200
"""Less is on its way at any moment, and no word is lost by it."""
_PAST = "past"
"""Stands for the responses of earlier sessions."""
_IGNORED = frozenset(
    {
        "conversation.created",
        "conversation.item.deleted",
        "conversation.item.input_audio_transcription.segment",
        "conversation.item.retrieved",
        "input_audio_buffer.dtmf_event_received",
        "input_audio_buffer.timeout_triggered",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
        "mcp_list_tools.in_progress",
        "rate_limits.updated",
        "response.content_part.added",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.output_item.added",
    }
)


class AudioPiece(NamedTuple):
    """Speech that came inside an event, coded as `configure` asked; empty where the item's ends."""

    response_id: str
    item_id: str
    content_index: int
    payload: bytes


class _Garbage(Exception):
    """An event that lacks what its type promises; the text names what."""


@dataclass(slots=True)
class _Request:
    """One `response.create` that waits for its moment."""

    response: dict[str, Any] | None
    is_patient: bool = True
    """Waits for the caller to stop speaking."""
    event_id: str = ""


@dataclass(slots=True)
class _ToolRound:
    """The tool calls of one response, until all their outputs are back."""

    outstanding: set[str] = field(default_factory=set)
    is_done: bool = False
    wants_reply: bool = False


class RealtimeProtocol:
    """One session's protocol state.

    Attributes:
        is_ready: The far end has taken our session settings.
        refusal: Why it did not, in its own words; empty while it may still.
        garbage: Messages that were not what they should be.
        expires_at: When the far end will end the session, in Unix seconds; None if unknown.
        session_id: The far end's name of the session; "" until it told one.
    """

    def __init__(self) -> None:
        self.is_ready = False
        self.refusal = ""
        self.garbage = 0
        self.expires_at: int | None = None
        self.session_id = ""
        self._log = structlog.get_logger()
        self._logged: set[str] = set()
        self._outgoing: list[str] = []
        self._takes_audio = False
        self._audio: list[AudioPiece] = []
        self._event_count = 0
        self._update_event_id = ""
        self._billed_model = self._billed_transcription_model = ""
        self._transcribed_items: dict[str, None] = {}
        self._begun: dict[str, None] = {}
        self._agent_parts: dict[str, dict[int, str]] = {}
        self._arguments: dict[str, str] = {}
        self._tool_calls: dict[str, str] = {}
        """Every tool call that was asked for, with its response."""
        self._rounds: dict[str, _ToolRound] = {}
        self._active: dict[str, None] = {}
        self._ended: dict[str, None] = {}
        self._requests: deque[_Request] = deque()
        self._sent_request: _Request | None = None
        """The last `response.create` sent; a late refusal puts it back."""
        self._awaits_response = False
        self._answer: tuple[str, _Request] | None = None
        """The response our last request got, to ask again should it fail."""
        self._failed_in_row = 0
        self._caller_speaks = False
        self._speaking: dict[str, None] = {}
        """Responses whose audio has begun and neither ended nor been cut."""
        self._unheard_ms = 0
        """What the far end, which counts what it sent, wrongly takes for heard."""
        self._is_unwanted = False
        """What was asked for last is to be cancelled as soon as it begins."""
        self._cancelled: dict[str, None] = {}
        """Responses we stopped: what the far end made before it read that is not for the ear."""
        self._handlers: dict[str, Callable[[dict[str, Any]], list[CallEvent]]] = {
            "session.created": self._session_created,
            "session.updated": self._session_updated,
            "error": self._error,
            "input_audio_buffer.speech_started": self._speech_started,
            "input_audio_buffer.speech_stopped": self._speech_stopped,
            "input_audio_buffer.committed": self._committed,
            "input_audio_buffer.cleared": self._buffer_cleared,
            "conversation.item.added": self._item,
            "conversation.item.created": self._item,
            "conversation.item.done": self._item,
            "conversation.item.truncated": self._truncated,
            "conversation.item.input_audio_transcription.delta": self._transcribed_so_far,
            "conversation.item.input_audio_transcription.completed": self._transcribed,
            "conversation.item.input_audio_transcription.failed": self._not_transcribed,
            "output_audio_buffer.started": self._audio_began,
            "output_audio_buffer.stopped": lambda e: [AgentSpoke(self._audio_over(e))],
            "output_audio_buffer.cleared": lambda e: [AgentInterrupted(self._audio_over(e))],
            "response.created": self._response_created,
            "response.done": self._response_done,
            "response.output_item.done": self._output_item_done,
            "response.output_audio.delta": self._audio_delta,
            "response.output_audio.done": self._audio_done,
            "response.output_audio_transcript.delta": self._agent_delta,
            "response.output_text.delta": self._agent_delta,
            "response.output_audio_transcript.done": self._agent_text,
            "response.output_text.done": self._agent_text,
            "response.function_call_arguments.done": self._arguments_done,
        }

    # --- from the far end

    def receive(self, text: str) -> list[CallEvent]:
        """Take one message of the data channel.

        Args:
            text: What came. Should be one JSON object with a `type`.

        Returns:
            What it means for the call, in order; often nothing.
        """
        try:
            event, kind = _parse(text)
            handler = self._handlers.get(kind)
            if handler is None:
                if kind not in _IGNORED:
                    self._log_once(f"unknown {kind}", "< unknown event ignored", event_type=kind)
                return []
            facts = handler(event)
        except _Garbage as error:
            self.garbage += 1
            self._log_once(f"garbage {error}", "! event not understood", reason=str(error))
            return []
        self._send_next_request()
        return facts

    def take_outgoing(self) -> list[str]:
        """Hand over what is to be sent now, in order; the next call starts empty."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def take_audio(self) -> list[AudioPiece]:
        """Hand over the speech that came inside events, in order; the next call starts empty."""
        audio, self._audio = self._audio, []
        return audio

    # --- from the call

    def configure(
        self, profile: AgentProfile, settings: RealtimeSettings, audio_format: str = ""
    ) -> None:
        """Ask for the session this agent needs; `is_ready` once the far end has it.

        Args:
            profile: Who answers.
            settings: As they hold for this agent.
            audio_format: How audio inside events is coded ("audio/pcmu"), both ways; empty
                where it travels elsewhere.
        """
        is_embedded = settings.provider == "embedded"
        self._billed_model = "embedded" if is_embedded else settings.model
        self._billed_transcription_model = (
            "embedded" if is_embedded else settings.transcription.model
        )
        session = session_of(profile, settings)
        self._takes_audio = bool(audio_format)
        if audio_format:
            for direction in ("input", "output"):
                session["audio"][direction]["format"] = {"type": audio_format}
        self._update_event_id = self._send("session.update", session=session)

    def greet(self, greeting: str) -> None:
        """Have these words said now, even while the caller speaks."""
        self._request(
            _Request(
                {
                    "instructions": (
                        "Say exactly these words to the caller, in their language, "
                        f'and nothing else: "{greeting}"'
                    ),
                    "tool_choice": "none",
                },
                is_patient=False,
            )
        )

    def speak(self, instructions: str) -> None:
        """Have something said in the agent's own words once nobody speaks."""
        self._request(_Request({"instructions": instructions, "tool_choice": "none"}))

    def answer(self) -> None:
        """Ask for the answer to what was said; once, however often this is called."""
        if all(request.response is not None for request in self._requests):
            self._request(_Request(None))

    def note(self, text: str) -> None:
        """Put a fact into the conversation that nobody said."""
        self._send("conversation.item.create", item=_message("system", "input_text", text))

    def recall(self, past: Sequence[Past]) -> None:
        """Put what was said and done before into the conversation, in this order.

        The items get ids of ours, so that they are known again when the far end tells of
        them. A tool call without output is one whose output is still to be given.
        """
        running = set()
        for number, one in enumerate(past):
            if isinstance(one, PastTool) and one.output is None:
                running.add(one.tool_call_id)
            for part, item in enumerate(_items_of(one)):
                item_id = f"past_{number}_{part}"
                _remember(self._begun, item_id, None)
                self._send("conversation.item.create", item={"id": item_id, **item})
        if running:
            self._rounds[_PAST] = _ToolRound(outstanding=running, is_done=True)
            for tool_call_id in running:
                _remember(self._tool_calls, tool_call_id, _PAST)

    def interrupt(self, unheard_ms: int = 0) -> None:
        """Stop the response that is made or heard, and forget those not begun.

        Args:
            unheard_ms: How much of what the far end has sent will never be heard.
        """
        self._unheard_ms = unheard_ms if unheard_ms >= _LEAST_UNHEARD_MS else 0
        self._requests.clear()
        if self._awaits_response:
            self._is_unwanted = True
        for response_id in self._active:
            self._cancel(response_id)
        if self._speaking:
            self._send("output_audio_buffer.clear")

    def truncate(self, item_id: str, content_index: int, heard_ms: int) -> None:
        """Say how much of an item was heard, to a far end that cannot know."""
        self._send(
            "conversation.item.truncate",
            item_id=item_id,
            content_index=content_index,
            audio_end_ms=heard_ms,
        )

    def give_tool_output(self, tool_call_id: str, output: str, *, reply: bool = True) -> None:
        """Send a tool's output; let the agent go on once all of that response are there."""
        response_id = self._tool_calls.get(tool_call_id)
        tools = self._rounds.get(response_id or "")
        if response_id is None or tools is None or tool_call_id not in tools.outstanding:
            self._log_once("stray output", "! output of a tool call nobody asked for")
            return
        self._send("conversation.item.create", item=_output(tool_call_id, output))
        tools.outstanding.discard(tool_call_id)
        tools.wants_reply = tools.wants_reply or reply
        self._finish_round(response_id)
        self._send_next_request()

    # --- responses, one at a time

    def _request(self, request: _Request) -> None:
        if len(self._requests) >= _MOST_WAITING_REQUESTS:
            self._requests.popleft()
        self._requests.append(request)
        self._send_next_request()

    def _send_next_request(self) -> None:
        if not self._requests or self._active or self._awaits_response:
            return
        if self._caller_speaks and self._requests[0].is_patient:
            return
        request = self._requests.popleft()
        if request.response is None:
            request.event_id = self._send("response.create")
        else:
            request.event_id = self._send("response.create", response=request.response)
        self._sent_request = request
        self._awaits_response = True

    def _finish_round(self, response_id: str) -> None:
        tools = self._rounds.get(response_id)
        if tools is None or tools.outstanding or not tools.is_done:
            return
        del self._rounds[response_id]
        if tools.wants_reply:
            self._request(_Request(None))

    def _response_created(self, event: dict[str, Any]) -> list[CallEvent]:
        response_id = _id(_object(event, "response"), "id")
        if response_id in self._active or response_id in self._ended:
            return []
        # One at a time: another means that the end of the last one was lost on its way.
        self._active.clear()
        self._active[response_id] = None
        if self._awaits_response and self._sent_request is not None:
            self._answer = (response_id, self._sent_request)
        self._awaits_response = False
        self._caller_speaks = False
        if self._is_unwanted:
            self._is_unwanted = False
            self._cancel(response_id)
        return [ResponseStarted(response_id)]

    def _cancel(self, response_id: str) -> None:
        _remember(self._cancelled, response_id, None)
        self._send("response.cancel", response_id=response_id)

    def _response_done(self, event: dict[str, Any]) -> list[CallEvent]:
        response = _object(event, "response")
        response_id = _id(response, "id")
        if response_id in self._ended:
            return []
        _remember(self._ended, response_id, None)
        self._active.pop(response_id, None)
        if self._sent_request is None:
            self._awaits_response = False
        facts = self._finished_items(response_id, response.get("output"))
        tools = self._rounds.get(response_id)
        if tools is not None:
            tools.is_done = True
            self._finish_round(response_id)
        status = _STATUSES.get(str(response.get("status")), "incomplete")
        reason = _status_reason(response.get("status_details"))
        self._failed_in_row = self._failed_in_row + 1 if status == "failed" else 0
        if self._failed_in_row == 1 and tools is None:
            self._ask_again(response_id)
        usage = response_usage(response.get("usage"))
        if usage is not None or status in _BILLED:
            facts.append(UsageReported("response", response_id, self._billed_model, usage))
        return [*facts, ResponseEnded(response_id, status, reason)]

    def _ask_again(self, response_id: str) -> None:
        """A response failed: nobody would speak, and the caller would wait in silence."""
        if self._caller_speaks or self._requests or self._active or self._awaits_response:
            return  # the next response is on its way
        answer = self._answer
        asked = answer[1].response if answer and answer[0] == response_id else None
        self._request(_Request(asked))

    def _finished_items(self, response_id: str, output: object) -> list[CallEvent]:
        """Say what the response held, in case its own events were cut off."""
        facts: list[CallEvent] = []
        for item in output if isinstance(output, list) else []:
            if isinstance(item, dict) and item.get("id"):
                facts += self._tool_call(item, response_id)
                facts += self._untold_text(item, response_id)
        return facts

    def _error(self, event: dict[str, Any]) -> list[CallEvent]:
        error = _object(event, "error")
        code = clean(str(error.get("code") or error.get("type") or "error"), 64)
        message = clean(str(error.get("message") or ""), _MOST_REASON_CHARS)
        event_id = error.get("event_id")
        if code == _NOT_ACTIVE:
            return []  # it ended while our wish was on its way
        if code == "session_expired":
            return [AgentGone("the Realtime session expired")]
        # Some servers do not say which event an error is about; then it is
        # about what we last asked for.
        asked = self._update_event_id and not self.is_ready
        if asked and event_id in (self._update_event_id, None, ""):
            param = clean(str(error.get("param") or ""), _MOST_ID_CHARS)
            is_named = not param or param in message
            self.refusal = (message or code) if is_named else f"{param}: {message or code}"
        sent = self._sent_request
        if sent is not None and event_id in (sent.event_id, None, ""):
            self._sent_request = None
            self._awaits_response = False
            if self._is_unwanted:
                self._is_unwanted = code == _ALREADY_ACTIVE and not self._active
                self._awaits_response = self._is_unwanted
                return [] if code == _ALREADY_ACTIVE else [AgentError(code, message)]
            if code == _ALREADY_ACTIVE:
                # Its response.created may still be on its way: without it we
                # would ask again at once, and be refused again.
                self._awaits_response = not self._active
                self._answer = None
                self._requests.appendleft(sent)
                return []
            if error.get("type") == "server_error" and event_id and self._failed_in_row == 0:
                self._failed_in_row = 1
                self._requests.appendleft(sent)
        return [AgentError(code, message)]

    # --- the session

    def _session_created(self, event: dict[str, Any]) -> list[CallEvent]:
        session = _object(event, "session")
        self.session_id = self.session_id or _optional_id(session, "id") or ""
        expires_at = session.get("expires_at")
        if isinstance(expires_at, int) and expires_at > 0:  # 0 in what is not connected yet
            self.expires_at = expires_at
        return []

    def _session_updated(self, event: dict[str, Any]) -> list[CallEvent]:
        self._session_created(event)
        self.is_ready = self.is_ready or bool(self._update_event_id)
        return []

    # --- the caller

    def _speech_started(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id = _id(event, "item_id")
        self._caller_speaks = True
        return [CallerSpeechStarted(item_id)]

    def _speech_stopped(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id = _id(event, "item_id")
        self._caller_speaks = False
        return [CallerSpeechStopped(item_id)]

    def _committed(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id = _id(event, "item_id")
        self._caller_speaks = False
        return self._begin(item_id, _optional_id(event, "previous_item_id"), "caller")

    def _buffer_cleared(self, event: dict[str, Any]) -> list[CallEvent]:
        del event
        self._caller_speaks = False
        return []

    def _transcribed_so_far(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id, text = _id(event, "item_id"), event.get("delta")
        return [CallerTextDelta(item_id, _clean_piece(text))] if isinstance(text, str) else []

    def _transcribed(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id = _id(event, "item_id")
        text = clean(_text(event, "transcript"), _MOST_TEXT_CHARS)
        facts = [*self._begin(item_id, None, "caller"), CallerText(item_id, text)]
        if item_id not in self._transcribed_items:
            _remember(self._transcribed_items, item_id, None)
            model, usage = self._billed_transcription_model, event.get("usage")
            facts.append(UsageReported("transcription", item_id, model, transcription_usage(usage)))
        return facts

    def _not_transcribed(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id = _id(event, "item_id")
        error = event.get("error")
        details = error if isinstance(error, dict) else {}
        reason = str(details.get("message") or details.get("code") or "no reason given")
        return [
            *self._begin(item_id, None, "caller"),
            CallerTextFailed(item_id, clean(reason, _MOST_REASON_CHARS)),
        ]

    # --- items

    def _begin(
        self, item_id: str, previous_item_id: str | None, speaker: Speaker | None
    ) -> list[CallEvent]:
        if item_id in self._begun:
            return []
        _remember(self._begun, item_id, None)
        return [TurnBegan(item_id, previous_item_id, speaker)]

    def _item(self, event: dict[str, Any]) -> list[CallEvent]:
        item = _object(event, "item")
        speaker = _SPEAKERS.get(str(item.get("role"))) if item.get("type") == "message" else None
        return self._begin(_id(item, "id"), _optional_id(event, "previous_item_id"), speaker)

    def _truncated(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id = _id(event, "item_id")
        audio_end_ms = event.get("audio_end_ms")
        if not isinstance(audio_end_ms, int) or isinstance(audio_end_ms, bool):
            raise _Garbage("conversation.item.truncated without audio_end_ms")
        heard_ms = max(0, audio_end_ms - self._unheard_ms)
        if self._unheard_ms:
            self._unheard_ms = 0
            self._send(
                "conversation.item.truncate",
                item_id=item_id,
                content_index=0,
                audio_end_ms=heard_ms,
            )
        return [TurnTruncated(item_id, heard_ms)]

    # --- the agent's voice and words

    def _audio_delta(self, event: dict[str, Any]) -> list[CallEvent]:
        if not self._takes_audio:
            return []
        response_id, item_id = _id(event, "response_id"), _id(event, "item_id")
        index = event.get("content_index")
        try:
            payload = binascii.a2b_base64(_text(event, "delta"), strict_mode=True)
        except ValueError:  # of which binascii.Error is one
            raise _Garbage("response.output_audio.delta that is no base64") from None
        if payload and response_id not in self._cancelled:
            content_index = index if isinstance(index, int) else 0
            self._audio.append(AudioPiece(response_id, item_id, content_index, payload))
        return []

    def _audio_done(self, event: dict[str, Any]) -> list[CallEvent]:
        if self._takes_audio:
            piece = AudioPiece(_id(event, "response_id"), _id(event, "item_id"), 0, b"")
            self._audio.append(piece)
        return []

    def _audio_began(self, event: dict[str, Any]) -> list[CallEvent]:
        response_id = _id(event, "response_id")
        _remember(self._speaking, response_id, None)
        return [AgentSpeaking(response_id)]

    def _audio_over(self, event: dict[str, Any]) -> str:
        response_id = _id(event, "response_id")
        self._speaking.pop(response_id, None)
        return response_id

    def _agent_delta(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id, response_id = _id(event, "item_id"), _id(event, "response_id")
        text = _clean_piece(_text(event, "delta"))
        return [
            *self._begin(item_id, None, "agent"),
            AgentTextDelta(item_id, response_id, text),
        ]

    def _agent_text(self, event: dict[str, Any]) -> list[CallEvent]:
        item_id, response_id = _id(event, "item_id"), _id(event, "response_id")
        text = _text(event, "transcript" if "transcript" in event else "text")
        index = event.get("content_index")
        parts = self._agent_parts.get(item_id, {})
        if len(parts) < _MOST_LOGGED_KINDS:
            parts[index if isinstance(index, int) else 0] = clean(text, _MOST_TEXT_CHARS)
        _remember(self._agent_parts, item_id, parts)
        whole = " ".join(parts[key] for key in sorted(parts))
        return [
            *self._begin(item_id, None, "agent"),
            AgentText(item_id, response_id, whole[:_MOST_TEXT_CHARS]),
        ]

    def _untold_text(self, item: dict[str, Any], response_id: str) -> list[CallEvent]:
        item_id = _id(item, "id")
        content = item.get("content")
        if item.get("role") != "assistant" or item_id in self._agent_parts:
            return []
        parts = [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []
        texts = [str(p.get("transcript") or p.get("text") or "") for p in parts]
        whole = clean(" ".join(texts), _MOST_TEXT_CHARS)
        if not whole:
            return []
        _remember(self._agent_parts, item_id, {0: whole})
        return [*self._begin(item_id, None, "agent"), AgentText(item_id, response_id, whole)]

    # --- tools

    def _arguments_done(self, event: dict[str, Any]) -> list[CallEvent]:
        arguments = _text(event, "arguments")[:_MOST_ARGUMENT_CHARS]
        _remember(self._arguments, _id(event, "item_id"), arguments)
        return []

    def _output_item_done(self, event: dict[str, Any]) -> list[CallEvent]:
        return self._tool_call(_object(event, "item"), _id(event, "response_id"))

    def _tool_call(self, item: dict[str, Any], response_id: str) -> list[CallEvent]:
        """Ask for a tool once, when its item is complete; a cut one has cut arguments."""
        is_complete = item.get("status") in ("completed", None)
        if item.get("type") != "function_call" or not is_complete:
            return []
        tool_call_id, item_id = _id(item, "call_id"), _id(item, "id")
        if tool_call_id in self._tool_calls:
            return []
        arguments = item.get("arguments")
        if not isinstance(arguments, str) or not arguments:
            arguments = self._arguments.get(item_id, "{}")
        name = clean(_text(item, "name"), _MOST_ID_CHARS)
        _remember(self._tool_calls, tool_call_id, response_id)
        tools = self._rounds.get(response_id)
        if tools is None:
            tools = _ToolRound(is_done=response_id in self._ended)
            _remember(self._rounds, response_id, tools)
        tools.outstanding.add(tool_call_id)
        self._arguments.pop(item_id, None)
        return [
            *self._begin(item_id, None, None),
            ToolCallRequested(
                tool_call_id, item_id, response_id, name, arguments[:_MOST_ARGUMENT_CHARS]
            ),
        ]

    # --- sending and logging

    def _send(self, event_type: str, **fields: object) -> str:
        self._event_count += 1
        event_id = f"trunkline_{self._event_count}"
        event = {"type": event_type, "event_id": event_id, **fields}
        self._outgoing.append(orjson.dumps(event).decode())
        return event_id

    def _log_once(self, kind: str, message: str, **details: object) -> None:
        if kind in self._logged or len(self._logged) >= _MOST_LOGGED_KINDS:
            return
        self._logged.add(kind)
        self._log.warning(message, **details)


def _items_of(past: Past) -> list[dict[str, Any]]:
    """Write one thing of the past as items; only its words are left of a voice."""
    match past:
        case PastTurn("caller", text):
            return [_message("user", "input_text", text)]
        case PastTurn(_, text):
            return [_message("assistant", "output_text", text)]
        case PastNote(text):
            return [_message("system", "input_text", text)]
        case PastTool(tool_call_id, name, arguments, output):
            call = {
                "type": "function_call",
                "call_id": tool_call_id,
                "name": name,
                "arguments": speakable(arguments),
            }
            return [call] if output is None else [call, _output(tool_call_id, output)]


def _message(role: str, kind: str, text: str) -> dict[str, Any]:
    content = [{"type": kind, "text": speakable(text)[:_MOST_TEXT_CHARS]}]
    return {"type": "message", "role": role, "content": content}


def _output(tool_call_id: str, output: str) -> dict[str, Any]:
    return {
        "type": "function_call_output",
        "call_id": tool_call_id,
        "output": speakable(output)[:_MOST_OUTPUT_CHARS],
    }


def append_of(payload: bytes) -> str:
    """Write the event that brings the far end some of the caller's voice.

    Fifty a second, and nothing in it needs escaping: put together by hand.
    """
    audio = binascii.b2a_base64(payload, newline=False).decode()
    return f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}'


def _parse(text: str) -> tuple[dict[str, Any], str]:
    if len(text) > _MOST_EVENT_CHARS:
        raise _Garbage("longer than a million characters")
    try:
        event = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _Garbage("not JSON") from None
    if not isinstance(event, dict):
        raise _Garbage("not an object")
    kind = event.get("type")
    if not isinstance(kind, str) or not kind:
        raise _Garbage("without a type")
    return event, clean(kind, _MOST_ID_CHARS)


def _remember(known: dict[str, _V], key: str, value: _V) -> None:
    """Keep the newest entries only: an id is forgotten long after anyone asks for it."""
    known.pop(key, None)
    known[key] = value
    if len(known) > _MOST_REMEMBERED:
        del known[next(iter(known))]


def _id(event: Mapping[str, Any], key: str) -> str:
    value = event.get(key)
    result = clean(value, _MOST_ID_CHARS) if isinstance(value, str) else ""
    if not result:
        raise _Garbage(f"without {key}")
    return result


def _optional_id(event: Mapping[str, Any], key: str) -> str | None:
    value = event.get(key)
    return (clean(value, _MOST_ID_CHARS) or None) if isinstance(value, str) else None


def _text(event: Mapping[str, Any], key: str) -> str:
    value = event.get(key)
    if not isinstance(value, str):
        raise _Garbage(f"without {key}")
    return value


def _object(event: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = event.get(key)
    if not isinstance(value, dict):
        raise _Garbage(f"without {key}")
    return value


def _clean_piece(text: str) -> str:
    """Clean a piece of a sentence; the blanks at its ends separate words."""
    core = clean(text, _MOST_TEXT_CHARS)
    if not core:
        return " " if text.isspace() else ""
    before = " " if text[0].isspace() else ""
    after = " " if text[-1].isspace() else ""
    return f"{before}{core}{after}"


def _status_reason(details: object) -> str:
    if not isinstance(details, dict):
        return ""
    error = details.get("error")
    if isinstance(error, dict):
        parts = [str(error[key]) for key in ("code", "message") if error.get(key)]
        if parts:
            return clean(": ".join(parts), _MOST_REASON_CHARS)
    return clean(str(details.get("reason") or ""), _MOST_REASON_CHARS)
