"""How long to wait before a pause is the end: `semantic_vad`, by what was said so far.

    words at 200 ms of silence -> wait_ms() -> silence that ends the turn

A rule, not a model: a complete phrase that was expected needs less silence, a
conjunction or half a number more. Pure; the words come from the transcript
that is begun on trial at every pause (`ears.PAUSE_MS`).
"""

import re
from typing import Literal

from agent.embedded.words import digits_in, plain_words

Eagerness = Literal["low", "medium", "high", "auto"]

COMPLETE_MS, USUAL_MS, OPEN_MS = 300, 500, 900
# The words must be there before they can be judged: 200 ms, and a transcript.
_LEAST_MS = 300
_PATIENCE = {"low": 1.8, "medium": 1.0, "auto": 1.0, "high": 0.7}
_UNFINISHED = re.compile(
    r"\b(?:and|or|but|because|so|with|to|for|the|a|an|at|in|on|of|my|your|is|are|um|uh|er|erm|if|"
    r"that|from|then|than|like|about|also|plus|when|while|i|i'm|i'd|it's|maybe)$"
)
_NUMBER_WORD = (
    r"(?:\d+|zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple|plus|hundred)"
)
_DICTATING = re.compile(rf"(?:^|\s)(?:{_NUMBER_WORD}[\s-]+){{2,}}{_NUMBER_WORD}$|\bnumber is\b")
_WHOLE_NUMBER_DIGITS = 7


def longest_ms(eagerness: Eagerness) -> int:
    """How long to wait while the words are not known yet."""
    return round(OPEN_MS * _PATIENCE[eagerness])


def wait_ms(
    text: str, eagerness: Eagerness, *, is_complete: bool = False, wants_number: bool = False
) -> int:
    """Say how much silence ends the turn.

    Args:
        text: The caller's words so far.
        eagerness: The session's.
        is_complete: The mind knows this phrase as a whole one.
        wants_number: The agent has asked for a number.

    Returns:
        300, 500 or 900 ms, more for the patient and less for the eager.
    """
    words = plain_words(text)
    digits = len(digits_in(words))
    is_dictating = bool(_DICTATING.search(words)) or (wants_number and digits > 0)
    if not words:
        wait = USUAL_MS
    elif is_dictating:
        wait = OPEN_MS if digits < _WHOLE_NUMBER_DIGITS else USUAL_MS
    elif _UNFINISHED.search(words) or text.rstrip().endswith((",", "...", "…", "-")):
        wait = OPEN_MS
    else:
        wait = COMPLETE_MS if is_complete else USUAL_MS
    return max(_LEAST_MS, round(wait * _PATIENCE[eagerness]))
