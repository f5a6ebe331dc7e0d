"""Tools the client offers: which one a caller wants, and the call as it fills up.

    words -> wanted_tool() -> Tool -> ToolCall.hear() until nothing is missing
    output of the call -> spoken_result() -> a sentence

Pure, like the mind that uses it. A tool is known by its name, its description
and its JSON Schema, and by nothing else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from agent.embedded.json_schema import Unfillable, filled, fits, spellings
from agent.embedded.slots import Slot, prepared, properties_of, slots_of, spoken_name
from agent.embedded.sounds import likeness
from agent.embedded.words import COMMON_WORDS, joined, plain_words

_VERBS = frozenset(
    re.findall(
        r"\w+",
        "get set do make check fetch look up find lookup create add new tool function call return "
        "returns use used using caller customer user given their any all into about",
    )
)
_ENDING = re.compile(r"(?:ations?|ings?|ed|es|s|e)$")
_STEM_FROM_CHARS = 5
# "Piece" is this much like "pizza", "please" is less.
_REST_ALIKE = 85
_MOST_SPOKEN_CHARS = 400
_MOST_REMEMBERED_TOOLS = 4096  # of all sessions; reading a thousand anew takes 50 ms of the loop
_MOST_SPOKEN_ENTRIES = 6
_TELLING = ("text", "message", "answer", "summary", "result", "output")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the client offers, as the session names it."""

    name: str
    parameters: Mapping[str, Any]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools of one answer.

    Attributes:
        tools: What may be called, by name.
        must_call: One of these has to be called; empty when the choice is free.
    """

    tools: Mapping[str, Tool]
    must_call: frozenset[str] = frozenset()


def demanded_call(
    offer: Offer, said: Sequence[str], now: datetime
) -> tuple[str, dict[str, Any]] | None:
    """Make the call that a client demands: the tool it names, or the one that suits best.

    Args:
        offer: With something in `must_call`.
        said: What the caller said, the latest first; values in it are taken.
        now: Local time, for "tomorrow".

    Returns:
        The tool and arguments its schema accepts; what nobody said is the
        schema's default or the least it allows. None if there are none.
    """
    latest = said[0] if said else ""
    able = [tool for tool in offer.tools.values() if tool.name in offer.must_call]
    best = wanted_tool(latest, able, surely=False)
    for tool in sorted(able, key=lambda tool: tool is not best):
        call = ToolCall(tool, latest, now)
        for text in said[1:]:
            call.overhear(text, now)
        arguments = call.completed(latest, now)
        if arguments is not None:
            return tool.name, arguments
    return None


def wanted_tool(text: str, tools: Iterable[Tool], *, surely: bool) -> Tool | None:
    """Find the tool a caller asks for.

    Args:
        text: What was said.
        tools: Those to choose from.
        surely: Only if two of a tool's words were said, or all of a short name;
            otherwise one word of the name, or two of the description, will do.
    """
    words = plain_words(text)
    said = _stems(words)
    best, best_score = None, 0
    for tool in tools:
        named, described = _words_of(
            tool.name, tool.description, orjson.dumps(tool.parameters, default=str)
        )
        in_name, in_all = len(said & named), len(said & (named | described))
        if in_name:
            # Part of the name was said: the rest may have been misheard.
            in_all += sum(likeness(words, one) >= _REST_ALIKE for one in named - said)
        if surely:
            fits = bool(in_name) and (in_all >= 2 or len(named) == 1)
        else:
            fits = bool(in_name) or in_all >= 2
        if fits and in_name + in_all > best_score:
            best, best_score = tool, in_name + in_all
    return best


@lru_cache(maxsize=_MOST_REMEMBERED_TOOLS)
def _words_of(
    name: str, description: str, parameters: bytes
) -> tuple[frozenset[str], frozenset[str]]:
    """The words of a tool's name, and of all else that is told of it."""
    told = [plain_words(description)]
    told += [
        f"{slot.label} {plain_words(' '.join(slot.choices).replace('_', ' '))}"
        for slot in slots_of(orjson.loads(parameters))
    ]
    return frozenset(_stems(spoken_name(name))), frozenset(_stems(" ".join(told)))


def _stems(words: str) -> set[str]:
    kept = set(re.findall(r"[a-z]+", words)) - COMMON_WORDS - _VERBS
    return {
        _ENDING.sub("", word) if len(word) >= _STEM_FROM_CHARS else word.removesuffix("s")
        for word in kept
        if len(word) > 2
    }


