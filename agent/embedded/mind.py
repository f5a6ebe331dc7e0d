"""The receptionist's mind: what was understood, and what to say or do about it.

Data passes one way: words in, steps out::

    Heard -> Mind.reply()        -> [Say | CallTool]
    tool  -> Mind.tool_output()  -> [Say]
    operator's instructions -> Mind.open() -> [Say]

Nothing here does I/O, knows audio or waits; `Rulebook` is shared and never
changes, `Mind` is one conversation. What callers and agent say is data:
`rules.yaml`; what the business knows is `facts.yaml`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hassil import Intents, recognize_best
from rapidfuzz import process

from agent.embedded.offers import Tool, ToolCall, spoken_result, wanted_tool
from agent.embedded.voice import spoken_digits
from agent.embedded.words import (
    COMMON_WORDS,
    DAYS,
    LOOSE,
    days_in,
    digits_in,
    joined,
    mentions,
    plain_words,
    titled,
)

_SLOTS = ("place", "whom", "what", "name")
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
_PLACE_AFTER = re.compile(r"\b(?:in|for|at|like in|over in)\s+((?:[a-z'.-]+\s?){1,4})$")
_NOT_A_PLACE = frozenset(
    {
        "today",
        "tomorrow",
        "now",
        "right",
        "please",
        "there",
        "it",
        "like",
        "outside",
        "the",
        "moment",
    }
    | {"thanks", "weather", "this", "week", "morning", "afternoon", "evening"}
)
_PLEASANTRIES = frozenset({"who", "how_are_you", "thanks", "can_do", "greeting", "yes", "no"})
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


@dataclass(frozen=True, slots=True)
class _Meaning:
    intent: str
    slots: Mapping[str, str]
    exact: bool


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


class Rulebook:
    """Rules and facts, read once and shared by all conversations.

    Args:
        facts_file: YAML in the form of `facts.yaml`; the bakery when None.

    Raises:
        ValueError: The facts are not YAML of that form; the message says where.
        OSError: The file cannot be read.
    """

    def __init__(self, facts_file: Path | None = None) -> None:
        package = resources.files("agent.embedded")
        rules = yaml.safe_load(package.joinpath("rules.yaml").read_text("utf-8"))
        source = facts_file or package.joinpath("facts.yaml")
        try:
            facts = yaml.safe_load(source.read_text("utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{source} is not YAML: {error}") from error
        self.facts = _checked_facts(facts, str(source))
        self.replies: Mapping[str, Any] = rules["replies"]
        self.direct: Mapping[str, list[str]] = rules["direct"]
        self._fillers = sorted((plain_words(w) for w in rules["fillers"]), key=len, reverse=True)
        self._words: dict[str, list[str]] = {
            name: [plain_words(word) for word in intent["words"]]
            for name, intent in rules["intents"].items()
        }
        self.together = frozenset(n for n, i in rules["intents"].items() if i.get("together"))
        self._intents = _compiled({n: i["sentences"] for n, i in rules["intents"].items()})
        self._names = _compiled({"name": rules["name_sentences"]})
        # The first match compiles the templates (100 ms), which no caller should wait for.
        self.understand("what are your opening hours on the first saturday")
        self.name_in("my name is nobody")

    def understand(self, text: str) -> list[_Meaning]:
        """Find what a caller may have meant, most likely first; [] when nothing fits."""
        words = plain_words(text)
        bare = self.without_fillers(words)
        for candidate in dict.fromkeys((words, bare)):
            if candidate and (found := recognize_best(candidate, self._intents)):
                slots = {name: str(entity.value) for name, entity in found.entities.items()}
                exact = _Meaning(found.intent.name, slots, exact=True)
                others = [m for m in self._by_words(words) if m.intent != exact.intent]
                # "No thanks, goodbye" is a goodbye, however well "no thanks" fits.
                if exact.intent in _PLEASANTRIES and others and others[0].intent == "goodbye":
                    return [others[0], exact, *others[1:]]
                return [exact, *others]
        return self._by_words(words)

    def _by_words(self, words: str) -> list[_Meaning]:
        return [
            _Meaning(intent, {}, exact=False)
            for intent, clues in self._words.items()
            if any(mentions(words, clue) for clue in clues)
        ]

    def without_fillers(self, words: str) -> str:
        """Take greetings, hesitations and politeness off the front."""
        for _ in range(6):
            for filler in self._fillers:
                if words.startswith(f"{filler} "):
                    words = words[len(filler) + 1 :]
                    break
            else:
                break
        return words

    def name_in(self, text: str) -> str:
        """The name a caller gives, without "my name is" around it; "" if there is none."""
        words = self.without_fillers(plain_words(text))
        found = recognize_best(words, self._names)
        name = str(found.entities["name"].value) if found else words
        return " ".join(part.capitalize() for part in name.split()[:4])


def _compiled(sentences: Mapping[str, Sequence[str]]) -> Intents:
    return Intents.from_dict(
        {
            "language": "en",
            "intents": {n: {"data": [{"sentences": list(s)}]} for n, s in sentences.items()},
            "lists": {slot: {"wildcard": True} for slot in _SLOTS},
        }
    )


def _checked_facts(facts: object, source: str) -> Mapping[str, Any]:
    """Refuse facts the receptionist would stumble over in mid-call."""
    if not isinstance(facts, dict):
        raise ValueError(  # noqa: TRY004 - the file is wrong, not our call
            f"{source}: expected keys such as name, hours and products"
        )
    hours = facts.get("hours") or {}
    if not isinstance(hours, dict) or not set(hours) <= set(DAYS):
        raise ValueError(f"{source}: hours must name days, monday to sunday")
    for day, times in hours.items():
        if times is None:
            continue
        try:
            _clock(times["opens"]), _clock(times["closes"])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f'{source}: hours.{day} must be null or {{opens: "07:00", closes: "18:00"}}'
            ) from error
    for key, wanted in (("products", ("name", "words", "price")), ("answers", ("words", "answer"))):
        for entry in facts.get(key) or []:
            if not isinstance(entry, dict) or not all(entry.get(field) for field in wanted):
                raise ValueError(f"{source}: every entry of {key} needs {', '.join(wanted)}")
    return facts


def _clock(time: str) -> str:
    """Say a time of day: `07:00` -> `7 am`."""
    at = datetime.strptime(time, "%H:%M")  # noqa: DTZ007 - a wall clock without a day
    minutes = f":{at.minute:02}" if at.minute else ""
    return f"{at.hour % 12 or 12}{minutes} {'am' if at.hour < 12 else 'pm'}"


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
        self._awaiting = ""
        self._unclear = 0
        self._interrupted = False
        self._form: dict[str, str] = {}
        self._place = ""
        self._call: ToolCall | None = None

    # -- what the session tells --------------------------------------------------------------

    def open(self, instructions: str) -> list[Step]:
        """Speak because the operator asks for it, in the words asked for."""
        if words := words_to_say(instructions):
            return self._say(words)
        plain = plain_words(instructions)
        for reply, clues in self._rules.direct.items():
            if any(clue in plain for clue in clues):
                return self._say(self._text(reply))
        return self._say(self._text("anything_else" if self._last_said else "greeting"))

    def interrupted(self) -> None:
        """The caller spoke over the last words; they were not all heard."""
        self._interrupted = True

    def trouble(self) -> list[Step]:
        """Say that an answer could not be found, and ask to hear it again."""
        return self._say(self._text("chat_failed"))

    def knows(self, text: str) -> bool:
        """Whether this is a whole phrase that makes sense just now: no need to wait for more."""
        if self._awaiting in {"name", "text"}:
            return False
        meanings = self._rules.understand(text)
        return bool(meanings) and meanings[0].exact and not meanings[0].slots

    @property
    def wants_number(self) -> bool:
        """Whether the caller was asked for a number, which comes in pieces."""
        if self._awaiting == "argument" and self._call is not None:
            return self._call.asked_kind == "digits"
        return self._awaiting == "number"

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
        meanings = self._rules.understand(heard.text)
        return (
            self._finish_slot(heard.text, meanings, tools, now)
            or self._offered(heard.text, meanings, tools, now, surely=True)
            or self._act(heard.text, meanings, tools)
            or self._inform(words, meanings, tools, now)
            or self._offered(heard.text, meanings, tools, now, surely=False)
            or self._fallback(words, tools)
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
            return self._say(self._weather_report(result))
        if name == "transfer":
            if not result.get("error"):
                return []
            self._awaiting = "offer_message"
            return self._say(self._text("transfer_failed"))
        if error := result.get("error"):
            return self._say(
                self._text("tool_failed"), str(error)[:400] if error is not True else ""
            )
        return self._say(spoken_result(output, parsed) or self._text("tool_done"))

    # -- steps ---------------------------------------------------------------------------------

    def _say(self, *texts: str) -> list[Step]:
        text = " ".join(text for text in texts if text)
        self._last_said = text
        return [Say(text)]

    def _text(self, reply: str, **values: str) -> str:
        name = str(self._rules.facts.get("name") or "the office")
        return str(self._rules.replies[reply]).format(**{"name": name, **values})

    def _ask(self, awaiting: str, *texts: str) -> list[Step]:
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
            return self._ask("offer_message", self._text("trouble_hearing"))
        return [Say(self._text("again"))]

    def _fallback(self, words: str, tools: Mapping[str, Tool]) -> list[Step]:
        if told := self._told_by_operator(words):
            return self._say(told)
        self._unclear += 1
        if self._last_said == self._text("fallback", abilities=self._abilities(tools)):
            return self._ask("offer_message", self._text("fallback_message"))
        return self._say(self._text("fallback", abilities=self._abilities(tools)))

    def _abilities(self, tools: Mapping[str, Tool]) -> str:
        replies = self._rules.replies
        weather = [replies["ability_weather"]] if "weather" in tools else []
        return ", ".join([*replies["abilities"], *weather, replies["ability_message"]])

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
        self, text: str, meanings: list[_Meaning], tools: Mapping[str, Tool], now: datetime
    ) -> list[Step]:
        awaiting = self._awaiting
        if not awaiting:
            return []
        meant = {m.intent for m in meanings}
        leaving = {"goodbye", "cancel", "repeat"}
        first = meanings[0] if meanings else None
        # A message may contain any word; only a plain "cancel" or "goodbye" is not one.
        if first and first.intent in leaving and (first.exact or awaiting != "text"):
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
        return self._fill_form(awaiting, text, meant)

    def _place_given(
        self, text: str, meanings: list[_Meaning], tools: Mapping[str, Tool]
    ) -> list[Step]:
        if any(m.exact and m.intent not in {"yes", "weather"} for m in meanings):
            return []
        words = self._rules.without_fillers(plain_words(text))
        bare = re.sub(r"^(?:(?:in|and|for|at|it's|it is|the weather|weather)\s)+", "", words)
        place = self._place_in(words, {}) or self._place_in("", {"place": bare})
        return self._ask_weather(place, tools)

    def _argument_given(
        self, text: str, meanings: list[_Meaning], tools: Mapping[str, Tool], now: datetime
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
            return [*self._say(self._text("checking")), CallTool(call.tool.name, call.arguments)]
        if call.times_asked > _MOST_ASKED:
            return self._ask("offer_message", self._text("fallback_message"))
        self._call = call
        question = self._text("ask_slot", slot=slot.label)
        if slot.choices:
            choices = joined([choice.replace("_", " ") for choice in slot.choices], "or")
            question = self._text("ask_choice", slot=slot.label, choices=choices)
        again = self._text("ask_again") if call.times_asked > 1 else ""
        return self._ask("argument", again, question)

    def _message_offered(self, meant: set[str]) -> list[Step]:
        self._awaiting = ""
        if "yes" in meant or "message" in meant:
            return self._begin_message("ask_name")
        if "no" in meant:
            return self._ask("anything_else", self._text("cancel"))
        return []

    def _begin_message(self, question: str) -> list[Step]:
        self._form = {"kind": "order" if question == "order" else "message"}
        return self._ask("name", self._text(question))

    def _fill_form(self, awaiting: str, text: str, meant: set[str]) -> list[Step]:
        form = self._form
        if awaiting == "name":
            form["name"] = self._rules.name_in(text)
            question = "order_text" if form.get("kind") == "order" else "ask_text"
            return self._ask("text", self._text(question, name=form["name"]))
        if awaiting == "text":
            form["text"] = text.strip().rstrip(".!?")
            return self._ask("number", self._text("ask_number"))
        if awaiting == "number":
            return self._number_given(text, meant)
        self._awaiting = ""
        if "no" in meant:
            self._form = {"kind": form.get("kind", "message")}
            return self._ask("name", self._text("ask_name_again"))
        if "yes" in meant or "thanks" in meant:
            return self._ask("anything_else", self._text("message_done"))
        return self._ask("confirm", self._read_back())

    def _number_given(self, text: str, meant: set[str]) -> list[Step]:
        digits = digits_in(text)
        known = self._form.get("digits", "")
        complete = digits if len(digits) >= 7 else known + digits
        self._form["digits"] = complete
        refused = not digits and ("no" in meant or known)
        if not refused and len(complete) < 7 and self._form.get("asked_more") != "twice":
            self._form["asked_more"] = "twice" if self._form.get("asked_more") else "once"
            if complete:
                return self._say(self._text("number_more", digits=spoken_digits(complete)))
            return self._say(self._text("ask_number"))
        return self._ask("confirm", self._read_back())

    def _read_back(self) -> str:
        digits = self._form.get("digits", "")
        call_back = (
            self._text("call_back", digits=spoken_digits(digits))
            if digits
            else self._text("no_call_back")
        )
        return self._text(
            "read_back",
            name=self._form.get("name", ""),
            text=self._form.get("text", ""),
            call_back=call_back,
        )

    # -- the caller wants one of the client's tools ------------------------------------------------

    def _offered(
        self,
        text: str,
        meanings: list[_Meaning],
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

    def _act(self, text: str, meanings: list[_Meaning], tools: Mapping[str, Tool]) -> list[Step]:
        for meaning in meanings:
            if steps := self._act_on(meaning, text, tools):
                return steps
        return []

    def _act_on(
        self,
        meaning: _Meaning,
        text: str,
        tools: Mapping[str, Tool],
    ) -> list[Step]:
        match meaning.intent:
            case "goodbye":
                return self._goodbye(tools)
            case "cancel":
                self._form = {}
                return self._ask("anything_else", self._text("cancel"))
            case "repeat":
                return [Say(self._last_said or self._text("nothing_said"))]
            case "person":
                return self._person(text, tools)
            case "message":
                return self._begin_message("ask_name")
            case "order":
                return self._begin_message("order")
            case "weather":
                place = self._place_in(plain_words(text), meaning.slots)
                return self._ask_weather(place, tools)
            case _:
                return []

    def _goodbye(self, tools: Mapping[str, Tool]) -> list[Step]:
        self._awaiting = ""
        steps = self._say(self._text("goodbye"))
        if tool := tools.get("hang_up"):
            steps.append(CallTool("hang_up", _filled(tool, "The caller said goodbye.")))
        return steps

    def _person(self, text: str, tools: Mapping[str, Tool]) -> list[Step]:
        if tool := tools.get("transfer"):
            self._awaiting = ""
            arguments = _filled(tool, f"The caller said: {text}")
            return [*self._say(self._text("transfer")), CallTool("transfer", arguments)]
        return self._ask("offer_message", self._text("no_person"))

    def _place_in(self, words: str, slots: Mapping[str, str]) -> str:
        place = plain_words(slots.get("place", ""))
        if not place and (found := _PLACE_AFTER.search(words)):
            place = found.group(1)
        kept = place.split()
        while kept and kept[-1] in _NOT_A_PLACE:
            kept.pop()
        while kept and kept[0] in {"in", "for", "at", "the"} | _NOT_A_PLACE:
            kept.pop(0)
        if kept == ["here"] or (not kept and re.search(r"\bhere\b", words)):
            return str(self._rules.facts.get("city") or "")
        return titled(" ".join(kept))

    def _ask_weather(self, place: str, tools: Mapping[str, Tool]) -> list[Step]:
        tool = tools.get("weather")
        if tool is None:
            return self._ask("anything_else", self._text("weather_unavailable"))
        if not place:
            return self._ask("place", self._text("ask_place"))
        self._awaiting, self._place = "", place
        checking = self._say(self._text("checking"))
        return [*checking, CallTool("weather", _filled(tool, place, ("place", "location", "city")))]

    def _weather_report(self, result: Mapping[str, Any]) -> str:
        place = str(result.get("place") or self._place)
        temperature = result.get("temperature_c")
        if result.get("error") or not isinstance(temperature, int | float):
            spoken = result.get("text")
            return str(spoken)[:400] if spoken else self._text("weather_failed", place=place)
        conditions = str(result.get("conditions") or "")
        report = [
            self._text(
                "weather",
                place=place,
                temperature=_degrees(temperature),
                conditions=self._text("weather_conditions", conditions=conditions)
                if conditions
                else "",
            )
        ]
        high, low = result.get("high_c"), result.get("low_c")
        if isinstance(high, int | float) and isinstance(low, int | float):
            report.append(self._text("weather_range", high=_degrees(high), low=_degrees(low)))
        wind = result.get("wind_kmh")
        if isinstance(wind, int | float):
            report.append(self._text("weather_wind", wind=_degrees(wind)))
        return " ".join(report)

    # -- the caller wants to know something ------------------------------------------------------

    def _inform(
        self, words: str, meanings: list[_Meaning], tools: Mapping[str, Tool], now: datetime
    ) -> list[Step]:
        intents = [meaning.intent for meaning in meanings]
        answers = [answer for answer in (self._extra_answer(words),) if answer]
        asked = [intent for intent in intents if intent in self._rules.together]
        if "price" in asked and "products" in asked:
            asked.remove("products")
        if not asked and not answers:
            if self._products_in(words):
                asked = ["products"]
            elif any(days_in(words, now)) and not set(intents) & _PLEASANTRIES:
                asked = ["hours"]
        if answers:
            asked = [intent for intent in asked if intent not in {"products", "price", "address"}]
        answers += [self._fact(intent, words, now) for intent in asked]
        if answers:
            self._awaiting = "anything_else" if self._awaiting == "anything_else" else ""
            return self._say(*dict.fromkeys(answers))
        for intent in intents:
            if intent in _PLEASANTRIES:
                return self._small_talk(intent, tools)
        return []

    def _small_talk(self, intent: str, tools: Mapping[str, Tool]) -> list[Step]:
        if intent in {"who", "how_are_you"}:
            return self._say(self._text(intent))
        if intent == "can_do":
            return self._say(self._text("can_do", abilities=self._abilities(tools)))
        if intent == "greeting":
            return self._say(self._text("hello"))
        if intent == "yes":
            return self._say(self._text("anything_else"))
        return self._ask("anything_else", self._text("cancel" if intent == "no" else "thanks"))

    def _fact(self, intent: str, words: str, now: datetime) -> str:
        facts = self._rules.facts
        if intent == "hours":
            return self._hours(words, now)
        if intent == "address":
            return str(facts.get("address") or self._text("address_none"))
        if intent == "telephone":
            number = str(facts.get("telephone") or "")
            return (
                self._text("telephone", digits=spoken_digits(number))
                if number
                else self._text("telephone_none")
            )
        found = self._products_in(words)
        if intent == "price" and found:
            parts = [self._text("price", product=p["name"], price=p["price"])[:-1] for p in found]
            return _sentence(self._text("prices", prices=joined(parts)))
        if found:
            parts = [f"{p['name']}, for {p['price']}" for p in found]
            return (
                self._text("have", product=found[0]["name"], price=found[0]["price"])
                if len(found) == 1
                else self._text("products", products=joined(parts))
            )
        names = [str(product["name"]) for product in facts.get("products") or []]
        if not names:
            return self._text("products_none")
        reply = "which_product" if intent == "price" else "products"
        return self._text(reply, products=joined(names))

    def _products_in(self, words: str) -> list[Mapping[str, Any]]:
        return [
            product
            for product in self._rules.facts.get("products") or []
            if any(
                mentions(words, plain_words(str(word)) + ending)
                for word in product["words"]
                for ending in ("", "s")
            )
        ]

    def _extra_answer(self, words: str) -> str:
        for entry in self._rules.facts.get("answers") or []:
            if any(mentions(words, plain_words(str(word))) for word in entry["words"]):
                return str(entry["answer"])
        return ""

    def _hours(self, words: str, now: datetime) -> str:
        hours = self._rules.facts.get("hours") or {}
        if not hours:
            return self._text("hours_none")
        days = list(days_in(words, now))
        if not days:
            return self._week(hours)
        return " ".join(self._day(hours, day, label) for day, label in days)

    def _day(self, hours: Mapping[str, Any], day: str, label: str) -> str:
        times = hours.get(day)
        if not times:
            return self._text("closed_day", day=label)
        return self._text(
            "hours_day", day=label, opens=_clock(times["opens"]), closes=_clock(times["closes"])
        )

    def _week(self, hours: Mapping[str, Any]) -> str:
        spans: list[tuple[list[str], str]] = []
        for day in DAYS:
            times = hours.get(day)
            span = f"from {_clock(times['opens'])} to {_clock(times['closes'])}" if times else ""
            if spans and spans[-1][1] == span:
                spans[-1][0].append(day.capitalize())
            else:
                spans.append(([day.capitalize()], span))
        opened = [f"{_span_of(days)} {span}" for days, span in spans if span]
        closed = [day for days, span in spans if not span for day in days]
        shut = self._text("closed_days", days=joined(closed)) if closed else ""
        return f"{self._text('hours', hours=joined(opened))} {shut}".strip()


def _span_of(days: Sequence[str]) -> str:
    return f"{days[0]} to {days[-1]}" if len(days) > 2 else " and ".join(days)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _degrees(value: float) -> str:
    whole = round(value)
    return f"minus {-whole}" if whole < 0 else str(whole)


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
