"""What the receptionist understands and does, as told by what callers say."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.embedded.mind import (
    CallTool,
    Heard,
    Mind,
    Say,
    Step,
    words_to_say,
)
from agent.embedded.offers import Tool
from agent.embedded.rulebook import Rulebook
from agent.embedded.words import digits_in

RULES = Rulebook()
FRIDAY = datetime(2026, 11, 20, 10, 0)  # noqa: DTZ001 - a wall clock
PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
TOOLS = {
    "weather": Tool("weather", PLACE),
    "hang_up": Tool("hang_up", {"type": "object", "properties": {}}),
    "transfer": Tool("transfer", {"type": "object", "properties": {}}),
}


def told(steps: list[Step]) -> str:
    return " ".join(step.text for step in steps if isinstance(step, Say))


def called(steps: list[Step]) -> list[str]:
    return [
        f"{step.name} {json.dumps(dict(step.arguments))}"
        for step in steps
        if isinstance(step, CallTool)
    ]


@pytest.mark.parametrize(
    ("utterance", "says", "calls"),
    [
        pytest.param("Hello?", "How can I help", [], id="hello"),
        pytest.param("What are your opening hours?", "Monday to Friday from 7 am", [], id="hours"),
        pytest.param("when do you close today", "Today we are open from 7 am", [], id="today"),
        pytest.param("are you open to-morrow", "Tomorrow we are open from 8 am", [], id="tomorrow"),
        pytest.param("And on Sunday?", "On Sunday we are closed", [], id="only a day"),
        pytest.param("your opening ours on Wensday please", "On Wednesday", [], id="misheard day"),
        pytest.param("Are you open at the weekend?", "On Sunday we are closed", [], id="weekend"),
        pytest.param("Where are you?", "12 Mill Lane", [], id="address"),
        pytest.param("um can you tell me the adress", "12 Mill Lane", [], id="misheard address"),
        pytest.param("Where are you and when do you open?", "Mill Lane", [], id="two questions"),
        pytest.param("How much is a rye bread?", "A rye bread is five dollars", [], id="price"),
        pytest.param("how much are cakes and pies", "and an apple pie is", [], id="two prices"),
        pytest.param("How much is it?", "What would you like the price of", [], id="price of what"),
        pytest.param("do you have sour dough", "Yes, we have a sourdough loaf", [], id="product"),
        pytest.param("What do you sell?", "a baguette", [], id="products"),
        pytest.param("Baguettes.", "Yes, we have a baguette", [], id="only a product"),
        pytest.param("Is anything vegan?", "sourdough and our rye", [], id="extra answer"),
        pytest.param("Where can I park my car?", "car park behind", [], id="parking"),
        pytest.param("What's your phone number?", "5 5 5, 0 1 0 0", [], id="number"),
        pytest.param(
            "What is the weather like in Berlin?",
            "check",
            ['weather {"place": "Berlin"}'],
            id="weather",
        ),
        pytest.param(
            "whats the wether in new york today",
            "check",
            ['weather {"place": "New York"}'],
            id="misheard weather",
        ),
        pytest.param(
            "Is it raining here?", "check", ['weather {"place": "London"}'], id="weather here"
        ),
        pytest.param("What's the weather like?", "which town", [], id="weather without place"),
        pytest.param("Can I speak to somebody?", "put you through", ["transfer {}"], id="person"),
        pytest.param("I want to talk to the manager.", "through", ["transfer {}"], id="manager"),
        pytest.param("Can I leave a message?", "your name", [], id="message"),
        pytest.param("I'd like to order a cake.", "your name", [], id="order"),
        pytest.param("Can you repeat that?", "not said anything", [], id="repeat"),
        pytest.param("Thank you very much.", "welcome", [], id="thanks"),
        pytest.param("How are you?", "very well", [], id="small talk"),
        pytest.param("Are you a robot?", "automatic receptionist", [], id="robot"),
        pytest.param("What can you do?", "opening hours", [], id="abilities"),
        pytest.param("Never mind.", "anything else", [], id="never mind"),
        pytest.param("Goodbye.", "Goodbye", ["hang_up {}"], id="goodbye"),
        pytest.param("Good-bye, thanks a lot.", "Goodbye", ["hang_up {}"], id="good-bye"),
        pytest.param("no that's all thanks bye", "Goodbye", ["hang_up {}"], id="that's all"),
        pytest.param("No thanks, goodbye.", "Goodbye", ["hang_up {}"], id="no thanks goodbye"),
        pytest.param("No thanks by", "Goodbye", ["hang_up {}"], id="misheard goodbye"),
        pytest.param("Thank you. Good buy!", "Goodbye", ["hang_up {}"], id="thanks good buy"),
        pytest.param("Explain quantum physics.", "I don't know that", [], id="fallback"),
        pytest.param("asdf", "take a message", [], id="nonsense"),
        pytest.param("No.", "anything else", [], id="no"),
    ],
)
def test_first_words(utterance: str, says: str, calls: list[str]) -> None:
    """Each thing a caller may say first gets its answer and its tool call."""
    steps = Mind(RULES).reply(Heard(utterance), TOOLS, FRIDAY)
    assert says in told(steps)
    assert called(steps) == calls


@pytest.mark.parametrize(
    "dialogue",
    [
        pytest.param(
            [
                ("What's the weather?", "which town"),
                ("In Paris, please.", 'weather {"place": "Paris"}'),
            ],
            id="the town is asked for",
        ),
        pytest.param(
            [
                ("I'd like to leave a message", "name"),
                ("My name is Anna Miller", "Anna Miller"),
                ("please keep two baguettes for me, goodbye to plastic", "number"),
                ("five five five", "5 5 5 so far"),
                ("oh one double two", "Anna Miller says: please keep two baguettes"),
                ("yes that's right", "pass that on"),
                ("no", "hang_up"),
            ],
            id="a message is taken and read back",
        ),
        pytest.param(
            [
                ("take a message", "name"),
                ("Bob", "Bob"),
                ("call me", "number"),
                ("I don't have a number, no", "We do not call back"),
                ("no that's wrong", "start again"),
            ],
            id="a wrong message is taken again",
        ),
        pytest.param(
            [("take a message", "name"), ("never mind", "anything else"), ("no thanks", "hang_up")],
            id="a message is given up",
        ),
        pytest.param(
            [("blah", "don't know"), ("blub", "Shall I take a message"), ("yes please", "name")],
            id="twice not understood",
        ),
        pytest.param(
            [("Where are you?", "Mill Lane"), ("Pardon?", "Mill Lane")], id="repeats the last words"
        ),
        pytest.param([("", "didn't catch"), ("", "catch"), ("", "trouble")], id="cannot hear"),
    ],
)
def test_dialogue(dialogue: list[tuple[str, str]]) -> None:
    """A question that is open is answered by what is said next."""
    mind = Mind(RULES)
    for utterance, expected in dialogue:
        steps = mind.reply(Heard(utterance), TOOLS, FRIDAY)
        assert expected in " ".join([told(steps), *called(steps)])


def test_no_tools() -> None:
    """What needs a tool is declined politely when the tool is not offered."""
    mind = Mind(RULES)
    assert "can't look up" in told(mind.reply(Heard("weather in Rome"), {}, FRIDAY))
    assert "take a message" in told(mind.reply(Heard("a person please"), {}, FRIDAY))
    steps = mind.reply(Heard("goodbye"), {}, FRIDAY)
    assert (told(steps), called(steps)) == ("Thank you for calling. Goodbye!", [])


def test_cough() -> None:
    """A cough is passed over in silence, unless it cut the agent short: then it says it again."""
    mind = Mind(RULES)
    said = told(mind.open('Say "We are open."'))
    assert mind.reply(Heard("", voiced_ms=150), TOOLS, FRIDAY) == []
    mind.interrupted()
    assert told(mind.reply(Heard("", voiced_ms=150), TOOLS, FRIDAY)) == said


def test_instructions_answer() -> None:
    """What the operator wrote about the business is used; orders to the agent are not read out."""
    mind = Mind(
        RULES, "You are Kim. Never mention elephants. The elephant statue is two meters tall."
    )
    reply = told(mind.reply(Heard("How tall is the elephant statue?"), TOOLS, FRIDAY))
    assert reply == "The elephant statue is two meters tall."


@pytest.mark.parametrize(
    ("output", "says"),
    [
        pytest.param(
            {
                "place": "Oslo",
                "temperature_c": -2.4,
                "conditions": "snow",
                "high_c": 0,
                "low_c": -5,
            },
            "In Oslo it is minus 2 degrees with snow. Today's high is 0, and the low is minus 5.",
            id="all of it",
        ),
        pytest.param({"error": "unreachable"}, "could not get the weather", id="error"),
        pytest.param({}, "could not get the weather", id="nothing"),
        pytest.param({"temperature_c": "7"}, "could not get the weather", id="wrong type"),
        pytest.param([1], "[1]", id="no object"),
    ],
)
def test_weather_output(output: object, says: str) -> None:
    """The weather is told in a sentence, whatever the tool sent."""
    assert says in told(Mind(RULES).tool_output("weather", json.dumps(output)))


@pytest.mark.parametrize(
    ("instructions", "words"),
    [
        pytest.param('Greet with exactly: "Hello, I am "Kim"."', 'Hello, I am "Kim".', id="quotes"),
        pytest.param("Say “Good day.” now", "Good day.", id="typographic"),
        pytest.param("Say exactly this: Hello there.", "Hello there.", id="colon"),
        pytest.param('You are "Bo".\n\nSay "Hi."', "Hi.", id="last paragraph"),
        pytest.param("Tell the caller that we close.", "We close.", id="told"),
        pytest.param("Say goodbye to the caller.", "", id="own words"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_words_to_say(instructions: str, words: str) -> None:
    """The words an operator wants said are found, however they are put."""
    assert words_to_say(instructions) == words


@pytest.mark.parametrize(
    ("spoken", "digits"),
    [
        pytest.param("five five five, zero one two three", "5550123", id="words"),
        pytest.param("It's 555-0123.", "5550123", id="digits"),
        pytest.param("oh seven double one, triple two", "0711222", id="double and triple"),
        pytest.param("Five five five, 0 1 two three", "5550123", id="mixed"),
        pytest.param("I have none", "", id="none"),
    ],
)
def test_digits(spoken: str, digits: str) -> None:
    """Telephone numbers are understood as people say them."""
    assert digits_in(spoken) == digits


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=6), st.booleans())
def test_never_a_dead_end(utterances: list[str], has_tools: bool) -> None:
    """Whatever is said, there is an answer and no exception."""
    mind = Mind(RULES)
    for utterance in utterances:
        assert mind.reply(Heard(utterance), TOOLS if has_tools else {}, FRIDAY)


def test_own_facts(tmp_path: Path) -> None:
    """Another business answers with its own facts, and admits what it does not know."""
    file = tmp_path / "facts.yaml"
    file.write_text("name: the garage\nhours: {monday: {opens: '09:30', closes: '12:00'}}\n")
    mind = Mind(Rulebook(file))
    assert told(mind.open("")) == "Hello, this is the garage. How can I help you?"
    assert "from 9:30 am to 12 pm" in told(mind.reply(Heard("opening hours"), {}, FRIDAY))
    assert "don't know our address" in told(mind.reply(Heard("your address"), {}, FRIDAY))
