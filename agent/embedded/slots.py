"""Arguments of a tool call, found in what a caller said.

    JSON Schema -> slots_of() -> Slot
    words       -> Slot.find() -> value, words left

Pure. What kind of thing a property wants is read from its type, its `enum`
and `format`, and from the words of its name and description. A value is only
taken when it was said; what is missing is asked for elsewhere (`offers.py`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from text_to_num import alpha2digit

from agent.embedded.json_schema import Unfillable, filled, resolved
from agent.embedded.sounds import ALIKE, likeness
from agent.embedded.words import (
    COMMON_WORDS,
    DAYS,
    days_in,
    digits_in,
    figures,
    mentions,
    plain_words,
    titled,
)

Kind = Literal[
    "choice",
    "flag",
    "number",
    "digits",
    "date",
    "time",
    "place",
    "name",
    "list",
    "object",
    "free",
    "words",
]

_FIGURES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SMALL = {word: str(figure) for figure, word in enumerate(_FIGURES)}
_CLUES: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("date", frozenset({"date", "day", "when"})),
    ("time", frozenset({"time", "hour"})),
    ("digits", frozenset({"phone", "telephone", "number", "code", "pin", "digits", "id"})),
    (
        "place",
        frozenset({"place", "city", "town", "location", "destination", "origin", "departure"}),
    ),
    ("name", frozenset({"name", "who", "person", "customer", "guest"})),
    (
        "free",
        frozenset({"query", "question", "text", "message", "note", "reason", "search", "content"})
        | {"summary", "request", "topic", "subject", "comment", "description"},
    ),
)
# The longer a value's form, the earlier it is taken: a time must not pass for a number.
_ORDER: tuple[Kind, ...] = (
    "date",
    "time",
    "digits",
    "number",
    "choice",
    "name",
    "place",
    "flag",
    "list",
    "object",
    "free",
    "words",
)
_STOP = (
    r"today|tomorrow|tonight|now|please|on|at|in|for|from|to|and|with|near|this|next|the|my|is|under|"
    r"thanks|thank|by|a|an|of|" + "|".join(DAYS)
)
_WORDS_OF_A_NAME = rf"((?:(?!(?:{_STOP})\b)[a-z][a-z'-]*\s?){{1,3}})"
_NAMED = re.compile(
    rf"\b(?:my name is|my name's|name is|(?:under )?the name(?: of)?|this is|it's|it is|i'm|i am|call me) "
    rf"{_WORDS_OF_A_NAME}"
)
_MONTHS: tuple[str, ...] = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
)
_MONTHS += ("september", "october", "november", "december")
_MONTH = "|".join(_MONTHS)
_DAY_MONTH = re.compile(rf"\b(?:the )?(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({_MONTH})\b")
_MONTH_DAY = re.compile(rf"\b({_MONTH}) (?:the )?(\d{{1,2}})(?:st|nd|rd|th)?\b")
_HALF = r"(?:in the (?:morning|afternoon|evening)|tonight|a ?m|p ?m|o'?clock)"
_PAST = re.compile(
    rf"\b(?:at )?(half|how|have|quarter|\d{{1,2}}) (past|to) (\d{{1,2}})( {_HALF})?\b"
)
_CLOCK = re.compile(rf"\b(at |by )?(\d{{1,2}})(?: ([0-5]\d))?( {_HALF})?\b(?! \d)")
_NOON = re.compile(r"\b(?:at )?(noon|midday|midnight)\b")
_TWO_BEFORE_FIGURE = re.compile(r"\b[a-z]+ [a-z]+(?= \d)")
# "At least" is no "half past".
_HALF_PAST_ALIKE = 80
# A bare "at seven" by telephone means the evening; from here on, the morning.
_MORNING_FROM_HOUR = 8


@dataclass(frozen=True, slots=True)
class Slot:
    """One property of a tool's parameters.

    Attributes:
        name: As in the schema.
        label: As said aloud: `party_size` -> `party size`.
        kind: What is looked for.
        schema: The property's own schema.
        is_required: It must be known before the tool is called.
    """

    name: str
    label: str
    kind: Kind
    schema: Mapping[str, Any]
    is_required: bool

    @property
    def choices(self) -> list[str]:
        """What an `enum` accepts, as strings."""
        return [str(choice) for choice in self.schema.get("enum") or [] if choice is not None]

    def find(self, words: str, now: datetime, *, asked: bool = False) -> tuple[Any, str]:
        """Look for the value.

        Args:
            words: From `prepared`; fillers are off the front when asked.
            now: Local time, for "tomorrow".
            asked: The words answer a question for just this.

        Returns:
            The value and the words without it; None and the words when it was not said.
        """
        match self.kind:
            case "choice":
                return self._choice(words, asked=asked)
            case "flag":
                return _flag(words) if asked else None, words
            case "number":
                return self._number(_figure_alike(words) if asked else words)
            case "digits":
                return _digits(figures(words) if asked else words)
            case "date":
                return self._date(words, now)
            case "time":
                return _time(words, asked=asked)
            case "place":
                return self._place(words, asked=asked)
            case "name":
                return _name(words, asked=asked)
            case "list":
                return self._list(words, now, asked=asked), words
            case "object":
                return self._object(words, now) if asked else None, words
            case "free":
                return words or None, words
            case "words":
                return (words or None) if asked else None, words

    def _choice(self, words: str, *, asked: bool) -> tuple[Any, str]:
        for choice in self.schema["enum"]:
            said = _content(plain_words(str(choice).replace("_", " ")))
            if choice is not None and said and mentions(_content(words), said):
                return choice, words.replace(said, " ", 1)
        if asked:
            likeliest = _most_alike(words, self.choices)
            for choice in self.schema["enum"]:
                if likeliest and str(choice) == likeliest:
                    return choice, ""
        return None, words

    def _list(self, words: str, now: datetime, *, asked: bool) -> list[Any] | None:
        items = self.schema.get("items")
        choices = items.get("enum") if isinstance(items, dict) else None
        if isinstance(choices, list):
            said = plain_words(words)
            named = [each for each in choices if mentions(said, plain_words(str(each)))]
            return named or None
        return _made(self.schema, words, now) if asked else None

    def _object(self, words: str, now: datetime) -> dict[str, Any] | None:
        made = _made(self.schema, words, now)
        if not isinstance(made, dict):
            return None
        for slot in slots_of(self.schema):
            value, words = slot.find(words, now, asked=slot.kind != "words")
            if value is not None:
                made[slot.name] = value
        return made

    def _number(self, words: str) -> tuple[Any, str]:
        # "the 2nd" is no count.
        found = re.search(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])", words)
        if found is None:
            return None, words
        value = float(found.group())
        whole = _type_of(self.schema) == "integer" or value.is_integer()
        return int(value) if whole else value, _without(words, found)

    def _date(self, words: str, now: datetime) -> tuple[Any, str]:
        for pattern, day_group, month_group in ((_DAY_MONTH, 1, 2), (_MONTH_DAY, 2, 1)):
            if found := pattern.search(words):
                month = _MONTHS.index(found.group(month_group)) + 1
                day = _next_date(now.date(), month, int(found.group(day_group)))
                if day is not None:
                    return self._written(day), _without(words, found)
        for name, _ in days_in(words, now):
            ahead = (DAYS.index(name) - now.weekday()) % 7
            rest = re.sub(rf"\b(?:on |next |this )?(?:{name}|tomorrow|today)\b", " ", words)
            return self._written(now.date() + timedelta(days=ahead)), rest
        return None, words

    def _written(self, day: date) -> str:
        if self.name.lower() in {"day", "weekday"} and self.schema.get("format") != "date":
            return DAYS[day.weekday()].capitalize()
        return day.isoformat()

    def _place(self, words: str, *, asked: bool) -> tuple[Any, str]:
        ways = {"origin": "from", "departure": "from", "destination": "to"}
        clue = next((way for word, way in ways.items() if word in self.name.lower()), "")
        before = clue or r"in|for|at|near|around|to"
        found = re.search(rf"\b(?:{before}) (?:the )?{_WORDS_OF_A_NAME}", words)
        if found:
            return titled(found.group(1)), _without(words, found)
        bare = re.search(rf"^(?:it's |it is )?{_WORDS_OF_A_NAME}", words) if asked else None
        return (titled(bare.group(1)), "") if bare else (None, words)


def prepared(text: str) -> str:
    """Plain words with spoken numbers as figures: `a table for four` -> `a table for 4`."""
    # Before the dots go: "7.5" is one number, "7 p.m." is no sentence's end.
    words = re.sub(r"(?<=\d)\.(?=\d)", "\0", text)
    words = plain_words(words.replace("\0", "dotdot").replace("-", " ")).replace("dotdot", ".")
    words = " ".join(_SMALL.get(word, word) for word in alpha2digit(words, "en").split())
    return re.sub(r"\b([ap])\.? m\b", r"\1m", words)


def slots_of(parameters: Mapping[str, Any]) -> list[Slot]:
    """Read a tool's JSON Schema: its properties, in the order they should be looked for."""
    properties, required = properties_of(parameters), _required(parameters)
    slots = [
        Slot(str(name), spoken_name(str(name)), _kind(str(name), schema), schema, name in required)
        for name, given in properties.items()
        for schema in [_plain_schema(resolved(given, parameters))]
    ]
    return sorted(slots, key=lambda slot: _ORDER.index(slot.kind))


