"""The tools of this process: chosen by name, told to the model, run for a call.

Between the model's wish and a tool stand, in this order: was this agent offered it,
is it JSON, does it fit the schema; after it: did it end in time, is the answer short
enough. How often a tool may be asked, and for whom, is the call's own affair.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import orjson
import structlog

from agent.call.clean import clean
from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.call.tasks import cancel
from agent.tools.arguments import ArgumentCheck
from agent.tools.current_time import CurrentTime
from agent.tools.hang_up import HangUp
from agent.tools.http_tool import HttpTool
from agent.tools.keys import CollectDigits, SendDtmf
from agent.tools.python_tool import PythonTool
from agent.tools.settings import ToolSettings
from agent.tools.take_message import TakeMessage
from agent.tools.tool import Tool, failure
from agent.tools.transfer import Transfer
from agent.tools.weather import Weather

if TYPE_CHECKING:  # it takes half a second to import, for those who use it
    from agent.tools.mcp_server import McpServer

_START_TIMEOUT_S = 5.0
"""How long the program waits for MCP servers at its start; they may come later."""

_MOST_ARGUMENT_CHARS = 64_000


class Toolbox:
    """Runs tools by name for any number of calls at once."""

    def __init__(
        self, settings: ToolSettings, tools: Iterable[Tool], servers: Iterable["McpServer"] = ()
    ) -> None:
        """Take tools that are ready, and MCP servers that are kept connected by somebody."""
        self.settings = settings
        self._tools = {tool.schema.name: tool for tool in tools}
        self._servers = {server.settings.name: server for server in servers}
        self._checks: dict[str, tuple[ToolSchema, ArgumentCheck]] = {}
        self._log = structlog.get_logger()

    def schemas(self, names: Iterable[str]) -> tuple[ToolSchema, ...]:
        """What the model is told of these tools; those that cannot run are left out.

        Args:
            names: As an agent lists them: a tool, `SERVER.TOOL` or `SERVER.*`.
        """
        found = {tool.schema.name: tool.schema for name in names for tool in self._named(name)}
        return tuple(found.values())

    async def run(self, name: str, arguments: str, context: ToolContext) -> ToolResult:
        """Run one tool.

        Args:
            name: As the model wrote it.
            arguments: JSON text as the model wrote it; checked here.
            context: The call it is run for.

        Returns:
            The tool's result. A wrong name, broken arguments, a timeout or a bug in
            the tool are results with `error` set and a sentence the model can work with.
        """
        tool = self._find(name) if name in context.tools else None
        if tool is None:
            shown, known = clean(name, 64), ", ".join(sorted(context.tools))
            return failure(
                f"there is no tool {shown!r}; there are: {known}", f"There is no tool {shown}.", 0
            )
        if len(arguments) > _MOST_ARGUMENT_CHARS:
            return failure(
                f"the arguments have {len(arguments)} characters", "The arguments were too long.", 0
            )
        try:
            values = orjson.loads(arguments or "{}")
        except ValueError as error:
            return failure(
                f"the arguments are not JSON: {error}", "The arguments were not valid JSON.", 0
            )
        problem = self._check(tool.schema).problem(values)
        if problem:
            return failure(problem, f"The arguments were wrong: {problem}.", 0)
        try:
            async with asyncio.timeout(tool.timeout_s):
                result = await tool.run(values, context)
        except TimeoutError:
            return failure(
                f"{name} took longer than {tool.timeout_s:g} s", "That takes too long right now."
            )
        except Exception:  # noqa: BLE001 - a broken tool is an answer to the model, not an end
            self._log.exception("! tool failed", tool=name, call_id=context.call_id)
            return failure("internal error in the tool", "That did not work.")
        most = self.settings.max_output_chars
        if len(result.output) > most:
            return failure(
                f"the output has {len(result.output)} characters, allowed are {most}",
                "The answer was too long to use.",
                result.attempts,
            )
        return result

    def problems(self) -> Iterator[tuple[str, str]]:
        """Name each MCP server that cannot be used now, and why."""
        for server in self._servers.values():
            if server.problem:
                yield server.settings.name, server.problem

    def _named(self, name: str) -> Iterator[Tool]:
        server_name, dot, tool_name = name.partition(".")
        if not dot:
            if name in self._tools:
                yield self._tools[name]
        elif server_name in self._servers:
            for tool in self._servers[server_name].tools.values():
                if tool_name in ("*", tool.remote_name):
                    yield tool

    def _find(self, name: str) -> Tool | None:
        if name in self._tools:
            return self._tools[name]
        for server in self._servers.values():
            if name in server.tools:
                return server.tools[name]
        return None

    def _check(self, schema: ToolSchema) -> ArgumentCheck:
        """Compile a schema once; an MCP server makes new ones whenever it is asked."""
        made_for, check = self._checks.get(schema.name, (None, None))
        if made_for is not schema or check is None:
            check = ArgumentCheck(schema.parameters)
            self._checks[schema.name] = (schema, check)
        return check


@asynccontextmanager
async def open_toolbox(
    settings: ToolSettings, client: httpx.AsyncClient, *, start_timeout_s: float = _START_TIMEOUT_S
) -> AsyncIterator[Toolbox]:
    """Make every configured tool; let go of them however the block is left.

    MCP servers are connected meanwhile and connected again when they are lost; the
    block is entered without those that take long, and their tools come when they do.

    Args:
        settings: `[tools]`.
        client: For the built-in tools; closed by its owner.
        start_timeout_s: How long to wait for MCP servers before the block is entered.

    Raises:
        ToolProblem: A Python function cannot be used.
    """
    async with AsyncExitStack() as stack:
        tools: list[Tool] = [
            HangUp(),
            SendDtmf(),
            CollectDigits(),
            TakeMessage(),
            CurrentTime(),
            Weather(settings.weather, client),
        ]
        if settings.transfer.targets:
            tools.append(Transfer(settings.transfer))
        tools.extend(PythonTool(it) for it in settings.python)
        for http in settings.http:
            tool = HttpTool(http)
            stack.push_async_callback(tool.close)
            tools.append(tool)
        servers = await _start_servers(settings, stack, start_timeout_s)
        yield Toolbox(settings, tools, servers)


async def _start_servers(
    settings: ToolSettings, stack: AsyncExitStack, timeout_s: float
) -> list["McpServer"]:
    if not settings.mcp:
        return []
    from agent.tools.mcp_server import McpServer

    servers = [McpServer(it) for it in settings.mcp]
    tasks = [asyncio.create_task(it.run(), name=f"mcp {it.settings.name}") for it in servers]
    stack.push_async_callback(cancel, *tasks)
    tried = [asyncio.create_task(it.tried.wait()) for it in servers]
    await asyncio.wait(tried, timeout=timeout_s)
    await cancel(*tried)
    return servers
