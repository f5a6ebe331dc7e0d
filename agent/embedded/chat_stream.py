"""A language model's answer as it streams in: lines in, sentences and tool calls out.

    event stream -> Reading.line() -> Say, sentence by sentence; Write, where it is read
                    Reading.end()  -> the last of it, then Call

Pure. Models think aloud, call several tools at once, number them wrongly or
not at all, and stop in the middle; what cannot be made sense of is `ChatFailed`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.embedded.mind import Say
from agent.embedded.voice import sentences

# Two minutes of speech; a model that goes on after that is lost.
_MOST_CHARS = 2000
_MOST_WRITTEN_CHARS = 64 * 1024
_MOST_CALL_CHARS = 64 * 1024
_MOST_CALLS = 16
_MARKUP = re.compile(r"[*#`_~|]+")
_THINKS, _HAS_THOUGHT = "<think>", "</think>"
_FIELDS = ("data:", "event:", "id:", "retry:", ":")


class ChatFailed(Exception):
    """The language model did not answer; the text says why, and holds nothing secret.

    Attributes:
        code: As in `status_details.error` of a response.
    """

    def __init__(self, reason: str, code: str = "language_model_failed") -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Write:
    """Words that are read, not heard: as the model wrote them, blanks and markup too."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """Call this tool of the client's; the arguments are what the model wrote, JSON or not."""

    name: str
    arguments: str


Part = Say | Write | Call


class Reading:
    """One streamed answer as it comes in.

    Args:
        tools: Names of what the model may call; anything else it calls is a failure.
        is_spoken: It comes in sentences without markup; otherwise as it is.

    Attributes:
        is_done: It needs no more lines.
        chars: How much of an answer has come; thoughts are none.
    """

    def __init__(self, tools: Iterable[str] = (), *, is_spoken: bool = True) -> None:
        self.is_done = False
        self.chars = 0
        self._tools = frozenset(tools)
        self._is_spoken = is_spoken
        self._most_chars = _MOST_CHARS if is_spoken else _MOST_WRITTEN_CHARS
        self._text = ""
        self._head: str | None = ""
        self._calls: list[_OpenCall] = []
        self._finish = ""

    def line(self, line: str) -> list[Part]:
        """Take one line of the event stream.

        Raises:
            ChatFailed: It is none that a model sends.
        """
        if not line.startswith("data:"):
            if line.strip() and not line.startswith(_FIELDS):
                raise ChatFailed("its reply is no event stream")
            return []
        data = line[5:].strip()
        if data == "[DONE]":
            self._finish = self._finish or "stop"
            self.is_done = True
            return []
        try:
            return self._chunk(json.loads(data))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ChatFailed("its stream cannot be read") from error

    def _chunk(self, chunk: Mapping[str, Any]) -> list[Part]:
        if chunk.get("error"):
            raise ChatFailed("it reported an error")
        parts: list[Part] = []
        for choice in (chunk.get("choices") or [])[:1]:
            delta = choice.get("delta") or {}
            for call in delta.get("tool_calls") or []:
                self._add_call(call)
            parts += self._add_text(delta.get("content") or "")
            self._finish = str(choice.get("finish_reason") or "") or self._finish
        return parts

    def _add_call(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function") or {}
        name = str(function.get("name") or "").strip()
        key = (piece.get("index"), piece.get("id") or None)
        call = self._call_of(*key, is_named=bool(name))
        call.name = call.name or name
        arguments = function.get("arguments") or ""
        # Some servers send them read already.
        call.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments)
        self.chars += len(name) + len(arguments)
        if len(call.arguments) > _MOST_CALL_CHARS or len(self._calls) > _MOST_CALLS:
            raise ChatFailed("its tool calls do not end")

    def _call_of(self, index: object, call_id: object, *, is_named: bool) -> "_OpenCall":
        """The call a piece belongs to: by index, unless a new id or a new name begins one."""
        for call in reversed(self._calls):
            is_same_id = call_id is None or call.call_id in (None, call_id)
            if call.index == index and is_same_id and not (is_named and call_id is None):
                return call
        self._calls.append(_OpenCall(index, call_id))
        return self._calls[-1]

    def _add_text(self, text: str) -> list[Part]:
        text = self._without_thoughts(text)
        self.chars += len(text)
        if self.chars > self._most_chars:
            self._finish = self._finish or "stop"
            self.is_done = True
            return []
        if not self._is_spoken:
            return [Write(text)] if text else []
        self._text += text
        *whole, rest = sentences(self._text) or [""]
        if whole:
            # A sentence ends where the next begins, so the last one stays open.
            self._text = rest + self._text[len(self._text.rstrip()) :]
        return [*_said(whole)]

    def _without_thoughts(self, text: str) -> str:
        """Leave out what some models think aloud before they answer."""
        if self._head is None:
            return text
        self._head += text
        begun = self._head.lstrip()
        if _HAS_THOUGHT in begun:
            rest = begun.partition(_HAS_THOUGHT)[2].lstrip()
        elif begun.startswith(_THINKS):
            # Only its end is looked for.
            self._head = _THINKS + begun[len(_THINKS) :][-len(_HAS_THOUGHT) :]
            return ""
        elif _THINKS.startswith(begun):
            return ""
        else:
            rest = self._head
        self._head = None
        return rest

    def end(self) -> list[Part]:
        """Nothing more comes: the last sentence, then the calls.

        Raises:
            ChatFailed: It broke off, called a tool that is not offered, or said nothing at all.
        """
        if not self._finish:
            raise ChatFailed("it broke off in the middle of its answer")
        parts: list[Part] = [*_said(sentences(self._text))]
        for call in () if self.is_cut else self._calls:
            if call.name not in self._tools:
                raise ChatFailed("it called a tool that is not offered")
            parts.append(Call(call.name, call.arguments or "{}"))
        if not parts and not self.chars:
            raise ChatFailed("it said nothing")
        return parts

    @property
    def is_cut(self) -> bool:
        """Whether it was stopped by the tokens it may use; its calls are not whole."""
        return self._finish == "length"


@dataclass(slots=True)
class _OpenCall:
    index: object
    call_id: object
    name: str = ""
    arguments: str = ""


def _said(texts: Iterable[str]) -> list[Say]:
    plain = (" ".join(_MARKUP.sub("", text).split()) for text in texts)
    return [Say(text) for text in plain if text]
