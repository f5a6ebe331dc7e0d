"""Any tool a client offers is called with what the caller said, and what is missing is asked for."""

import json
from datetime import datetime
from typing import Any

import pytest

from agent.embedded.mind import CallTool, Heard, Mind, Say, Step
from agent.embedded.offers import Tool
from agent.embedded.rulebook import Rulebook

RULES = Rulebook()
FRIDAY = datetime(2026, 11, 20, 10, 0)  # noqa: DTZ001 - a wall clock


def tool(
    name: str, description: str, /, *, optional: tuple[str, ...] = (), **properties: dict[str, Any]
) -> Tool:
    required = [key for key in properties if key not in optional]
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(name, schema, description)


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
TOOLS = {
    each.name: each
    for each in (
        tool("order_status", "Look up the status of an order.", order_number=TEXT),
        tool(
            "book_table",
            "Reserve a table.",
            optional=("name", "seating"),
            party_size=WHOLE,
            date={"type": "string", "format": "date"},
            time=TEXT,
            name=TEXT,
            seating={"type": "string", "enum": ["inside", "on_terrace", None]},
        ),
        tool(
            "setRoomTemperature",
            "Set the thermostat.",
            degrees={"type": "number"},
            room={"type": "string", "enum": ["kitchen", "living room"]},
        ),
        tool("get_train", "Find a train connection.", origin=TEXT, destination=TEXT),
        tool("search_knowledge_base", "Answers questions on tax law.", query=TEXT),
        tool("flip_coin", "Flips a coin."),
        tool("subscribe", "Newsletter.", email_address=TEXT, weekly={"type": ["boolean", "null"]}),
    )
}


def outcome(steps: list[Step]) -> str:
    return " ".join(
        step.text if isinstance(step, Say) else f"{step.name} {json.dumps(dict(step.arguments))}"
        for step in steps
    )


@pytest.mark.parametrize(
    "dialogue",
    [
        pytest.param(
            [
                (
                    "What's the status of order four seven two nine?",
                    'order_status {"order_number": "4729"}',
                )
            ],
            id="a number",
        ),
        pytest.param(
            [
                ("Where is my order?", "Please tell me the order number."),
                ("erm I don't know", "didn't get that"),
                ("oh it's double one seven", 'order_status {"order_number": "117"}'),
            ],
            id="a number that is asked for twice",
        ),
        pytest.param(
            [
                (
                    "Can I book a table for four tomorrow at half past seven, my name is Anna Lee",
                    '{"party_size": 4, "date": "2026-11-21", "time": "19:30", "name": "Anna Lee"}',
                )
            ],
            id="all at once",
        ),
        pytest.param(
            [
                ("I'd like to reserve a table on the terrace", "party size"),
                ("We are two.", "Please tell me the date."),
                ("the third of May", "Please tell me the time."),
                (
                    "Twelve thirty.",
                    '"date": "2027-05-03", "time": "12:30", "seating": "on_terrace"}',
                ),
            ],
            id="question by question",
        ),
        pytest.param(
            [
                ("set the temperature to 21.5 please", "kitchen or living room"),
                ("The kitchen.", 'setRoomTemperature {"degrees": 21.5, "room": "kitchen"}'),
            ],
            id="a choice",
        ),
        pytest.param(
            [
                (
                    "I need a train from New York to Boston",
                    'get_train {"origin": "New York", "destination": "Boston"}',
                )
            ],
            id="two places",
        ),
        pytest.param(
            [("A train to Paris", "tell me the origin"), ("London", '"origin": "London"')],
            id="a place asked for",
        ),
        pytest.param(
            [
                (
                    "I have questions on tax law for cats",
                    '"query": "i have questions on tax law for cats"',
                )
            ],
            id="free text",
        ),
        pytest.param([("Flip a coin.", "flip_coin {}")], id="nothing needed"),
        pytest.param(
            [
                ("I want to subscribe to the newsletter", "email address"),
                ("anna at example dot org", "weekly"),
                ("No, thanks", '"weekly": false'),
            ],
            id="yes or no",
        ),
        pytest.param(
            [("book a table", "party size"), ("never mind", "anything else"), ("four", "")],
            id="given up",
        ),
        pytest.param(
            [("book a table", "party size"), ("Goodbye.", "Goodbye!")], id="goodbye in between"
        ),
        pytest.param(
            [("book a table", "party size"), ("when are you open", "Monday to Friday")],
            id="another question in between",
        ),
        pytest.param(
            [
                ("book a table", "party size"),
                ("blue", "didn't get"),
                ("green", "didn't get"),
                ("red", "Shall I take a message"),
            ],
            id="no endless asking",
        ),
        pytest.param(
            [("I'd like to order a cake", "note your order")], id="one word is not enough"
        ),
    ],
)
def test_call(dialogue: list[tuple[str, str]]) -> None:
    """A tool nobody here knows is found by its own words and filled from the caller's."""
    mind = Mind(RULES)
    for utterance, expected in dialogue:
        found = outcome(mind.reply(Heard(utterance), TOOLS, FRIDAY))
        assert expected in found
    if expected == "":
        assert "book_table" not in found


def test_arguments_are_as_the_schema_says() -> None:
    """Values have the schema's types: whole numbers, numbers, booleans, one of the choices."""
    mind = Mind(RULES)
    mind.reply(Heard("set the temperature to nineteen"), TOOLS, FRIDAY)
    steps = mind.reply(Heard("living room"), TOOLS, FRIDAY)
    calls = [step for step in steps if isinstance(step, CallTool)]
    assert calls == [CallTool("setRoomTemperature", {"degrees": 19, "room": "living room"})]


@pytest.mark.parametrize(
    ("output", "says"),
    [
        pytest.param("Your order is ready.", "Your order is ready.", id="text"),
        pytest.param('{"message": "It is ready."}', "It is ready.", id="telling field"),
        pytest.param(
            '{"order_status": "in_oven", "is_paid": true, "none": null}',
            "The order status is in oven. The is paid is yes.",
            id="fields",
        ),
        pytest.param('["rye", "wheat"]', "rye and wheat.", id="list"),
        pytest.param("42", "42", id="number"),
        pytest.param('{"error": "no such order"}', "did not work. no such order", id="error"),
        pytest.param('{"ok": {}}', "That is done", id="nothing to say"),
        pytest.param("[" * 5000, "[[", id="nonsense"),
    ],
)
def test_result_is_spoken(output: str, says: str) -> None:
    """What the tool gave back is told in words."""
    assert says in outcome(Mind(RULES).tool_output("order_status", output))


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({}, id="none"),
        pytest.param({"properties": []}, id="a list"),
        pytest.param({"properties": {"x": None}, "required": "x"}, id="not a schema"),
        pytest.param({"properties": {"x": {"type": []}}, "required": ["x", "y"]}, id="no type"),
        pytest.param({"properties": {"x": {"anyOf": [None, {}]}}, "required": [7]}, id="odd"),
    ],
)
def test_odd_schema(schema: dict[str, Any]) -> None:
    """A schema that makes little sense leads to a question or a call, never to silence."""
    tools = {"polish_shoes": Tool("polish_shoes", schema, "Polishes shoes.")}
    assert Mind(RULES).reply(Heard("polish my shoes"), tools, FRIDAY)
