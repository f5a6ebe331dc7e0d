"""The commands that read and prepare the call log: what is printed, and how they end."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agent.commands.calls import list_calls, show_call
from agent.commands.db import upgrade
from agent.commands.tokens import create_token
from agent.settings import Settings
from agent.store.database import open_database
from agent.store.journal import open_journal
from agent.store.settings import DatabaseSettings
from agent.store.tokens import Identity, Tokens
from tests.store.telling import NOON, answered, charge, cost, ended, event, offered, tool, turn


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A configuration with a database that is not there yet."""
    return Settings(database=DatabaseSettings(url=f"sqlite:///{tmp_path}/calls.db"))


@pytest.fixture
async def filled(settings: Settings) -> Settings:
    """The same with a database of two calls, one of them from a hostile caller."""
    assert await upgrade(settings) == 0
    async with open_database(settings.database) as database, open_journal(database) as journal:
        for record in (
            offered(caller_number="\x1b[31m[bold]evil[/bold]"),
            answered(),
            turn(),
            turn("b", position=1, speaker="caller", text="And the\nweather?", started_ms=2500),
            tool(output="12 degrees\x1b]0;owned\x07"),
            turn(
                "c",
                position=2,
                text="Twelve degrees and rain.",
                heard_text="Twelve degrees",
                interrupted=True,
                started_ms=4000,
                latency_ms=850,
            ),
            event(detail={"code": "x"}),
            charge(),
            charge("b", purpose="transcription", remark="only\x1b a guess"),
            cost("0.0072"),
            ended(),
            offered("call-2", started_at=NOON + timedelta(minutes=1)),
        ):
            journal(record)
    return settings


async def test_list(filled: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Newest first, a line a call, and no caller steers the terminal."""
    assert await list_calls(filled) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Id", "call-2", "call-1"]
    assert "[bold]evil[/bold]" in lines[2]
    assert "caller: hung up" in lines[2]
    assert "$0.0072" in lines[2]
    assert "\x1b" not in "".join(lines)


async def test_list_nothing(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty log says so."""
    await upgrade(settings)
    assert await list_calls(settings) == 0
    assert capsys.readouterr().out == "No calls yet.\n"


async def test_show(filled: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A call reads from top to bottom, with what was not heard and how long was waited."""
    assert await show_call(filled, "call-1") == 0
    out = capsys.readouterr().out
    assert "cost     $0.0072 (1 responses, 1 transcriptions); only a guess\n" in out
    transcript = out[out.index("\n\n") + 2 :].splitlines()
    assert transcript == [
        " 0:00.1  agent  Hello, this is the bakery.",
        " 0:02.5  caller And the weather?",
        ' 0:03.0  tool   weather {"place":"Ghent"} -> 12 degrees]0;owned  (completed, 150 ms)',
        " 0:04.0  agent  Twelve degrees [interrupted; not heard: and rain.]  (after 850 ms)",
        " 0:01.3  ! agent error {'code': 'x'}",
    ]
    assert "\x1b" not in out


async def test_json(filled: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the output is what the API returns."""
    assert await list_calls(filled, limit=1, as_json=True) == 0
    page = json.loads(capsys.readouterr().out)
    assert [call["id"] for call in page["items"]] == ["call-2"]
    assert page["next_cursor"]
    assert await show_call(filled, "call-1", as_json=True) == 0
    call = json.loads(capsys.readouterr().out)
    assert call["started_at"] == "2026-11-21T12:00:00.123456Z"
    assert [turn["speaker"] for turn in call["turns"]] == ["agent", "caller", "agent"]


async def test_no_such_call(filled: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A call that is not there is one clear line and exit code 1."""
    assert await show_call(filled, "call\x1b-9") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "there is no call 'call-9': `trunkline calls list` shows them\n"


async def test_token(filled: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A token is printed alone, this once, and works; a second of that name is refused."""
    assert await create_token(filled, role="operator", name="desk") == 0
    token = capsys.readouterr().out.strip()
    async with open_database(filled.database) as database:
        assert await Tokens(database).verify(token) == Identity("desk", "operator")
    assert await create_token(filled, role="operator", name="desk") == 1
    assert "taken" in capsys.readouterr().err
    assert await create_token(filled, role="king", name="other") == 2
    assert "accepted: viewer, reviewer, operator, admin" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(list_calls, id="list"),
        pytest.param(lambda settings: show_call(settings, "x"), id="show"),
        pytest.param(lambda settings: create_token(settings, role="viewer", name="x"), id="token"),
    ],
)
async def test_no_database(
    settings: Settings,
    command: Callable[[Settings], Awaitable[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without tables every command says which command makes them."""
    assert await command(settings) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "run `trunkline db upgrade`" in err
    assert err.count("\n") == 1


async def test_upgrade_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that cannot be made is one clear line and exit code 1."""
    settings = Settings(database=DatabaseSettings(url=f"sqlite:///{tmp_path}/none/calls.db"))
    assert await upgrade(settings) == 1
    assert "does not exist: create it" in capsys.readouterr().err
