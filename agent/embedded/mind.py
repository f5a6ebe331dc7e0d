"""The receptionist's mind: what was understood, and what to say or do about it.

Data passes one way: words in, steps out::

    Heard -> Mind.reply()        -> [Say | CallTool]
    tool  -> Mind.tool_output()  -> [Say]
    operator's instructions -> Mind.open() -> [Say]

Nothing here does I/O, knows audio or waits. A `Mind` is one conversation: it
knows which question is open and who answers it. What words mean is the
`Rulebook`'s, what the business knows `Facts`', a message a `MessageForm`'s, a
tool call of the client's a `ToolCall`'s.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from rapidfuzz import process

from agent.embedded.message import MessageForm
from agent.embedded.offers import Tool, ToolCall, spoken_result, wanted_tool
from agent.embedded.rulebook import PLEASANTRIES, Meaning, Rulebook
from agent.embedded.weather import place_given, place_in, weather_report
from agent.embedded.words import COMMON_WORDS, LOOSE, days_in, joined, plain_words

_Awaiting = Literal["", "form", "argument", "place", "offer_message", "anything_else"]

_QUOTED = re.compile(r"[\"“](.+)[\"”]", re.DOTALL)
_SAY_THAT = re.compile(
    r"\b(?:say|tell (?:the caller|them|him|her|the customer))(?: that| exactly)?[:,]? (.+)",
    re.IGNORECASE | re.DOTALL,
)
_ADDRESSED_TO_AGENT = re.compile(
    r"^(?:you\b|be\b|never\b|always\b|do\b|don't\b|if\b|when\b|answer\b|speak\b|say\b|keep\b|use\b|ask\b|"
    r"greet\b|act\b|your\b|please\b|only\b|avoid\b)",
    re.IGNORECASE,
)
# Tools the rules know by name; every other one is found by its own words.
_KNOWN_TOOLS = frozenset({"weather", "hang_up", "transfer"})
# What no tool of the client's may overrule.
_FIRST = frozenset({"goodbye", "cancel", "repeat", "person"})
_MOST_ASKED = 3
_COUGH_MS = 350


@dataclass(frozen=True, slots=True)
class Say:
    """Speak this."""

    text: str


@dataclass(frozen=True, slots=True)
class CallTool:
    """Call this tool of the client's; `arguments` becomes JSON."""

    name: str
    arguments: Mapping[str, Any]


Step = Say | CallTool


@dataclass(frozen=True, slots=True)
class Heard:
    """One turn of the caller: the words, and how long a voice was heard."""

    text: str
    voiced_ms: int = 1000


def words_to_say(instructions: str) -> str:
    """Find what the operator wants said, word for word, in `response.instructions`.

    Args:
        instructions: For example `Greet the caller with exactly these words: "Hello."`.

    Returns:
        The quoted words; else what stands behind the last colon of the first
        paragraph that has one, or behind "say" or "tell the caller"; else "".
    """
    for paragraph in reversed([part for part in instructions.split("\n\n") if part.strip()]):
        if quoted := _QUOTED.search(paragraph):
            return " ".join(quoted.group(1).split())
    if instructions.rstrip().endswith(":"):
        return ""
    _, colon, rest = instructions.partition(":")
    if colon and rest.strip():
        return " ".join(rest.split())
    if told := _SAY_THAT.search(instructions):
        words = " ".join(told.group(1).split())
        if not plain_words(words).startswith(("goodbye", "hello", "sorry", "something")):
            return words[:1].upper() + words[1:]
    return ""