def properties_of(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The properties of a tool's schema; what is required need not be described."""
    given = parameters.get("properties")
    given = given if isinstance(given, dict) else {}
    return {**given, **{name: {} for name in _required(parameters) if name not in given}}


def _required(parameters: Mapping[str, Any]) -> list[str]:
    required = parameters.get("required")
    return [str(name) for name in required] if isinstance(required, list) else []


def spoken_name(name: str) -> str:
    """An identifier as people say it: `orderNumber` and `order_number` -> `order number`."""
    return " ".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)).lower() or name


def _plain_schema(given: object) -> Mapping[str, Any]:
    """The schema that matters of `T or null`."""
    if not isinstance(given, dict):
        return {}
    for key in ("anyOf", "oneOf"):
        for option in given.get(key) or []:
            if isinstance(option, dict) and option.get("type") != "null":
                return {**given, **option}
    return given


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "string")
    return str(kind)


def _kind(name: str, schema: Mapping[str, Any]) -> Kind:
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return "choice"
    kind = _type_of(schema)
    if kind == "boolean":
        return "flag"
    if kind in {"integer", "number"}:
        return "number"
    if kind in {"array", "object"}:
        return "list" if kind == "array" else "object"
    if schema.get("format") in {"date", "time"}:
        return "date" if schema["format"] == "date" else "time"
    for text in (spoken_name(name), str(schema.get("description") or "").lower()):
        # Of "the name of the town", the name's own last word tells most.
        for word in reversed(re.findall(r"[a-z]+", text)):
            for found, clues in _CLUES:
                if word in clues:
                    return found
    return "words"


