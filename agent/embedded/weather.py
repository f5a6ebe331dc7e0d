"""Talking about the weather: for which place, and what the tool's answer sounds like. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from agent.embedded.rulebook import Rulebook
from agent.embedded.words import plain_words, titled

_PLACE_AFTER = re.compile(r"\b(?:in|for|at|like in|over in)\s+((?:[a-z'.-]+\s?){1,4})$")
_NOT_A_PLACE = frozenset(
    re.findall(
        r"\w+",
        "today tomorrow now right please there it like outside the moment thanks weather this week "
        "morning afternoon evening",
    )
)
_MOST_TEXT_CHARS = 400


def place_in(words: str, slots: Mapping[str, str], city: str) -> str:
    """Find the place a caller asks about.

    Args:
        words: In plain form.
        slots: From the meaning of the words.
        city: What "here" is.

    Returns:
        The place with capitals; "" when none was named.
    """
    place = plain_words(slots.get("place", ""))
    if not place and (found := _PLACE_AFTER.search(words)):
        place = found.group(1)
    kept = place.split()
    while kept and kept[-1] in _NOT_A_PLACE:
        kept.pop()
    while kept and kept[0] in {"in", "for", "at"} | _NOT_A_PLACE:
        kept.pop(0)
    if kept == ["here"] or (not kept and re.search(r"\bhere\b", words)):
        return city
    return titled(" ".join(kept))


def place_given(words: str, city: str) -> str:
    """Find the place in the answer to the question for it; all the words may be the place."""
    bare = re.sub(r"^(?:(?:in|and|for|at|it's|it is|the weather|weather)\s)+", "", words)
    return place_in(words, {}, city) or place_in("", {"place": bare}, city)


def weather_report(rules: Rulebook, result: Mapping[str, Any], place: str) -> str:
    """Tell what a weather tool gave back, whatever it was.

    Args:
        rules: For the words.
        result: `place, temperature_c, conditions, high_c, low_c, wind_kmh`, or `error` or `text`.
        place: What was asked for, where the result does not say.
    """
    place = str(result.get("place") or place)
    temperature = result.get("temperature_c")
    if result.get("error") or not isinstance(temperature, int | float):
        spoken = str(result.get("text") or "")[:_MOST_TEXT_CHARS]
        return spoken or rules.text("weather_failed", place=place)
    sky = str(result.get("conditions") or "")
    conditions = rules.text("weather_conditions", conditions=sky) if sky else ""
    degrees = _degrees(temperature)
    report = [rules.text("weather", place=place, temperature=degrees, conditions=conditions)]
    high, low = result.get("high_c"), result.get("low_c")
    if isinstance(high, int | float) and isinstance(low, int | float):
        report.append(rules.text("weather_range", high=_degrees(high), low=_degrees(low)))
    wind = result.get("wind_kmh")
    if isinstance(wind, int | float):
        report.append(rules.text("weather_wind", wind=_degrees(wind)))
    return " ".join(report)


def _degrees(value: float) -> str:
    whole = round(value)
    return f"minus {-whole}" if whole < 0 else str(whole)
