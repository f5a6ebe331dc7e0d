"""What a language model streams: sentences and calls, or one kind of failure."""

import json

import pytest

from agent.embedded.chat_stream import Call, ChatFailed, Part, Reading, Write
from agent.embedded.mind import Say
from tests.embedded.model import call, chunk, words


def read(lines: list[str], *, is_spoken: bool = True) -> list[Part]:
    reading = Reading(["weather", "hours"], is_spoken=is_spoken)
    return [part for line in lines for part in reading.line(line)] + reading.end()


def piece(index: int | None, call_id: str | None, name: str, arguments: object) -> str:
    function = {"name": name, "arguments": arguments}
    return chunk({"tool_calls": [{"index": index, "id": call_id, "function": function}]})


DONE = "data: [DONE]"
ROME, OSLO = ('{"place": "Rome"}', '{"place": "Oslo"}')
TWO_CALLS = [Call("weather", ROME), Call("hours", OSLO)]


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        pytest.param(
            words("We are", " open. Do", " come", " by!"),
            [Say("We are open."), Say("Do come by!")],
            id="sentences",
        ),
        pytest.param(
            words("It is 7", ".5 degrees. ", "Fine."),
            [Say("It is 7.5 degrees."), Say("Fine.")],
            id="a number is no end",
        ),
        pytest.param(words("**Yes**, `we` do."), [Say("Yes, we do.")], id="no markup"),
        pytest.param(
            [*words("Let me look.")[:1], *call("weather")],
            [Say("Let me look."), Call("weather", "{}")],
            id="words and a call",
        ),
        pytest.param([": keep-alive", "", *words("Hi.")], [Say("Hi.")], id="comments"),
        pytest.param(["event: message", *words("Hi.")], [Say("Hi.")], id="named events"),
        pytest.param(['data: {"choices": []}', *words("Hi.")], [Say("Hi.")], id="no choice"),
        pytest.param([chunk({"content": "Hi."}, "stop")], [Say("Hi.")], id="no mark of the end"),
        pytest.param(
            words("<th", "ink>They greet. ", "So do I.</thi", "nk>\n\n", "Hello."),
            [Say("Hello.")],
            id="thoughts",
        ),
        pytest.param(words("<b>Hi</b>."), [Say("<b>Hi</b>.")], id="no thoughts"),
        pytest.param(
            [chunk({"reasoning_content": "They greet."}), *words("Hello.")],
            [Say("Hello.")],
            id="thoughts of their own",
        ),
        pytest.param(
            call("weather", '{"pla', 'ce": "Rome"}'), [Call("weather", ROME)], id="in pieces"
        ),
        pytest.param(
            [
                piece(0, "a", "weather", '{"place"'),
                piece(1, "b", "hours", '{"place"'),
                piece(0, None, "", ': "Rome"}'),
                piece(1, None, "", ': "Oslo"}'),
                DONE,
            ],
            TWO_CALLS,
            id="calls in turns",
        ),
        pytest.param(
            [piece(0, "a", "weather", ROME), piece(0, "b", "hours", OSLO), DONE],
            TWO_CALLS,
            id="calls that share a number",
        ),
        pytest.param(
            [piece(None, None, "weather", ROME), piece(None, None, "hours", OSLO), DONE],
            TWO_CALLS,
            id="calls without a number",
        ),
        pytest.param(
            [piece(0, "a", "weather", '{"place": '), piece(0, "a", "weather", '"Rome"}'), DONE],
            TWO_CALLS[:1],
            id="a call named twice",
        ),
        pytest.param(
            [piece(0, "a", "weather", json.loads(ROME)), DONE], TWO_CALLS[:1], id="an object"
        ),
        pytest.param(call("weather", "{"), [Call("weather", "{")], id="broken arguments"),
    ],
)
def test_reading(lines: list[str], parts: list[Part]) -> None:
    """A stream becomes sentences and calls, whichever server made it."""
    assert read(lines) == parts


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param(["data: {"], "cannot be read", id="no JSON"),
        pytest.param(["data: 7"], "cannot be read", id="no object"),
        pytest.param(
            ['data: {"choices": [{"delta": {"content": 7}}]}'], "cannot be read", id="no text"
        ),
        pytest.param(["<html>"], "no event stream", id="a web page"),
        pytest.param(['data: {"error": {"message": "oh"}}'], "an error", id="an error"),
        pytest.param(call("rm"), "not offered", id="an unknown tool"),
        pytest.param([DONE], "said nothing", id="nothing"),
        pytest.param([*words("<think>Hm.")[:1], DONE], "said nothing", id="mere thoughts"),
        pytest.param(words("We are open from")[:1], "broke off", id="half an answer"),
        pytest.param(call("weather", *["x" * 4000] * 20), "do not end", id="endless arguments"),
        pytest.param(
            [piece(n, str(n), "weather", "{}") for n in range(50)], "do not end", id="endless calls"
        ),
    ],
)
def test_nonsense(lines: list[str], reason: str) -> None:
    """What no model should send is one kind of failure, and says what was wrong."""
    with pytest.raises(ChatFailed, match=reason):
        read(lines)


def test_sentences_come_early() -> None:
    """The first sentence is told as soon as the second begins."""
    reading = Reading()
    told = [reading.line(line) for line in words("We are open. ", "Today", " until six.")]
    assert told == [[], [Say("We are open.")], [], []]


def test_written_answer() -> None:
    """What is read keeps its markup and its blanks, and comes as it is streamed."""
    lines = words('{"topic_name":', ' "*bread*"}\n')
    assert read(lines, is_spoken=False) == [Write('{"topic_name":'), Write(' "*bread*"}\n')]


def test_cut_answer() -> None:
    """Who ran out of tokens says the words there were; a call that is not whole is not made."""
    reading = Reading(["weather"])
    reading.line(chunk({"content": "Let me"}))
    reading.line(piece(0, "a", "weather", '{"pla'))
    reading.line(chunk({}, "length"))
    assert reading.end() == [Say("Let me")]
    assert reading.is_cut


def test_endless_answer() -> None:
    """A model that never stops is stopped."""
    reading = Reading()
    for _ in range(2000):
        reading.line(words("And on. ")[0])
        if reading.is_done:
            break
    assert reading.is_done
