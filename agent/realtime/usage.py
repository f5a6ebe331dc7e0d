"""What the Realtime API says it used, read with mistrust.

Every part of a usage object may be absent or null, and its parts may not add up.
What cannot be told apart is kept as `other_*` or `is_vague`, so that whoever
prices it can stay on the safe side.

Source: `response.done` and `...input_audio_transcription.completed` in the GA
event reference, August 2026.
"""

from collections.abc import Mapping
from typing import Any

from agent.call.events import Usage

_MOST_TOKENS = 2**32
_MOST_SECONDS = 24 * 3600
_TOKENS_PER_AUDIO_S = 10
"""One token for each 100 ms of the caller's voice, says the provider's guide to costs."""


def response_usage(told: object) -> Usage | None:
    """Read the usage of a response; None if none was told.

    Cached tokens are a part of what went in, never more than it. If it is not
    told what kind they were, they are taken for text, whose discount is smallest.
    """
    if not isinstance(told, dict):
        return None
    sums = _Counts(told)
    inputs = sums.part("input_token_details")
    outputs = sums.part("output_token_details")
    text_in, audio_in, image_in = (
        inputs.count(f"{kind}_tokens") for kind in ("text", "audio", "image")
    )
    cached = inputs.part("cached_tokens_details")
    text_cached, audio_cached, image_cached = (
        cached.count(f"{kind}_tokens") for kind in ("text", "audio", "image")
    )
    untold = max(0, inputs.count("cached_tokens") - text_cached - audio_cached - image_cached)
    text_out, audio_out = outputs.count("text_tokens"), outputs.count("audio_tokens")
    return Usage(
        text_in=text_in,
        text_cached=min(text_in, text_cached + untold),
        text_out=text_out,
        audio_in=audio_in,
        audio_cached=min(audio_in, audio_cached),
        audio_out=audio_out,
        image_in=image_in,
        image_cached=min(image_in, image_cached),
        other_in=max(0, sums.count("input_tokens") - text_in - audio_in - image_in),
        other_out=max(0, sums.count("output_tokens") - text_out - audio_out),
        is_vague=untold > 0,
    )


def transcription_usage(told: object) -> Usage | None:
    """Read the usage of a transcription, in tokens or in seconds; None if none was told."""
    if not isinstance(told, dict):
        return None
    seconds = told.get("seconds")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return Usage(audio_s=float(min(max(0, seconds), _MOST_SECONDS)))
    sums = _Counts(told)
    inputs = sums.part("input_token_details")
    text_in = inputs.count("text_tokens")
    # All that goes into a transcription but its prompt is audio.
    audio_in = inputs.count("audio_tokens") or max(0, sums.count("input_tokens") - text_in)
    return Usage(
        text_in=text_in,
        text_out=sums.count("output_tokens"),
        audio_in=audio_in,
        audio_s=audio_in / _TOKENS_PER_AUDIO_S,
    )


class _Counts:
    """A stranger's object of counts: what is no count is 0, what is no object is empty."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = told

    def count(self, name: str) -> int:
        value = self._told.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            return 0
        return min(max(0, value), _MOST_TOKENS)

    def part(self, name: str) -> "_Counts":
        value = self._told.get(name)
        return _Counts(value if isinstance(value, dict) else {})
