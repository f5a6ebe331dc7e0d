"""How alike words sound over a telephone, however they are written: text in, a number out.

A recogniser that mishears writes down other words that sound alike: "rye bread"
becomes "right Brett", "vegan" "we can". So letters are taken for what is left
of them after 3.4 kHz and noise: b, p, v and w are one sound, every hiss is one,
every vowel is one. Pure; rough on purpose, and only asked where words that are
really written there were not found.
"""

import re

from rapidfuzz import fuzz

ALIKE = 76
"""From which likeness, of 100, one may have been heard for the other, where it was expected."""
SURELY_ALIKE = 92
"""The same where nothing was expected."""

# Shorter ones sound like too much.
_LEAST_SOUNDS = 4
_SPELLINGS = (
    (re.compile(r"[^a-z ]"), ""),
    (re.compile(r"\b(?:k(?=n)|w(?=r))|(?<=[a-z])gh(?=t|\b)|(?<=[aeiou])w\b"), ""),
    (re.compile(r"ph|th|sh|ch|c(?=[eiy])|g(?=[ei]\b)"), "s"),
    (re.compile(r"(?<=[a-z]{2})e\b"), ""),
    (re.compile(r"qu|x"), "ks"),
    (re.compile(r"[aeiouy]+(?:r\b)?"), "a"),
    (re.compile(r"h"), ""),
)
_SOUNDS = str.maketrans("bvwdgcqfzjm", "ppptkkksssn")
_TWICE = re.compile(r"(.)\1+")


def sound(words: str) -> str:
    """Reduce plain words to what a bad line leaves of them: `rye bread` -> `raprat`."""
    for spelling, left in _SPELLINGS:
        words = spelling.sub(left, words)
    return _TWICE.sub(r"\1", words.translate(_SOUNDS).replace(" ", ""))


def likeness(words: str, clue: str) -> float:
    """Say how much some words of what was said sound like a clue.

    Args:
        words: In plain form.
        clue: In plain form.

    Returns:
        0 to 100, for the best run of words with about as many as the clue has;
        0 for a clue too short to judge.
    """
    wanted = sound(clue)
    if len(wanted) < _LEAST_SOUNDS:
        return 0.0
    spoken, size = words.split(), len(clue.split())
    runs = (
        " ".join(spoken[at : at + length])
        for length in range(max(1, size - 1), size + 2)
        for at in range(len(spoken) - length + 1)
    )
    return max((fuzz.ratio(sound(run), wanted) for run in runs), default=0.0)
