"""What people said, as words that can be compared: pure text in, pure text out.

Shared by the mind and by the slots of tool calls. Telephone speech is
misheard, so clues are compared loosely. Nothing here knows what a word is for.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rapidfuzz import fuzz
from text_to_num import alpha2digit

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LOOSE = 86
"""How alike two words must be, of 100, to pass for one misheard."""

COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are at be can could do does for from have how i in is it me my of on or our "
        "please that the there this to us was we what when where which who will with would you your",
    )
)

_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
# Some write these in two.
_TORN = re.compile(r"\b(good|to)-(bye?|morrow|day)\b")
_LOOSE_FROM_CHARS = 5
# In front of other figures this is what is left of a "five" on a noisy line.
_HEARD_FIVE = re.compile(
    r"\b(?:by|bye|fife|hive)\b(?= (?:\d|zero|one|two|three|four|five|six|seven|eight|nine))"
)
# Between figures, or at their end, these are figures too.
_HEARD_FIGURE = {"to": "2", "too": "2", "for": "4", "ate": "8", "won": "1"}
_FIGURE_BEHIND_ANOTHER = re.compile(rf"(?<=\d )({'|'.join(_HEARD_FIGURE)})\b(?= \d|$)")
# "Bye" after thanks or no is heard as "by" and "buy" on a noisy line.
_HEARD_BYE = re.compile(
    r"^((?:no|ok|okay|great|good|well|thanks?|think|cheers)\b.*) (?:by|buy|boy)$"
)


def plain_words(text: str) -> str:
    """Lower case, apostrophes straight, no punctuation, single spaces."""
    text = _TORN.sub(r"\1\2", text.lower().replace("\u2019", "'"))
    words = " ".join(_WORD.findall(text))
    return _HEARD_BYE.sub(r"\1 bye", words)


def mentions(words: str, clue: str) -> bool:
    """Whether a clue occurs in what was said, misheard a little at most."""
    if f" {clue} " in f" {words} ":
        return True
    if len(clue) < _LOOSE_FROM_CHARS:
        return False
    spoken, size = words.split(), len(clue.split())
    windows = (" ".join(spoken[at : at + size]) for at in range(len(spoken) - size + 1))
    return any(fuzz.ratio(window, clue) >= LOOSE for window in windows)


def joined(parts: Sequence[str], last: str = "and") -> str:
    """Enumerate as people do: `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def titled(words: str) -> str:
    """Write a name or a place of up to four words with capitals."""
    return " ".join(word.capitalize() for word in words.split()[:4])


def days_in(words: str, now: datetime) -> Iterable[tuple[str, str]]:
    """Which days a question is about: the day's name and how to begin the answer."""
    for day in DAYS:
        if mentions(words, day) or mentions(words, f"{day}s"):
            yield day, f"On {day.capitalize()}"
    if mentions(words, "weekend"):
        yield "saturday", "On Saturday"
        yield "sunday", "On Sunday"
    if re.search(r"\b(?:today|now|still open|tonight|this evening)\b", words):
        yield DAYS[now.weekday()], "Today"
    if mentions(words, "tomorrow"):
        yield DAYS[(now + timedelta(days=1)).weekday()], "Tomorrow"


def digits_in(text: str) -> str:
    """The digits of a spoken number: `five five five, oh one double two` -> `5550122`."""
    words = plain_words(text).replace("-", " ")
    words = re.sub(r"\b(double|triple) (\w+)", _repeated, words)
    words = re.sub(r"\b(?:oh|o)\b", "zero", words)
    words = _HEARD_FIVE.sub("five", words)
    return "".join(char for char in alpha2digit(words, "en") if char.isdigit())


def figures(words: str) -> str:
    """Mend the figures of a number that is being dictated: `4 7th to 9` -> `4 7 2 9`."""
    words = re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", r"\1", words)
    return _FIGURE_BEHIND_ANOTHER.sub(lambda heard: _HEARD_FIGURE[heard.group()], words)


def _repeated(match: re.Match[str]) -> str:
    return " ".join([match.group(2)] * (2 if match.group(1) == "double" else 3))
