"""The tools of one MCP server, kept within reach: connected, watched, connected again.

A call never waits for a connection: while there is none, the model is told so at
once. Only allowed tools exist for us, under the name `SERVER_TOOL`.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp
import structlog
from anyio import BrokenResourceError, ClosedResourceError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, Implementation, TextContent

from agent.call.clean import clean
from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.call.tasks import cancel
from agent.tools.arguments import ArgumentCheck
from agent.tools.egress import open_client
from agent.tools.mcp_stdio import StdioServer, open_stdio
from agent.tools.settings import McpServerSettings
from agent.tools.tool import answer, failure, hide

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_HEALTHY_AFTER_S = 30.0
"""A connection that held so long was a good one: the next pause is short again."""

_LOOK_S = 30.0
"""How often a quiet server is asked for its tools: they may change, and it may be dead."""

_MAX_BYTES = 1_000_000
_MOST_TOOLS = 128
_MOST_PAGES = 20
_UNREACHABLE = "That service cannot be reached right now."


class McpTool:
    """One tool of a server."""

    def __init__(self, server: "McpServer", remote_name: str, schema: ToolSchema) -> None:
        """Stand for the tool that the server calls `remote_name`."""
        self.schema = schema
        self.timeout_s = server.settings.timeout_s
        self.remote_name = remote_name
        self._server = server

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Let the server do it."""
        del context
        return await self._server.call(self.remote_name, arguments)


