"""MCP servers as child processes and over HTTP: used, lost, and back again."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr

from agent.call.ports import ToolResult
from agent.call.tasks import cancel
from agent.tools import mcp_server
from agent.tools.mcp_server import McpServer
from agent.tools.settings import McpServerSettings, ToolSettings
from agent.tools.toolbox import Toolbox, open_toolbox
from tests.tools.line import context

WAIT_S = 20
CHILD = (sys.executable, "-m", "tests.tools.mcp_child")
BASE_ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off in hundredths of a second."""
    monkeypatch.setattr(mcp_server, "_FIRST_PAUSE_S", 0.01)


@asynccontextmanager
async def running(*how: str, **settings: Any) -> AsyncIterator[McpServer]:
    """Keep one server within reach; wait for its first attempt."""
    values: dict[str, Any] = {
        "name": "crm",
        "command": (*CHILD, *how),
        "tools": ("*",),
        "base_env": BASE_ENV,
        "connect_timeout_s": WAIT_S,
    }
    server = McpServer(McpServerSettings(**(values | settings)))
    task = asyncio.create_task(server.run())
    try:
        async with asyncio.timeout(WAIT_S):
            await server.tried.wait()
        yield server
    finally:
        await cancel(task)


async def ask(server: McpServer, tool: str, arguments: str = "{}", **settings: Any) -> ToolResult:
    """As the model would: through the toolbox."""
    box = Toolbox(ToolSettings(**settings), [], [server])
    return await box.run(f"crm_{tool}", arguments, context(*server.tools))


async def back_again(server: McpServer) -> None:
    async with asyncio.timeout(WAIT_S):
        while server.problem:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["", "chatter"], ids=["a good server", "it chats before"])
async def test_a_server_is_used(how: str) -> None:
    """Its tools are offered under its name, called, and their output is the model's."""
    async with running(how) as server:
        schema = server.tools["crm_status"].schema
        text = await ask(server, "status", '{"number": 12}')
        facts = await ask(server, "facts")
        wrong = await ask(server, "status", '{"number": "twelve"}')
        failed = await ask(server, "fail")
    assert schema.description == "Look up an order."
    assert schema.parameters["required"] == ["number"]
    assert "order 12 is ready" in text.output
    assert orjson.loads(facts.output) == {"open": True}
    assert "number: 'twelve' is not" in (wrong.error or "")
    assert "fail" in (failed.error or "")
    assert "error" in orjson.loads(failed.output)


async def test_only_allowed_tools_exist() -> None:
    """What is not on the list is neither offered nor run."""
    async with running(tools=("status",)) as server:
        assert list(server.tools) == ["crm_status"]
        result = await ask(server, "die")
        assert "there is no tool" in (result.error or "")
        assert not server.problem


async def test_it_sees_what_it_is_given() -> None:
    """It gets its own secrets and nothing of our environment; they do not come back."""
    os.environ["OPENAI_API_KEY"] = "sk-ours"
    try:
        async with running(
            env={"SHOP": "1"}, secret_env={"CRM_KEY": SecretStr("crm-s3cret")}
        ) as server:
            names = (await ask(server, "environment")).output
            said = await ask(server, "status", '{"number": 1}')
    finally:
        del os.environ["OPENAI_API_KEY"]
    assert "CRM_KEY" in names
    assert "SHOP" in names
    assert "OPENAI" not in names
    assert "[secret]" in said.output
    assert "s3cret" not in said.output


async def test_a_server_that_dies_in_mid_call() -> None:
    """The model is told at once, and the next call finds a new server."""
    async with running() as server:
        began_s = time.monotonic()
        result = await ask(server, "die")
        assert time.monotonic() - began_s < server.settings.timeout_s
        assert "crm was lost during the call" in (result.error or "")
        assert "cannot be reached" in result.output
        await back_again(server)
        assert "ready" in (await ask(server, "status", '{"number": 1}')).output


