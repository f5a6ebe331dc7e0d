"""What is understood though it was written down as other words that sound alike."""

from datetime import datetime

import pytest

from agent.embedded.mind import Heard, Mind, Say
from agent.embedded.offers import Tool
from agent.embedded.rulebook import Rulebook
from agent.embedded.sounds import likeness

RULES = Rulebook()
FRIDAY = datetime(2026, 11, 20, 10, 0)  # noqa: DTZ001 - a wall clock
TEXT = {"type": "string"}


def offered(name: str, **properties: object) -> dict[str, Tool]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {name: Tool(name, schema)}


@pytest.mark.parametrize(
    ("heard", "clue", "is_alike"),
    [
        pytest.param("do you have right brett", "rye bread", True, id="two words"),
        pytest.param("is anything we can", "vegan", True, id="one word heard as two"),
        pytest.param("and halp house 7", "half past", True, id="hisses are one sound"),
        pytest.param("at least 7", "half past", False, id="another phrase"),
        pytest.param("tell me a joke", "baguette", False, id="nothing alike"),
        pytest.param("high", "pie", False, id="too short to judge"),
    ],
)
def test_likeness(heard: str, clue: str, is_alike: bool) -> None:
    """Words are compared by what a bad line leaves of them."""
    assert (likeness(heard, clue) >= 80) is is_alike


@pytest.mark.parametrize(
    ("turns", "tools", "expected"),
    [
        pytest.param(["Do you have gripe rack?"], {}, "have a rye bread", id="a product"),
        pytest.param(["When do you open?", "In on funding"], {}, "On Sunday we are", id="a day"),
        pytest.param(["In on funding"], {}, "don't know that", id="no day was expected"),
        pytest.param(
            ["I'd like to order a piece that flees."],
            offered("pizza_order", size={"enum": ["small", "large"]}),
            "small or large",
            id="a tool's name",
        ),
        pytest.param(
            ["Pizza order please", "Lords,", "My shrooms."],
            offered(
                "pizza_order",
                size={"enum": ["small", "large"]},
                topping={"enum": ["ham", "mushrooms"]},
            ),
            "{'size': 'large', 'topping': 'mushrooms'}",
            id="choices",
        ),
        pytest.param(
            ["book table please", "Kevin."],
            offered("book_table", people={"type": "integer"}),
            "{'people': 7}",
            id="a figure alone",
        ),
        pytest.param(
            ["order status please", "4/7 to 9."],
            offered("order_status", order_number=TEXT),
            "{'order_number': '4729'}",
            id="a figure between figures",
        ),
        pytest.param(
            ["order status please", "Four-seventh to nine."],
            offered("order_status", order_number=TEXT),
            "{'order_number': '4729'}",
            id="an ordinal",
        ),
        pytest.param(
            ["book table please", "At Halp House 7."],
            offered("book_table", time=TEXT),
            "{'time': '19:30'}",
            id="half past",
        ),
        pytest.param(
            ["book table please", "At least 7."],
            offered("book_table", time=TEXT),
            "{'time': '19:00'}",
            id="not half past",
        ),
    ],
)
def test_misheard(turns: list[str], tools: dict[str, Tool], expected: str) -> None:
    """What is expected just now is understood from its sound alone."""
    mind = Mind(RULES)
    for turn in turns:
        steps = mind.reply(Heard(turn), tools, FRIDAY)
    assert expected in " ".join(
        step.text if isinstance(step, Say) else str(dict(step.arguments)) for step in steps
    )