class McpServer:
    """One server.

    Attributes:
        tools: What may be used of it, by the names the model is told; kept while it is away.
        problem: Why it cannot be used now; empty while it can.
        tried: Set once the first attempt to connect has succeeded or failed.
    """

    def __init__(self, settings: McpServerSettings) -> None:
        """Prepare; `run` connects."""
        self.settings = settings
        self.tools: Mapping[str, McpTool] = {}
        self.problem = "not connected yet"
        self.tried = asyncio.Event()
        self._secrets = (*settings.secret_headers.values(), *settings.secret_env.values())
        self._session: mcp.ClientSession | None = None
        self._lost = asyncio.Event()
        self._calls = 0
        self._log = structlog.get_logger().bind(mcp=settings.name)

    async def run(self) -> None:
        """Connect, and connect again whenever the server is lost, until cancelled."""
        pause_s = _FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                await self._serve()
            except Exception as error:  # noqa: BLE001 - a stranger's program may fail in any way
                self._lose(self._explain(error))
            self.tried.set()
            if loop.time() - began_s > _HEALTHY_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            self._log.warning("x MCP server", reason=self.problem, again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call one tool; the caller of this sets the time limit."""
        session = self._session
        if session is None:
            return failure(f"{self.settings.name}: {self.problem}", _UNREACHABLE, 0)
        self._calls += 1
        try:
            result = await session.call_tool(name, dict(arguments))
        except mcp.MCPError as error:
            if self._lost.is_set() or error.error.code == mcp.types.CONNECTION_CLOSED:
                self._lose("the connection was lost")
                return failure(f"{self.settings.name} was lost during the call", _UNREACHABLE)
            return failure(self._hide(f"{self.settings.name}: {error}"), "That did not work.")
        except (ClosedResourceError, BrokenResourceError, httpx2.HTTPError) as error:
            self._lose(self._explain(error))
            return failure(f"{self.settings.name}: {self.problem}", _UNREACHABLE)
        except RuntimeError as error:  # what came back does not fit the server's own schema
            return failure(self._hide(f"{self.settings.name}: {error}"), "That did not work.")
        finally:
            self._calls -= 1
        return self._read(result)

    async def _serve(self) -> None:
        """Hold one connection until it is lost."""
        settings = self.settings
        self._lost = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(settings.connect_timeout_s):
                read, write = await stack.enter_async_context(self._transport())
                session = await stack.enter_async_context(
                    mcp.ClientSession(
                        read,
                        write,
                        read_timeout_seconds=settings.connect_timeout_s,
                        client_info=Implementation(name="trunkline", version="1"),
                    )
                )
                await session.initialize()
                await self._list(session)
            self._session = session
            self.tried.set()
            self._log.info("= MCP server", tools=len(self.tools))
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._lost.wait()
                        return
                if not self._calls:  # it may do one thing at a time
                    async with asyncio.timeout(settings.connect_timeout_s):
                        await self._list(session)

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[tuple[Any, Any]]:
        settings = self.settings
        if settings.command:
            secrets = {name: it.get_secret_value() for name, it in settings.secret_env.items()}
            env = {**settings.base_env, **settings.env, **secrets}
            async with open_stdio(settings.command, env, settings.name) as server:
                watch = asyncio.create_task(self._watch(server))
                try:
                    yield server.streams
                finally:
                    await cancel(watch)
                    if server.reason:
                        await server.ended.wait()  # its last words are still being read
                        self._lose_process(server)
            return
        client = open_client(
            allow_private=settings.allow_private,
            max_bytes=_MAX_BYTES,
            timeout_s=settings.timeout_s,
            takes_events=True,
            headers={
                **settings.headers,
                **{name: it.get_secret_value() for name, it in settings.secret_headers.items()},
            },
        )
        # Between two events of a stream hours may pass.
        client.timeout = httpx2.Timeout(settings.timeout_s, read=None)
        async with client, streamable_http_client(settings.url, http_client=client) as streams:
            yield streams

    async def _watch(self, server: StdioServer) -> None:
        await server.ended.wait()
        self._lose_process(server)

    def _lose_process(self, server: StdioServer) -> None:
        words = f": {server.last_words}" if server.last_words else ""
        self._lose(self._hide((server.reason or "it ended") + words))

    def _lose(self, reason: str) -> None:
        """From now on calls are told so; `run` connects again."""
        self._session = None
        if not self._lost.is_set():
            self.problem = reason
            self._lost.set()

    async def _list(self, session: mcp.ClientSession) -> None:
        """Learn which of the allowed tools there are.

        Raises:
            ValueError: None of them.
        """
        found: list[mcp.types.Tool] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await session.list_tools(
                params=mcp.types.PaginatedRequestParams(cursor=cursor) if cursor else None
            )
            found += page.tools
            cursor = page.next_cursor
            if not cursor or len(found) >= _MOST_TOOLS:
                break
        allowed = self.settings.tools
        tools: dict[str, McpTool] = {}
        for tool in found[:_MOST_TOOLS]:
            if "*" in allowed or tool.name in allowed:
                made = self._tool(tool)
                if made is not None:
                    tools[made.schema.name] = made
        missing = {*allowed} - {"*"} - {tool.name for tool in found}
        if missing:
            raise ValueError(f"it has no tool {', '.join(sorted(missing))}")
        self.tools = tools
        self.problem = ""

    def _tool(self, tool: mcp.types.Tool) -> McpTool | None:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{self.settings.name}_{tool.name}")[:64]
        try:
            ArgumentCheck(tool.input_schema)
        except ValueError as error:
            self._log.warning("! MCP tool left out", tool=clean(tool.name), reason=str(error))
            return None
        words = clean(tool.description or tool.name, 2_000)
        return McpTool(self, tool.name, ToolSchema(name, words, tool.input_schema))

    def _read(self, result: CallToolResult) -> ToolResult:
        text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
        if result.is_error:
            words = clean(self._hide(text), 500) or "That did not work."
            return failure(f"{self.settings.name}: {words}", words)
        if result.structured_content is not None:
            return ToolResult(self._hide(answer(result.structured_content).output))
        return ToolResult(self._hide(text or answer({"status": "done"}).output))

    def _hide(self, text: str) -> str:
        return hide(text, self._secrets)

    def _explain(self, error: BaseException) -> str:
        """Say in a few words what went wrong, out of groups of groups."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, TimeoutError):
            words = f"no answer within {self.settings.connect_timeout_s:g} s"
        elif isinstance(error, mcp.MCPError) and self._lost.is_set():
            words = self.problem  # the process said why it is gone; the session only that it is
        else:
            words = str(error) or type(error).__name__
        return clean(self._hide(words))