async def test_a_server_that_never_answers() -> None:
    """The timeout of the tool holds; the server serves others meanwhile and afterwards."""
    async with running(timeout_s=1) as server:
        hanging = asyncio.create_task(ask(server, "hang"))
        other = await ask(server, "status", '{"number": 2}')
        result = await hanging
        assert "took longer than 1 s" in (result.error or "")
        assert "order 2" in other.output
        assert "order 3" in (await ask(server, "status", '{"number": 3}')).output


async def test_an_answer_of_ten_megabytes() -> None:
    """Memory is not filled with it: the server is left, and found again."""
    async with running() as server:
        result = await ask(server, "big")
        assert result.error
        assert len(result.output) < 500
        await back_again(server)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param(
            {"command": (*CHILD, "refuses")},
            "it ended: cannot start: no licence",
            id="ends at once",
        ),
        pytest.param(
            {"command": (*CHILD, "silent"), "connect_timeout_s": 0.5}, "within 0.5 s", id="silent"
        ),
        pytest.param({"command": (*CHILD, "garbage")}, "no messages", id="garbage"),
        pytest.param({"command": (*CHILD, "endless")}, "line of more than", id="endless line"),
        pytest.param({"command": ("/no/such/program",)}, "No such file", id="no program"),
        pytest.param({"tools": ("fly",)}, "it has no tool fly", id="no such tool"),
        pytest.param(
            {"command": (), "url": "http://127.0.0.1:9/mcp"}, "not public", id="a private address"
        ),
        pytest.param(
            {"command": (), "url": "http://127.0.0.1:9/mcp", "allow_private": True},
            "connect",
            id="nobody listens",
        ),
    ],
)
async def test_a_server_that_cannot_be_used(settings: dict[str, Any], says: str) -> None:
    """What is wrong is named for `trunkline check`, and a call is told without waiting."""
    async with running(**settings) as server:
        problem = server.problem
        called = await server.call("status", {})
    assert says in problem
    assert says in (called.error or "")
    assert called.attempts == 0


async def test_the_program_starts_without_slow_servers() -> None:
    """A server that does not answer holds nothing up; its tools are not offered."""
    mcp = [{"name": "crm", "command": [*CHILD, "silent"], "tools": ["*"], "base_env": BASE_ENV}]
    async with (
        asyncio.timeout(WAIT_S),
        httpx.AsyncClient() as client,
        open_toolbox(
            ToolSettings.model_validate({"mcp": mcp}), client, start_timeout_s=0.05
        ) as tools,
    ):
        assert tools.schemas(["crm.*", "hang_up"]) == tools.schemas(["hang_up"])
        assert dict(tools.problems()) == {"crm": "not connected yet"}


@asynccontextmanager
async def http_child(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """An MCP server over HTTP, listening."""
    child = await asyncio.create_subprocess_exec(
        *CHILD, "http", str(port), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                await writer.wait_closed()
                break
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_a_server_over_http(unused_port: int) -> None:
    """Used as the others; lost in mid-call, and found again when it is back."""
    url = f"http://127.0.0.1:{unused_port}/mcp"
    async with contextlib.AsyncExitStack() as stack:
        child = await stack.enter_async_context(http_child(unused_port))
        server = await stack.enter_async_context(
            running(command=(), url=url, allow_private=True, timeout_s=10)
        )
        assert "order 12" in (await ask(server, "status", '{"number": 12}')).output
        big = await ask(server, "big")
        assert big.error
        assert len(big.output) < 500
        await back_again(server)
        assert (await ask(server, "die")).error
        await child.wait()
        await stack.enter_async_context(http_child(unused_port))
        async with asyncio.timeout(WAIT_S):
            while (await ask(server, "status", '{"number": 1}')).error:
                await asyncio.sleep(0.05)


@pytest.fixture
def unused_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_no_child_outlives_us() -> None:
    """Closed, a server and its process are gone."""
    async with running() as server:
        text = (await ask(server, "environment")).output
        assert text
    assert [command for command in _children() if "tests.tools.mcp_child" in command] == []


def _children() -> Iterator[str]:
    """The command lines of our child processes (proc(5))."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                yield (process / "cmdline").read_text()
        except OSError:
            continue