class ToolCall:
    """A call that is being filled, question by question.

    Args:
        tool: What shall be called.
        text: What the caller wanted it with; values in it are taken.
        now: Local time, for "tomorrow".
    """

    def __init__(self, tool: Tool, text: str, now: datetime) -> None:
        self.tool = tool
        self._values: dict[str, Any] = {}
        self._slots = slots_of(tool.parameters)
        self._asked: Slot | None = None
        self.times_asked = 0
        words = prepared(text)
        for slot in self._slots:
            words = self._take(slot, words, now, asked=False)

    def _take(self, slot: Slot, words: str, now: datetime, *, asked: bool) -> str:
        value, rest = slot.find(words, now, asked=asked)
        ways = [value, *spellings(value)] if isinstance(value, str) else [value]
        for way in ways:
            if way is not None and fits(way, slot.schema, self.tool.parameters):
                self._values[slot.name] = way
                return rest
        return words

    def overhear(self, text: str, now: datetime) -> None:
        """Take what is still missing from something said before."""
        words = prepared(text)
        for slot in self._slots:
            if slot.name not in self._values and slot.kind != "free":
                words = self._take(slot, words, now, asked=False)

    def completed(self, text: str, now: datetime) -> dict[str, Any] | None:
        """The arguments, with what nobody said made up as the schema allows; None if it cannot be."""
        arguments, schema = self.arguments, self.tool.parameters
        try:
            for slot in self._slots:
                if slot.is_required and slot.name not in arguments:
                    arguments[slot.name] = filled(slot.schema, text, now, schema)
            if fits(arguments, schema):
                return arguments
            whole = filled(schema, text, now)
        except Unfillable:
            return None
        return whole if isinstance(whole, dict) else None

    def missing(self) -> Slot | None:
        """The next thing to ask for, in the schema's order; None when the call is whole."""
        missing = [s for s in self._slots if s.is_required and s.name not in self._values]
        order = list(properties_of(self.tool.parameters))
        slot = min(missing, key=lambda s: order.index(s.name), default=None)
        self.times_asked = self.times_asked + 1 if slot is self._asked else 1
        self._asked = slot
        return slot

    def hear(self, text: str, now: datetime) -> bool:
        """Take the answer to the last question, and whatever else it tells.

        Returns:
            Whether the question is answered.
        """
        asked = self._asked
        if asked is None:
            return False
        words = self._take(asked, prepared(text), now, asked=True)
        if asked.kind not in {"free", "words"}:
            for slot in self._slots:
                if slot.name not in self._values and slot.kind != "free":
                    words = self._take(slot, words, now, asked=False)
        return asked.name in self._values

    @property
    def asked_kind(self) -> str:
        """What kind of thing was asked for last; "" before the first question."""
        return self._asked.kind if self._asked else ""

    @property
    def arguments(self) -> dict[str, Any]:
        """What is known, in the schema's order."""
        order = properties_of(self.tool.parameters)
        return {name: self._values[name] for name in order if name in self._values}


def spoken_result(output: str, result: object) -> str:
    """Say what a tool gave back.

    Args:
        output: As it came.
        result: The same read as JSON, if it was.

    Returns:
        The words of a text; of an object its telling field, or each field with
        its name; "" when there is nothing to say.
    """
    if isinstance(result, dict):
        for key in _TELLING:
            if isinstance(result.get(key), str) and result[key]:
                return str(result[key])[:_MOST_SPOKEN_CHARS]
        told = [
            f"The {spoken_name(str(key))} is {value}."
            for key, given in list(result.items())[:_MOST_SPOKEN_ENTRIES]
            if (value := _spoken_value(given))
        ]
        return " ".join(told)[:_MOST_SPOKEN_CHARS]
    if isinstance(result, list) and result:
        return (_spoken_value(result) + ".")[:_MOST_SPOKEN_CHARS]
    return (_spoken_value(result) or output)[:_MOST_SPOKEN_CHARS]


def _spoken_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value).replace("_", " ")
    if isinstance(value, list):
        return joined([_spoken_value(entry) for entry in value[:_MOST_SPOKEN_ENTRIES]])
    if isinstance(value, dict):
        return ", ".join(
            f"{spoken_name(str(key))} {_spoken_value(entry)}"
            for key, entry in list(value.items())[:_MOST_SPOKEN_ENTRIES]
        )
    return ""
