"""The built-in tools, on a line that does what the test says."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from agent.call.ports import DigitsKeyed
from agent.call.records import Ending
from agent.tools.current_time import CurrentTime
from agent.tools.settings import ToolSettings
from agent.tools.toolbox import Toolbox
from tests.tools.line import FakeLine, context
from tests.tools.test_toolbox import toolbox

TARGETS = {
    "targets": [
        {"name": "sales", "description": "Orders and prices.", "uri": "sip:sales@pbx.example"},
        {"name": "owner", "uri": "tel:+15550199"},
    ]
}


async def run(tools: Toolbox, name: str, arguments: dict[str, Any], line: FakeLine) -> Any:
    return await tools.run(name, orjson.dumps(arguments).decode(), context(name, line=line))


async def test_transfer() -> None:
    """The model chooses by name, the configuration says where that is; then the call is over."""
    line = FakeLine()
    async with toolbox(transfer=TARGETS) as tools:
        schema = tools.schemas(["transfer"])[0]
        result = await run(tools, "transfer", {"to": "owner"}, line)
    assert schema.parameters["properties"]["to"]["enum"] == ["sales", "owner"]
    assert "sales: Orders and prices." in schema.description
    assert "pbx.example" not in orjson.dumps([schema.description, schema.parameters]).decode()
    assert line.did == ["REFER tel:+15550199"]
    assert result.ending == Ending("agent", "transferred to owner")


@pytest.mark.parametrize(
    ("to", "refuses", "says"),
    [
        pytest.param("sip:thief@evil.example", "", "is not one of", id="a target of its own"),
        pytest.param("sales", "486 Busy Here", "sales: 486 Busy Here", id="busy"),
    ],
)
async def test_transfer_that_does_not_happen(to: str, refuses: str, says: str) -> None:
    """Only configured targets are called; if nobody takes the call, it goes on."""
    line = FakeLine()
    line.refuses = refuses
    async with toolbox(transfer=TARGETS) as tools:
        result = await run(tools, "transfer", {"to": to}, line)
    assert says in result.error
    assert result.ending is None
    assert line.did == []


async def test_send_dtmf() -> None:
    """Keys are pressed; doing it again later is a new wish."""
    line = FakeLine()
    async with toolbox() as tools:
        sent = await run(tools, "send_dtmf", {"digits": "12#"}, line)
        wrong = await run(tools, "send_dtmf", {"digits": "12x"}, line)
        line.refuses = "the far end takes no keys"
        refused = await run(tools, "send_dtmf", {"digits": "1"}, line)
    assert line.did == ["keys 12#"]
    assert (sent.error, sent.is_repeatable) == (None, True)
    assert "does not match" in wrong.error
    assert refused.error == "the far end takes no keys"


@pytest.mark.parametrize(
    ("keyed", "status"),
    [
        pytest.param(DigitsKeyed("123", "count"), "complete", id="enough"),
        pytest.param(DigitsKeyed("12", "terminator"), "complete", id="terminated"),
        pytest.param(DigitsKeyed("", "terminator"), "the caller typed too little", id="only #"),
        pytest.param(DigitsKeyed("12", "timeout"), "the caller typed too little", id="too slow"),
    ],
)
async def test_collect_digits(keyed: DigitsKeyed, status: str) -> None:
    """The model gets the digits, and whether they are all."""
    line = FakeLine()
    line.keyed = keyed
    async with toolbox() as tools:
        result = await run(tools, "collect_digits", {"count": 3, "terminator": "*"}, line)
    assert line.did == ["wait for 3 or '*'"]
    assert orjson.loads(result.output) == {"digits": keyed.digits, "status": status}
    assert result.is_repeatable


async def test_take_message() -> None:
    """The message is kept with the call, as text that steers nobody's terminal."""
    line = FakeLine()
    async with toolbox() as tools:
        kept = await run(
            tools, "take_message", {"message": "Call\x1b[2J me\nback", "name": "Ann"}, line
        )
        empty = await run(tools, "take_message", {"message": "\x00"}, line)
    assert line.noted == [{"kind": "message_taken", "message": "Call[2J me back", "name": "Ann"}]
    assert kept.error is None
    assert empty.error == "the message is empty"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(
            {},
            {"time": "00:30", "date": "Sunday, 22 November 2026", "timezone": "Europe/Berlin"},
            id="here",
        ),
        pytest.param(
            {"timezone": "America/New_York"},
            {"time": "18:30", "date": "Saturday, 21 November 2026", "timezone": "America/New_York"},
            id="elsewhere",
        ),
    ],
)
async def test_current_time(arguments: dict[str, str], expected: dict[str, str]) -> None:
    """The clock of the agent's zone, or of the one asked for."""
    clock = CurrentTime(lambda: datetime(2026, 11, 21, 23, 30, tzinfo=UTC))
    result = await clock.run(arguments, context("current_time"))
    assert orjson.loads(result.output) == expected


@pytest.mark.parametrize("name", ["Mars/Base", "../../etc/passwd", "/etc/passwd", "Europe", "\x00"])
async def test_no_such_time_zone(name: str) -> None:
    """A zone that is none is said to be none, whatever it looks like."""
    result = await CurrentTime().run({"timezone": name}, context("current_time"))
    assert "no time zone" in (result.error or "")


def test_names_an_agent_may_list() -> None:
    """Built-in tools, own ones, and those of servers as far as they are allowed."""
    settings = ToolSettings(
        python=({"function": "shop:order_status"},),
        mcp=({"name": "crm", "command": ["crm"], "tools": ["lookup"]},),
    )
    known = ("take_message", "order_status", "crm.*", "crm.lookup")
    assert all(settings.knows(name) for name in known)
    assert not any(settings.knows(name) for name in ("fly", "crm", "crm.delete", "erp.*", ""))
