"""`trunkline check` tries every agent's session, and names what is refused."""

import asyncio
from pathlib import Path

import pytest

from agent.embedded.engines import Engines
from tests.embedded.scripted import KEY, QUIET, scripted
from tests.fakes.trunkline import trunkline

TWO = '[[agents]]\nname = "anna"\n[[agents]]\nname = "bert"\nmodel = "m-2"\n'


async def lines(folder: Path, config: str, key: str = KEY) -> list[str]:
    """What the check says of the Realtime API."""
    (folder / "trunkline.toml").write_text(config)
    environment = {
        "TRUNKLINE_SIP__LISTEN": "127.0.0.1:0",
        "TRUNKLINE_ADMIN__LISTEN": "127.0.0.1:0",
        "OPENAI_API_KEY": key,
    }
    done = await asyncio.to_thread(trunkline, "check", folder=folder, environment=environment)
    assert KEY not in done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line[6:].startswith("realtime")]


@pytest.mark.parametrize(
    ("config", "key", "expected"),
    [
        pytest.param(
            TWO,
            KEY,
            [("ok", "anna's gpt-realtime-2.1"), ("ok", "bert's m-2")],
            id="every agent",
        ),
        pytest.param(TWO, "sk-wrong", [("FAIL", "key was refused")] * 2, id="a wrong key"),
        pytest.param(
            f'{TWO}prompt = "pmpt_1"\n',
            KEY,
            [
                ("ok", "anna's"),
                ("FAIL", "m-2: the Realtime API refused the session: session.prompt"),
            ],
            id="a field that is not taken",
        ),
        pytest.param(
            f'{TWO}base_url = "http://127.0.0.1:9/v1"\n',
            KEY,
            [("ok", "anna's"), ("FAIL", "http://127.0.0.1:9/v1, m-2: the Realtime API is unreach")],
            id="a region that is not there",
        ),
        pytest.param(
            '[realtime.standby]\nmodel = "m-3"\nbase_url = "http://127.0.0.1:9/v1"\n',
            KEY,
            [("ok", "receptionist's"), ("FAIL", "http://127.0.0.1:9/v1, m-3")],
            id="a stand-by that is not there",
        ),
        pytest.param(
            '[realtime.standby]\nprovider = "embedded"\n',
            KEY,
            [("ok", "receptionist's"), ("ok", "the embedded server, offline")],
            id="the embedded server stands by",
        ),
        pytest.param(
            'tracing = {metadata = {a = "b"}}\ntool_choice = {type = "function", name = "weather"}',
            KEY,
            [("ok", "receptionist's")],
            id="tables in tables",
        ),
        pytest.param(
            '[[trunks]]\nname = "east"\nallow = ["127.0.0.1"]\nbase_url = "http://127.0.0.1:9/v1"\n',
            KEY,
            [("ok", "receptionist's"), ("FAIL", "http://127.0.0.1:9/v1")],
            id="a trunk's region that is not there",
        ),
    ],
)
async def test_check(
    engines: Engines, tmp_path: Path, config: str, key: str, expected: list[tuple[str, str]]
) -> None:
    """One line for each session at each address: taken, or why not."""
    async with scripted(engines, QUIET) as far:
        head = f'[realtime]\nprovider = "openai"\nbase_url = "{far.url}"\n'
        found = await lines(tmp_path, head + config, key)
    assert len(found) == len(expected)
    for line, (verdict, text) in zip(found, expected, strict=True):
        assert line.startswith(verdict)
        assert text in line


@pytest.mark.parametrize(
    ("config", "verdict", "text"),
    [
        pytest.param("", "ok", "the embedded server, offline", id="as it comes"),
        pytest.param(
            'prompt = "pmpt_1"', "FAIL", "refuses receptionist's session.prompt", id="a prompt"
        ),
    ],
)
async def test_the_embedded_server(tmp_path: Path, config: str, verdict: str, text: str) -> None:
    """Its sessions are tried without starting it."""
    found = await lines(tmp_path, f'[realtime]\nprovider = "embedded"\n{config}\n')
    assert len(found) == 1
    assert found[0].startswith(verdict)
    assert text in found[0]


async def test_no_key(tmp_path: Path) -> None:
    """Without a key, it says which one is needed."""
    [line] = await lines(tmp_path, '[realtime]\nprovider = "openai"\n', key="")
    assert line.startswith("FAIL")
    assert "set OPENAI_API_KEY" in line