def _content(words: str) -> str:
    """The words that tell choices apart: "on the terrace" is `on_terrace`."""
    return " ".join(word for word in words.split() if word not in COMMON_WORDS) or words


def _made(schema: Mapping[str, Any], words: str, now: datetime) -> Any:
    try:
        return filled(schema, words, now)
    except Unfillable:
        return None


def _without(words: str, found: re.Match[str]) -> str:
    return " ".join((words[: found.start()] + " " + words[found.end() :]).split())


def _flag(words: str) -> bool | None:
    if re.search(r"\b(?:no|nope|not|don't)\b", words):
        return False
    return (
        True
        if re.search(r"\b(?:yes|yeah|yep|sure|please|right|correct|ok|okay)\b", words)
        else None
    )


def _digits(words: str) -> tuple[Any, str]:
    runs = re.finditer(r"(?:\b(?:double |triple )?(?:\d+|oh|o)\b ?)+", words)
    best = max(runs, key=lambda run: len(digits_in(run.group())), default=None)
    digits = digits_in(best.group()) if best else ""
    return (digits, _without(words, best)) if best and digits else (None, words)


def _next_date(today: date, month: int, day: int) -> date | None:
    for year in (today.year, today.year + 1):
        try:
            found = date(year, month, day)
        except ValueError:
            continue
        if found >= today:
            return found
    return None


def _time(words: str, *, asked: bool) -> tuple[Any, str]:
    if asked:
        words = _TWO_BEFORE_FIGURE.sub(_half_past, words)
    if found := _NOON.search(words):
        return "00:00" if found.group(1) == "midnight" else "12:00", _without(words, found)
    if found := _PAST.search(words):
        part = found.group(1)
        minutes = {"half": 30, "how": 30, "have": 30, "quarter": 15}.get(part) or int(
            part if part.isdigit() else 0
        )
        hour = int(found.group(3))
        if found.group(2) == "to":
            hour, minutes = hour - 1, 60 - minutes
        return _written_time(hour, minutes, found.group(4)), _without(words, found)
    for found in _CLOCK.finditer(words):
        if asked or found.group(1) or found.group(3) or found.group(4):
            time = _written_time(int(found.group(2)), int(found.group(3) or 0), found.group(4))
            if time:
                return time, _without(words, found)
    return None, words


def _most_alike(words: str, choices: Sequence[str]) -> str:
    """The one of the expected answers that was heard, by its sound; "" for none of them."""
    alike = {one: likeness(words, plain_words(one.replace("_", " "))) for one in choices}
    best = max(alike, key=lambda one: alike[one], default="")
    return best if alike.get(best, 0) >= ALIKE else ""


def _figure_alike(words: str) -> str:
    """A figure where only a word is that sounds like one: `kevin` -> `7`."""
    if len(words.split()) > 1:
        return words
    return _SMALL.get(_most_alike(words, _FIGURES), words)


def _half_past(heard: re.Match[str]) -> str:
    is_it = likeness(heard.group(), "half past") >= _HALF_PAST_ALIKE
    return "half past" if is_it else heard.group()


def _written_time(hour: int, minutes: int, half: str | None) -> str | None:
    half = (half or "").replace(" ", "")
    is_late = any(sign in half for sign in ("pm", "afternoon", "evening", "tonight"))
    is_early = any(sign in half for sign in ("am", "morning"))
    if hour < 12 and (is_late or (not is_early and 0 < hour < _MORNING_FROM_HOUR)):
        hour += 12
    elif hour == 12 and is_early:
        hour = 0
    return f"{hour:02}:{minutes:02}" if 0 <= hour < 24 and 0 <= minutes < 60 else None


def _name(words: str, *, asked: bool) -> tuple[Any, str]:
    if found := _NAMED.search(words):
        return titled(found.group(1)), _without(words, found)
    return (titled(words) or None, "") if asked else (None, words)
