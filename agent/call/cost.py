"""What the model's work costs: prices of a day, and the sum of one call.

Decides only; no I/O, no clock. Money is `Decimal` US dollars throughout. A cost
that is not known is None and never 0: a brake must not take a missing price for
a gift, and an admin must not either.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal

from agent.call.events import Usage, UsagePurpose, UsageReported
from agent.call.settings import PriceSettings

NO_PRICE = "no price for this model"
NOT_TOLD = "the far end did not say what was used"
UPPER_BOUND = "upper bound: the far end did not say which tokens they were"

_TOKENS_PER_PRICE = 1_000_000
_SECONDS_PER_PRICE = 60


class PriceList:
    """Which price is in force for a model on a day."""

    def __init__(self, prices: Iterable[PriceSettings]) -> None:
        """Take all prices of all days, in any order."""
        self._prices = sorted(prices, key=lambda price: price.from_day, reverse=True)

    def price_of(self, model: str, day: date) -> PriceSettings | None:
        """Give the newest price that is in force on this day; None if there is none yet."""
        return next(
            (p for p in self._prices if p.model == model and p.from_day <= day),
            None,
        )


@dataclass(frozen=True, slots=True)
class Charge:
    """What one response or one transcription cost.

    Attributes:
        cost_usd: None when it cannot be known.
        remark: Why not, or why it is only an upper bound; mostly empty.
    """

    cost_usd: Decimal | None
    remark: str = ""


class Meter:
    """What one call has used and what that cost.

    A call keeps the prices of the day it began, also past midnight.

    Attributes:
        known_usd: The cost of everything whose price is known.
        cost_usd: The cost of the call; None before anything was reported, and
            for good once one part of it has no known price.
        used: Tokens by kind and seconds, summed, for responses and for transcriptions.
    """

    def __init__(self, prices: PriceList, day: date) -> None:
        """Begin a call on this day."""
        self.known_usd = Decimal(0)
        self.cost_usd: Decimal | None = None
        self._prices = prices
        self._day = day
        self._used: dict[UsagePurpose, Counter[str]] = {}
        self._is_known = True

    @property
    def used(self) -> Mapping[str, Mapping[str, float]]:
        """Tokens by kind and seconds, by purpose; what was not used is left out."""
        return {purpose: dict(sums) for purpose, sums in self._used.items()}

    def receive(self, report: UsageReported) -> Charge:
        """Add what was reported; return what it cost."""
        charge = charge_of(report.usage, self._prices.price_of(report.model, self._day))
        self._used.setdefault(report.purpose, Counter()).update(amounts(report.usage))
        self.known_usd += charge.cost_usd or 0
        self._is_known = self._is_known and charge.cost_usd is not None
        self.cost_usd = self.known_usd if self._is_known else None
        return charge


def amounts(usage: Usage | None) -> dict[str, int | float]:
    """Name what was used, without the kinds that were not."""
    if usage is None:
        return {}
    found = {field.name: getattr(usage, field.name) for field in fields(usage)}
    return {
        name: amount for name, amount in found.items() if amount and not isinstance(amount, bool)
    }


def charge_of(usage: Usage | None, price: PriceSettings | None) -> Charge:
    """Price what was used.

    Tokens whose kind was not told are priced as the dearest kind the model has;
    cached tokens are a part of those that went in.

    Source: OpenAI's price model as of October 2026; see `[[prices]]`.
    """
    if usage is None:
        return Charge(None, NOT_TOLD)
    if price is None:
        return Charge(None, NO_PRICE)
    if price.per_minute is not None and usage.audio_s:
        return Charge(Decimal(str(usage.audio_s)) * price.per_minute / _SECONDS_PER_PRICE)
    if usage.audio_s and not any((usage.audio_in, usage.text_in, usage.other_in)):
        return Charge(None, f"{NO_PRICE} per minute")
    dearest_in = _dearest(price.text_in, price.audio_in, price.image_in)
    dearest_out = _dearest(price.text_out, price.audio_out)
    total = Decimal(0)
    for kind, tokens, rate in (
        ("text_in", usage.text_in - usage.text_cached, price.text_in),
        ("text_in", usage.text_cached, _either(price.text_cached, price.text_in)),
        ("audio_in", usage.audio_in - usage.audio_cached, price.audio_in),
        ("audio_in", usage.audio_cached, _either(price.audio_cached, price.audio_in)),
        ("image_in", usage.image_in - usage.image_cached, price.image_in),
        ("image_in", usage.image_cached, _either(price.image_cached, price.image_in)),
        ("text_in", usage.other_in, dearest_in),
        ("text_out", usage.text_out, price.text_out),
        ("audio_out", usage.audio_out, price.audio_out),
        ("text_out", usage.other_out, dearest_out),
    ):
        if tokens and rate is None:
            return Charge(None, f"{NO_PRICE}: {kind}")
        total += tokens * (rate or Decimal(0)) / _TOKENS_PER_PRICE
    is_vague = usage.is_vague or usage.other_in or usage.other_out
    return Charge(total, UPPER_BOUND if is_vague else "")


def _either(wanted: Decimal | None, instead: Decimal | None) -> Decimal | None:
    return instead if wanted is None else wanted


def _dearest(*rates: Decimal | None) -> Decimal | None:
    return max((rate for rate in rates if rate is not None), default=None)
