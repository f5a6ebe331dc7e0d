"""One response on the wire: every event of it, in the service's order.

`ResponseWriter` is told what is said and called and emits what the protocol
demands (S3 speech, S4 text, S7 function call). `finish` closes whatever is
open, so a response that is cut short ends as properly as one that is not.
It knows neither voice nor mind, and waits for nothing.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from agent.embedded.conversation import Conversation
from agent.embedded.protocol import JsonObject, new_id

Emit = Callable[[JsonObject], None]
Status = Literal["completed", "cancelled", "incomplete", "failed"]

_CHARS_PER_TOKEN = 4
AUDIO_OUT_MS_PER_TOKEN = 50
AUDIO_IN_MS_PER_TOKEN = 100


class OutOfTokens(Exception):
    """The response has reached its `max_output_tokens`."""


class ResponseWriter:
    """Writes one response's events; in use from `response.created` to `response.done`.

    Args:
        emit: Takes each event.
        conversation: Where its items go; None keeps them out of it.
        session: As it was when the response began.
        options: The `response` object of response.create.
    """

    def __init__(
        self,
        emit: Emit,
        conversation: Conversation | None,
        session: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self.id = new_id("resp_")
        self.is_done = False
        output = (options.get("audio") or {}).get("output") or {}
        modalities = options.get("output_modalities") or session["output_modalities"]
        self.is_spoken = modalities == ["audio"]
        self._emit = emit
        self._conversation = conversation
        self._head: JsonObject = {
            "object": "realtime.response",
            "id": self.id,
            "conversation_id": conversation.id if conversation else None,
            "output_modalities": modalities,
            "max_output_tokens": options.get("max_output_tokens", session["max_output_tokens"]),
            "audio": {
                "output": {
                    "format": output.get("format") or session["audio"]["output"]["format"],
                    "voice": output.get("voice") or session["audio"]["output"]["voice"],
                }
            },
            "metadata": options.get("metadata"),
        }
        self._output: list[JsonObject] = []
        self._message: JsonObject | None = None
        self._text = ""
        self._texts_chars = 0
        self._audio_ms = 0
        most = self._head["max_output_tokens"]
        self._tokens_left = math.inf if most == "inf" else float(most)

    def begin(self) -> None:
        """Announce the response."""
        self._emit(
            {
                "type": "response.created",
                "response": {
                    **self._head,
                    "status": "in_progress",
                    "status_details": None,
                    "output": [],
                    "usage": None,
                },
            }
        )

    @property
    def message_id(self) -> str | None:
        """The message that is open, if one is."""
        return str(self._message["id"]) if self._message else None

    def begin_message(self) -> str:
        """Open the message item; returns its id."""
        item: JsonObject = {
            "id": new_id("item_"),
            "object": "realtime.item",
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self._message, self._text = item, ""
        self._add(item)
        self._emit(
            {"type": "response.content_part.added", **self._part_ids(), "part": self._part()}
        )
        return str(item["id"])

    def afford(self, text: str, audio_ms: int = 0) -> float:
        """Count words, and the audio of them, against `max_output_tokens`.

        Returns:
            How much of it may be written, 0 to 1; less than 1 is the end of the response.
        """
        tokens = len(text) / _CHARS_PER_TOKEN + audio_ms / AUDIO_OUT_MS_PER_TOKEN
        share = min(1.0, self._tokens_left / tokens) if tokens else 1.0
        self._tokens_left -= share * tokens
        return share

    def delta(self, text: str) -> None:
        """More of the words."""
        self._text += text
        kind = "output_audio_transcript" if self.is_spoken else "output_text"
        self._emit({"type": f"response.{kind}.delta", **self._part_ids(), "delta": text})

    @property
    def voice(self) -> object:
        """Whose voice it was asked to have."""
        return self._head["audio"]["output"]["voice"]

    @property
    def audio_format(self) -> JsonObject:
        """How its audio is written, where it leaves in events."""
        audio_format: JsonObject = self._head["audio"]["output"]["format"]
        return audio_format

    def audio_delta(self, audio: str) -> None:
        """More of the voice: base64, for a client without RTP."""
        self._emit({"type": "response.output_audio.delta", **self._part_ids(), "delta": audio})

    def add_audio_ms(self, duration_ms: int) -> None:
        """Count audio made, for the usage."""
        self._audio_ms += duration_ms

    def end_message(self, status: Literal["completed", "incomplete"] = "completed") -> None:
        """Close the message item. Harmless when none is open."""
        item = self._message
        if item is None:
            return
        ids = self._part_ids()
        if self.is_spoken:
            self._emit({"type": "response.output_audio.done", **ids})
            self._emit(
                {
                    "type": "response.output_audio_transcript.done",
                    **ids,
                    "transcript": self._text,
                }
            )
            if not item["content"]:  # one that was truncated meanwhile stays without its words
                item["content"] = [{"type": "output_audio", "transcript": self._text}]
        else:
            self._emit({"type": "response.output_text.done", **ids, "text": self._text})
            item["content"] = [{"type": "output_text", "text": self._text}]
        self._emit({"type": "response.content_part.done", **ids, "part": self._part()})
        self._texts_chars += len(self._text)
        self._message = None
        self._close(item, status)

    def call_tool(self, name: str, arguments: Mapping[str, Any] | str) -> None:
        """Write a whole function call.

        Args:
            name: The tool.
            arguments: As text they go out as they are, even if they are no JSON.

        Raises:
            OutOfTokens: It would not be whole; nothing of it is written.
        """
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        if self.afford(name + text) < 1:
            raise OutOfTokens
        item: JsonObject = {
            "id": new_id("item_"),
            "object": "realtime.item",
            "type": "function_call",
            "status": "in_progress",
            "name": name,
            "call_id": new_id("call_", 16),
            "arguments": "",
        }
        self._add(item)
        ids = {
            "response_id": self.id,
            "item_id": item["id"],
            "output_index": len(self._output),
            "call_id": item["call_id"],
        }
        self._emit({"type": "response.function_call_arguments.delta", **ids, "delta": text})
        self._emit(
            {
                "type": "response.function_call_arguments.done",
                **ids,
                "name": name,
                "arguments": text,
            }
        )
        item["arguments"] = text
        self._texts_chars += len(text)
        self._close(item, "completed")

    def finish(
        self, status: Status, details: Mapping[str, Any] | None = None, *, heard_ms: int = 0
    ) -> None:
        """Close what is open and say how it ended. Harmless when repeated.

        Args:
            status: How it ended.
            details: `status_details`, for a response that was not completed.
            heard_ms: Caller's audio it answered, for the usage.
        """
        if self.is_done:
            return
        self.is_done = True
        self.end_message("completed" if status == "completed" else "incomplete")
        self._emit(
            {
                "type": "response.done",
                "response": {
                    **self._head,
                    "status": status,
                    "status_details": dict(details) if details else None,
                    "output": self._output,
                    "usage": self._usage(heard_ms),
                },
            }
        )
        self._emit(
            {
                "type": "rate_limits.updated",
                "rate_limits": [
                    {"name": "tokens", "limit": 1000000, "remaining": 1000000, "reset_seconds": 0.0}
                ],
            }
        )

    def _usage(self, heard_ms: int) -> JsonObject:
        text_in = max(1, self._texts_chars // _CHARS_PER_TOKEN)
        audio_in = heard_ms // AUDIO_IN_MS_PER_TOKEN
        text_out = self._texts_chars // _CHARS_PER_TOKEN
        audio_out = self._audio_ms // AUDIO_OUT_MS_PER_TOKEN
        return {
            "total_tokens": text_in + audio_in + text_out + audio_out,
            "input_tokens": text_in + audio_in,
            "output_tokens": text_out + audio_out,
            "input_token_details": {
                "text_tokens": text_in,
                "audio_tokens": audio_in,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }

    def _add(self, item: JsonObject) -> None:
        # A copy: the item goes on changing after the event was queued.
        self._emit(
            {
                "type": "response.output_item.added",
                "response_id": self.id,
                "output_index": len(self._output),
                "item": dict(item),
            }
        )
        if self._conversation is None:
            return
        self._emit(
            {
                "type": "conversation.item.added",
                "previous_item_id": self._conversation.add(item),
                "item": dict(item),
            }
        )

    def _close(self, item: JsonObject, status: str) -> None:
        item["status"] = status
        if self._conversation is not None:
            done = {"type": "conversation.item.done", "previous_item_id": None}
            self._emit({**done, "item": dict(item)})
        self._emit(
            {
                "type": "response.output_item.done",
                "response_id": self.id,
                "output_index": len(self._output),
                "item": dict(item),
            }
        )
        self._output.append(dict(item))

    def _part_ids(self) -> JsonObject:
        assert self._message is not None
        return {
            "response_id": self.id,
            "item_id": self._message["id"],
            "output_index": len(self._output),
            "content_index": 0,
        }

    def _part(self) -> JsonObject:
        if self.is_spoken:
            return {"type": "audio", "transcript": self._text}
        return {"type": "text", "text": self._text}
