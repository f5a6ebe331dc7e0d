"""Money is counted exactly, and what is not known is not taken for nothing."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.call.cost import NO_PRICE, NOT_TOLD, UPPER_BOUND, Charge, Meter, PriceList, charge_of
from agent.call.events import Usage, UsageReported
from agent.call.settings import PriceSettings


def price(model: str = "m", day: str = "2026-10-01", **rates: Any) -> PriceSettings:
    return PriceSettings.model_validate({"model": model, "from": day, **rates})


FULL = price(
    text_in=4, text_cached=0.4, text_out=24, audio_in=32, audio_cached=0.4, audio_out=64
)  # as gpt-realtime-2.1 in October 2026
ASR = price(per_minute=0.0045)


@pytest.mark.parametrize(
    ("usage", "rates", "expected"),
    [
        pytest.param(Usage(), FULL, Charge(Decimal(0)), id="nothing used costs nothing"),
        pytest.param(
            Usage(text_in=163, text_cached=128, audio_in=27, text_out=14, audio_out=36),
            FULL,
            # 35*4 + 128*0.4 + 27*32 + 14*24 + 36*64 per million
            Charge(Decimal("0.0036952")),
            id="each kind at its price, cached tokens once",
        ),
        pytest.param(
            Usage(audio_in=100, audio_cached=100), FULL, Charge(Decimal("0.00004")), id="all cached"
        ),
        pytest.param(
            Usage(text_in=100, text_cached=100),
            price(text_in=4),
            Charge(Decimal("0.0004")),
            id="no price for cached: the full one",
        ),
        pytest.param(
            Usage(other_in=10, other_out=10),
            FULL,
            Charge(Decimal("0.00096"), UPPER_BOUND),
            id="kind not told: the dearest, and said so",
        ),
        pytest.param(
            Usage(text_in=10, text_cached=5, is_vague=True),
            FULL,
            Charge(Decimal("0.000022"), UPPER_BOUND),
            id="cached of an unknown kind: said so",
        ),
        pytest.param(
            Usage(image_in=10),
            FULL,
            Charge(None, f"{NO_PRICE}: image_in"),
            id="no price for a kind that was used",
        ),
        pytest.param(Usage(audio_s=40), ASR, Charge(Decimal("0.003")), id="by the minute"),
        pytest.param(
            Usage(audio_in=400, text_out=9, audio_s=40),
            ASR,
            Charge(Decimal("0.003")),
            id="told in tokens, priced by the minute",
        ),
        pytest.param(
            Usage(audio_in=400, text_out=10, audio_s=40),
            price(audio_in=6, text_out=10),
            Charge(Decimal("0.0025")),
            id="told in tokens, priced by the token",
        ),
        pytest.param(
            Usage(audio_s=40),
            price(audio_in=6),
            Charge(None, f"{NO_PRICE} per minute"),
            id="told in seconds, priced by the token",
        ),
        pytest.param(Usage(text_in=1), None, Charge(None, NO_PRICE), id="unknown model"),
        pytest.param(None, FULL, Charge(None, NOT_TOLD), id="not told"),
        pytest.param(
            Usage(text_in=99, audio_out=99), price(text_in=0, audio_out=0), Charge(Decimal(0)),
            id="free is 0",
        ),
    ],
)  # fmt: skip
def test_charge(usage: Usage | None, rates: PriceSettings | None, expected: Charge) -> None:
    """What was used is priced by kind; an unknown price is no price, never 0."""
    assert charge_of(usage, rates) == expected


COUNTS = st.integers(0, 10_000)


@given(text=COUNTS, audio=COUNTS, cached=COUNTS, out=COUNTS)
def test_not_knowing_is_never_cheaper(text: int, audio: int, cached: int, out: int) -> None:
    """What is charged without details is at least what it would have cost with them."""
    cached_audio = min(cached, audio)
    known = charge_of(
        Usage(text_in=text, audio_in=audio, audio_cached=cached_audio, audio_out=out), FULL
    )
    vague = charge_of(Usage(other_in=text + audio, other_out=out), FULL)
    assert known.cost_usd is not None
    assert vague.cost_usd is not None
    assert vague.cost_usd >= known.cost_usd >= 0


@pytest.mark.parametrize(
    ("model", "day", "expected"),
    [
        pytest.param("m", "2026-09-30", None, id="before the first"),
        pytest.param("m", "2026-10-01", 4, id="on its first day"),
        pytest.param("m", "2026-12-31", 4, id="until the next"),
        pytest.param("m", "2027-06-01", 3, id="the newest"),
        pytest.param("other", "2027-06-01", None, id="another model"),
    ],
)
def test_prices_are_dated(model: str, day: str, expected: int | None) -> None:
    """The price in force is the newest that has begun."""
    prices = PriceList(
        [price(day="2027-01-01", text_in=3), price(text_in=4), price("x", text_in=9)]
    )
    found = prices.price_of(model, date.fromisoformat(day))
    assert (found and found.text_in) == expected


def test_a_call_adds_up() -> None:
    """Exact to the last digit, by kind; one unknown part makes the whole unknown, not the brake."""
    meter = Meter(PriceList([FULL, price("asr", per_minute=0.0045)]), date(2026, 11, 21))
    assert meter.cost_usd is None
    for number in range(3):
        meter.receive(UsageReported("response", f"r{number}", "m", Usage(text_in=1, audio_out=1)))
        meter.receive(UsageReported("transcription", f"u{number}", "asr", Usage(audio_s=2.5)))
    assert meter.cost_usd == meter.known_usd == Decimal("0.0007665")
    assert meter.used == {
        "response": {"text_in": 3, "audio_out": 3},
        "transcription": {"audio_s": 7.5},
    }
    meter.receive(UsageReported("response", "r9", "brand-new", Usage(text_in=5)))
    meter.receive(UsageReported("response", "r10", "m", Usage(text_in=1)))
    assert meter.cost_usd is None
    assert meter.known_usd == Decimal("0.0007705")
    assert meter.used["response"]["text_in"] == 9
