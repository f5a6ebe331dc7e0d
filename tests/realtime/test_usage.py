"""Whatever the far end says it used becomes counts that add up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.call.events import Usage
from agent.realtime.usage import response_usage, transcription_usage


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(None, None, id="nothing"),
        pytest.param("many", None, id="no object"),
        pytest.param({}, Usage(), id="empty"),
        pytest.param(
            {"input_tokens": 10, "output_tokens": 4},
            Usage(other_in=10, other_out=4),
            id="sums alone",
        ),
        pytest.param(
            {"input_tokens": 10, "input_token_details": {"text_tokens": 4, "audio_tokens": None}},
            Usage(text_in=4, other_in=6),
            id="parts that do not add up",
        ),
        pytest.param(
            {"input_token_details": {"text_tokens": 4, "image_tokens": 2, "cached_tokens": 3}},
            Usage(text_in=4, text_cached=3, image_in=2, is_vague=True),
            id="cached, kind not told",
        ),
        pytest.param(
            {
                "input_token_details": {
                    "text_tokens": 1,
                    "audio_tokens": 5,
                    "cached_tokens": 90,
                    "cached_tokens_details": {"text_tokens": 40, "audio_tokens": 50},
                }
            },
            Usage(text_in=1, text_cached=1, audio_in=5, audio_cached=5),
            id="more cached than there was",
        ),
        pytest.param(
            {"input_tokens": -5, "output_tokens": True, "output_token_details": ["x"]},
            Usage(),
            id="no counts",
        ),
        pytest.param({"output_tokens": 10**30}, Usage(other_out=2**32), id="beyond all measure"),
    ],
)
def test_response_usage(told: object, expected: Usage | None) -> None:
    """Parts that are missing, odd or contradictory are put on the safe side."""
    assert response_usage(told) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(None, None, id="nothing"),
        pytest.param({"type": "duration", "seconds": 3.5}, Usage(audio_s=3.5), id="seconds"),
        pytest.param({"seconds": -1}, Usage(), id="less than none"),
        pytest.param(
            {"input_tokens": 30, "output_tokens": 8, "input_token_details": {"audio_tokens": 27}},
            Usage(audio_in=27, text_out=8, audio_s=2.7),
            id="tokens",
        ),
        pytest.param({"input_tokens": 20}, Usage(audio_in=20, audio_s=2), id="a sum alone"),
    ],
)
def test_transcription_usage(told: object, expected: Usage | None) -> None:
    """Tokens of the caller's voice are seconds, too: some models are priced so."""
    assert transcription_usage(told) == expected


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(["input_tokens", "output_tokens", "seconds", "input_token_details",
                         "audio_tokens", "cached_tokens", "cached_tokens_details"]),
        inner,
        max_size=5,
    ),
)  # fmt: skip


@given(told=JUNK)
def test_anything(told: object) -> None:
    """Nothing a far end sends breaks the call, and cached is never more than what went in."""
    usage = response_usage(told)
    transcription_usage(told)
    assert usage is None or (
        usage.text_cached <= usage.text_in
        and usage.audio_cached <= usage.audio_in
        and usage.image_cached <= usage.image_in
    )