class Mind:
    """One conversation. Every method returns steps and never raises on what people say.

    Args:
        rulebook: The shared rules and facts.
        instructions: The session's; what they say about the business is used.
    """

    def __init__(self, rulebook: Rulebook, instructions: str = "") -> None:
        self._rules = rulebook
        self.instructions = instructions
        self._last_said = ""
        self._awaiting: _Awaiting = ""
        self._unclear = 0
        self._interrupted = False
        self._form: MessageForm | None = None
        self._place = ""
        self._told_hours = False
        self._call: ToolCall | None = None

    # -- what the session tells --------------------------------------------------------------

    def open(self, instructions: str) -> list[Step]:
        """Speak because the operator asks for it, in the words asked for."""
        if words := words_to_say(instructions):
            return self._say(words)
        if reply := self._rules.direct(instructions):
            return self._say(self._rules.text(reply))
        return self._say(self._rules.text("anything_else" if self._last_said else "greeting"))

    def interrupted(self) -> None:
        """The caller spoke over the last words; they were not all heard."""
        self._interrupted = True

    def trouble(self) -> list[Step]:
        """Say that an answer could not be found, and ask to hear it again."""
        return self._say(self._rules.text("chat_failed"))

    def knows(self, text: str) -> bool:
        """Whether this is a whole phrase that makes sense just now: no need to wait for more."""
        if self._form_awaits("name", "text"):
            return False
        meanings = self._rules.understand(text)
        return bool(meanings) and meanings[0].exact and not meanings[0].slots

    @property
    def wants_number(self) -> bool:
        """Whether the caller was asked for a number, which comes in pieces."""
        if self._awaiting == "argument" and self._call is not None:
            return self._call.asked_kind == "digits"
        return self._form_awaits("number")

    def _form_awaits(self, *fields: str) -> bool:
        return self._awaiting == "form" and self._form is not None and self._form.awaiting in fields

    def reply(self, heard: Heard, tools: Mapping[str, Tool], now: datetime) -> list[Step]:
        """Answer the caller.

        Args:
            heard: What was understood of the turn.
            tools: What the client offers, by name.
            now: Local time, for "are you open today".

        Returns:
            Steps in order; [] when it was no more than a cough.
        """
        interrupted, self._interrupted = self._interrupted, False
        words = plain_words(heard.text)
        if not words:
            return self._nothing_understood(heard, interrupted=interrupted)
        self._unclear = 0
        told_hours, self._told_hours = self._told_hours, False
        meanings = self._rules.understand(heard.text)
        return (
            self._finish_slot(heard.text, meanings, tools, now)
            or self._offered(heard.text, meanings, tools, now, surely=True)
            or self._act(heard.text, meanings, tools)
            or self._inform(words, meanings, tools, now)
            or self._offered(heard.text, meanings, tools, now, surely=False)
            or self._repeat_operator(words)
            or self._guess(words, now, expects_day=told_hours)
            or self._fallback(tools)
        )

    def tool_output(self, name: str, output: str) -> list[Step]:
        """Go on after a tool came back.

        Args:
            name: The tool that was called.
            output: JSON or plain text, as the client sent it.
        """
        try:
            parsed = json.loads(output)
        except (ValueError, RecursionError):
            parsed = output
        result = parsed if isinstance(parsed, dict) else {"text": str(parsed)}
        if name == "hang_up":
            return []
        if name == "weather":
            return self._say(weather_report(self._rules, result, self._place))
        if name == "transfer":
            if not result.get("error"):
                return []
            self._awaiting = "offer_message"
            return self._say(self._rules.text("transfer_failed"))
        if error := result.get("error"):
            return self._say(
                self._rules.text("tool_failed"), str(error)[:400] if error is not True else ""
            )
        return self._say(spoken_result(output, parsed) or self._rules.text("tool_done"))

    # -- steps ---------------------------------------------------------------------------------

    def _say(self, *texts: str) -> list[Step]:
        text = " ".join(text for text in texts if text)
        self._last_said = text
        return [Say(text)]

    def _ask(self, awaiting: _Awaiting, *texts: str) -> list[Step]:
        self._awaiting = awaiting
        return self._say(*texts)

    def _nothing_understood(self, heard: Heard, *, interrupted: bool) -> list[Step]:
        if interrupted and self._last_said:
            return self._say(self._last_said)
        if heard.voiced_ms < _COUGH_MS:
            return []
        self._unclear += 1
        if self._unclear >= 3 and not self._awaiting:
            self._unclear = 0
            return self._ask("offer_message", self._rules.text("trouble_hearing"))
        return [Say(self._rules.text("again"))]

    def _guess(self, words: str, now: datetime, *, expects_day: bool) -> list[Step]:
        """Answer what the words sound like, before giving up."""
        answer = self._rules.facts.guess(words, now, expects_day=expects_day)
        self._told_hours = bool(answer) and expects_day
        return self._say(answer) if answer else []

    def _repeat_operator(self, words: str) -> list[Step]:
        told = self._told_by_operator(words)
        return self._say(told) if told else []

    def _fallback(self, tools: Mapping[str, Tool]) -> list[Step]:
        self._unclear += 1
        if self._last_said == self._rules.text("fallback", abilities=self._abilities(tools)):
            return self._ask("offer_message", self._rules.text("fallback_message"))
        return self._say(self._rules.text("fallback", abilities=self._abilities(tools)))

    def _abilities(self, tools: Mapping[str, Tool]) -> str:
        return self._rules.abilities(has_weather="weather" in tools)

    def _told_by_operator(self, words: str) -> str:
        """A sentence of the session's instructions that answers, if one plainly does."""
        asked = set(words.split()) - COMMON_WORDS
        best, best_shared = "", 0
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", self.instructions):
            if _ADDRESSED_TO_AGENT.match(sentence.strip()) or not sentence.strip():
                continue
            told = plain_words(sentence).split()
            shared = sum(1 for word in asked if process.extractOne(word, told, score_cutoff=LOOSE))
            if shared > best_shared:
                best, best_shared = sentence.strip(), shared
        return best

    # -- a question of ours is open --------------------------------------------------------------

    def _finish_slot(
        self, text: str, meanings: list[Meaning], tools: Mapping[str, Tool], now: datetime
    ) -> list[Step]:
        awaiting = self._awaiting
        if not awaiting:
            return []
        meant = {m.intent for m in meanings}
        leaving = {"goodbye", "cancel", "repeat"}
        first = meanings[0] if meanings else None
        # A message may contain any word; only a plain "cancel" or "goodbye" is not one.
        if first and first.intent in leaving and (first.exact or not self._form_awaits("text")):
            return []
        if awaiting == "argument":
            self._awaiting = ""
            return self._argument_given(text, meanings, tools, now)
        if awaiting == "place":
            self._awaiting = ""
            return self._place_given(text, meanings, tools)
        if awaiting == "offer_message":
            return self._message_offered(meant)
        if awaiting == "anything_else":
            self._awaiting = ""
            return self._goodbye(tools) if meant and meant <= {"no", "thanks"} else []
        return self._fill_form(text, meant)

    def _place_given(
        self, text: str, meanings: list[Meaning], tools: Mapping[str, Tool]
    ) -> list[Step]:
        if any(m.exact and m.intent not in {"yes", "weather"} for m in meanings):
            return []
        words = self._rules.without_fillers(plain_words(text))
        place = place_given(words, self._rules.facts.city)
        return self._ask_weather(place, tools)

    def _argument_given(
        self, text: str, meanings: list[Meaning], tools: Mapping[str, Tool], now: datetime
    ) -> list[Step]:
        call, self._call = self._call, None
        if call is None or call.tool.name not in tools:
            return []
        is_answer = call.hear(self._rules.without_fillers(plain_words(text)), now)
        if not is_answer and any(m.intent in self._rules.together for m in meanings):
            return []
        return self._go_on_with(call)

    def _go_on_with(self, call: ToolCall) -> list[Step]:
        """Call the tool, or ask for what it still needs."""
        slot = call.missing()
        if slot is None:
            return [
                *self._say(self._rules.text("checking")),
                CallTool(call.tool.name, call.arguments),
            ]
        if call.times_asked > _MOST_ASKED:
            return self._ask("offer_message", self._rules.text("fallback_message"))
        self._call = call
        question = self._rules.text("ask_slot", slot=slot.label)
        if slot.choices:
            choices = joined([choice.replace("_", " ") for choice in slot.choices], "or")
            question = self._rules.text("ask_choice", slot=slot.label, choices=choices)
        again = self._rules.text("ask_again") if call.times_asked > 1 else ""
        return self._ask("argument", again, question)

    def _message_offered(self, meant: set[str]) -> list[Step]:
        self._awaiting = ""
        if "yes" in meant or "message" in meant:
            return self._begin_message()
        if "no" in meant:
            return self._ask("anything_else", self._rules.text("cancel"))
        return []

    def _begin_message(self, *, is_order: bool = False) -> list[Step]:
        self._form = MessageForm(self._rules, is_order=is_order)
        return self._ask("form", self._form.begin())

    def _fill_form(self, text: str, meant: set[str]) -> list[Step]:
        if self._form is None:
            return []
        words = self._form.hear(text, meant)
        return self._ask("anything_else" if self._form.awaiting == "done" else "form", words)

    # -- the caller wants one of the client's tools ------------------------------------------------

    def _offered(
        self,
        text: str,
        meanings: list[Meaning],
        tools: Mapping[str, Tool],
        now: datetime,
        *,
        surely: bool,
    ) -> list[Step]:
        if meanings and meanings[0].intent in _FIRST:
            return []
        if meanings and meanings[0].intent == "weather" and "weather" not in tools:
            surely = False
        own = [tool for tool in tools.values() if tool.name not in _KNOWN_TOOLS]
        tool = wanted_tool(text, own, surely=surely)
        return self._go_on_with(ToolCall(tool, text, now)) if tool else []

    # -- the caller wants something done -----------------------------------------------------------

    def _act(self, text: str, meanings: list[Meaning], tools: Mapping[str, Tool]) -> list[Step]:
        for meaning in meanings:
            if steps := self._act_on(meaning, text, tools):
                return steps
        return []

    def _act_on(
        self,
        meaning: Meaning,
        text: str,
        tools: Mapping[str, Tool],
    ) -> list[Step]:
        match meaning.intent:
            case "goodbye":
                return self._goodbye(tools)
            case "cancel":
                self._form = None
                return self._ask("anything_else", self._rules.text("cancel"))
            case "repeat":
                return [Say(self._last_said or self._rules.text("nothing_said"))]
            case "person":
                return self._person(text, tools)
            case "message":
                return self._begin_message()
            case "order":
                return self._begin_message(is_order=True)
            case "weather":
                place = place_in(plain_words(text), meaning.slots, self._rules.facts.city)
                return self._ask_weather(place, tools)
            case _:
                return []

    def _goodbye(self, tools: Mapping[str, Tool]) -> list[Step]:
        self._awaiting = ""
        steps = self._say(self._rules.text("goodbye"))
        if tool := tools.get("hang_up"):
            steps.append(CallTool("hang_up", _filled(tool, "The caller said goodbye.")))
        return steps

    def _person(self, text: str, tools: Mapping[str, Tool]) -> list[Step]:
        if tool := tools.get("transfer"):
            self._awaiting = ""
            arguments = _filled(tool, f"The caller said: {text}")
            return [*self._say(self._rules.text("transfer")), CallTool("transfer", arguments)]
        return self._ask("offer_message", self._rules.text("no_person"))

    def _ask_weather(self, place: str, tools: Mapping[str, Tool]) -> list[Step]:
        tool = tools.get("weather")
        if tool is None:
            return self._ask("anything_else", self._rules.text("weather_unavailable"))
        if not place:
            return self._ask("place", self._rules.text("ask_place"))
        self._awaiting, self._place = "", place
        checking = self._say(self._rules.text("checking"))
        return [*checking, CallTool("weather", _filled(tool, place, ("place", "location", "city")))]

    # -- the caller wants to know something ------------------------------------------------------

    def _inform(
        self, words: str, meanings: list[Meaning], tools: Mapping[str, Tool], now: datetime
    ) -> list[Step]:
        intents = [meaning.intent for meaning in meanings]
        asked = [intent for intent in intents if intent in self._rules.together]
        is_chat = bool(set(intents) & PLEASANTRIES)
        answers = self._rules.facts.answers(words, asked, now, is_chat=is_chat)
        if answers:
            self._told_hours = "hours" in asked or any(days_in(words, now))
            self._awaiting = "anything_else" if self._awaiting == "anything_else" else ""
            return self._say(*answers)
        for intent in intents:
            if intent in PLEASANTRIES:
                return self._small_talk(intent, tools)
        return []

    def _small_talk(self, intent: str, tools: Mapping[str, Tool]) -> list[Step]:
        if intent in {"who", "how_are_you"}:
            return self._say(self._rules.text(intent))
        if intent == "can_do":
            return self._say(self._rules.text("can_do", abilities=self._abilities(tools)))
        if intent == "greeting":
            return self._say(self._rules.text("hello"))
        if intent == "yes":
            return self._say(self._rules.text("anything_else"))
        return self._ask(
            "anything_else", self._rules.text("cancel" if intent == "no" else "thanks")
        )


def _filled(tool: Tool, value: str, preferred: Sequence[str] = ()) -> dict[str, Any]:
    """Arguments for a tool: the preferred property, and text for what is required.

    Args:
        tool: With its JSON Schema.
        value: What we know.
        preferred: Property names that mean just this value.
    """
    properties = tool.parameters.get("properties")
    if not isinstance(properties, dict):
        return {preferred[0]: value} if preferred else {}
    required = [name for name in tool.parameters.get("required") or [] if name in properties]
    named = [name for name in preferred if name in properties][:1]
    arguments: dict[str, Any] = {}
    for name in named or required:
        schema = properties[name] if isinstance(properties[name], dict) else {}
        choices = schema.get("enum")
        if isinstance(choices, list) and choices:
            arguments[name] = choices[0]
        elif schema.get("type", "string") == "string":
            arguments[name] = value
    if preferred and not arguments and properties:
        arguments[next(iter(properties))] = value
    return arguments
