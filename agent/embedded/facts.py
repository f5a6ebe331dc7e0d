"""What the business knows, and how it answers: hours, address, products, anything else.

    facts.yaml -> load_facts() -> Facts
    words and intents -> Facts.answers() -> sentences

Pure once loaded, shared by all conversations. Which question was asked is the
rulebook's to find; here it is only answered.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from agent.embedded.sounds import ALIKE, SURELY_ALIKE, likeness
from agent.embedded.voice import spoken_digits
from agent.embedded.words import DAYS, days_in, joined, mentions, plain_words


def load_facts(source: Path | Traversable) -> Mapping[str, Any]:
    """Read facts, and refuse what the receptionist would stumble over in mid-call.

    Args:
        source: YAML in the form of `facts.yaml`.

    Raises:
        ValueError: Not YAML of that form; the message says where.
        OSError: The file cannot be read.
    """
    try:
        facts = yaml.safe_load(source.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not YAML: {error}") from error
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


class Facts:
    """One business.

    Args:
        known: From `load_facts`; everything in it is optional.
        replies: How answers are put, by name; see `rules.yaml`.

    Attributes:
        name: How the business calls itself.
        city: Where "here" is; "" when nobody said.
    """

    def __init__(self, known: Mapping[str, Any], replies: Mapping[str, Any]) -> None:
        self._known = known
        self._replies = replies
        self.name = str(known.get("name") or "the office")
        self.city = str(known.get("city") or "")

    def answers(
        self, words: str, asked: Sequence[str], now: datetime, *, is_chat: bool
    ) -> list[str]:
        """Answer everything that was asked in one turn.

        Args:
            words: In plain form.
            asked: Intents of questions about the business, in order.
            now: Local time, for "are you open today".
            is_chat: The words are thanks or the like: a day in them is no question.

        Returns:
            Sentences in order; [] when it was no question about the business.
        """
        special = self._special(words)
        if "price" in asked:
            asked = [intent for intent in asked if intent != "products"]
        if not asked and not special:
            if self._products_in(words):
                asked = ["products"]
            elif any(days_in(words, now)) and not is_chat:
                asked = ["hours"]
        if special:
            asked = [one for one in asked if one not in {"products", "price", "address"}]
        found = [special, *(self._answer(intent, words, now) for intent in asked)]
        return [answer for answer in dict.fromkeys(found) if answer]

    def guess(self, words: str, now: datetime, *, expects_day: bool) -> str:
        """Answer what the words may have sounded like, where they make no sense as written.

        Args:
            words: In plain form.
            now: Local time.
            expects_day: The last question was for the hours: "and on funding?" asks for Sunday.
        """
        if expects_day:
            day = max(DAYS, key=lambda one: likeness(words, one))
            if likeness(words, day) >= ALIKE:
                return self._hours(day, now)
        if special := _sounding(words, self._known.get("answers") or [], SURELY_ALIKE):
            return str(special["answer"])
        return self._offer(self._product_like(words, SURELY_ALIKE))

    def _text(self, reply: str, **values: str) -> str:
        return str(self._replies[reply]).format(**values)

    def _answer(self, intent: str, words: str, now: datetime) -> str:
        match intent:
            case "hours":
                return self._hours(words, now)
            case "address":
                return str(self._known.get("address") or self._text("address_none"))
            case "telephone":
                return self._telephone()
            case "price":
                return self._price(words)
            case _:
                return self._products(words)

    def _telephone(self) -> str:
        number = str(self._known.get("telephone") or "")
        if not number:
            return self._text("telephone_none")
        return self._text("telephone", digits=spoken_digits(number))

    def _price(self, words: str) -> str:
        found = self._products_in(words) or self._product_like(words, ALIKE)
        if not found:
            return self._all_products("which_product")
        prices = [self._text("price", product=p["name"], price=p["price"])[:-1] for p in found]
        answer = self._text("prices", prices=joined(prices))
        return answer[:1].upper() + answer[1:]

    def _products(self, words: str) -> str:
        found = self._products_in(words) or self._product_like(words, ALIKE)
        return self._offer(found) or self._all_products("products")

    def _offer(self, products: Sequence[Mapping[str, Any]]) -> str:
        if len(products) == 1:
            return self._text("have", product=products[0]["name"], price=products[0]["price"])
        parts = [f"{p['name']}, for {p['price']}" for p in products]
        return self._text("products", products=joined(parts)) if parts else ""

    def _all_products(self, reply: str) -> str:
        names = [str(product["name"]) for product in self._known.get("products") or []]
        return self._text(reply, products=joined(names)) if names else self._text("products_none")

    def _products_in(self, words: str) -> list[Mapping[str, Any]]:
        return [
            product
            for product in self._known.get("products") or []
            if any(
                mentions(words, plain_words(str(word)) + ending)
                for word in product["words"]
                for ending in ("", "s")
            )
        ]

    def _product_like(self, words: str, least: float) -> list[Mapping[str, Any]]:
        found = _sounding(words, self._known.get("products") or [], least)
        return [found] if found else []

    def _special(self, words: str) -> str:
        for entry in self._known.get("answers") or []:
            if any(mentions(words, plain_words(str(word))) for word in entry["words"]):
                return str(entry["answer"])
        return ""

    def _hours(self, words: str, now: datetime) -> str:
        hours = self._known.get("hours") or {}
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


def _sounding(
    words: str, entries: Sequence[Mapping[str, Any]], least: float
) -> Mapping[str, Any] | None:
    """The entry one of whose `words` sounds most like what was said, if any does enough."""

    def best(entry: Mapping[str, Any]) -> float:
        return max(likeness(words, plain_words(str(word))) for word in entry["words"])

    found = max(entries, key=best, default=None)
    return found if found is not None and best(found) >= least else None


def _clock(time: str) -> str:
    """Say a time of day: `07:00` -> `7 am`."""
    at = datetime.strptime(time, "%H:%M")  # noqa: DTZ007 - a wall clock without a day
    minutes = f":{at.minute:02}" if at.minute else ""
    return f"{at.hour % 12 or 12}{minutes} {'am' if at.hour < 12 else 'pm'}"


def _span_of(days: Sequence[str]) -> str:
    return f"{days[0]} to {days[-1]}" if len(days) > 2 else " and ".join(days)
