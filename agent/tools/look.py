"""Whether the configured tools can be used here and now, for `trunkline check`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpcore2
import httpx

from agent.tools.egress import resolve
from agent.tools.python_tool import PythonTool
from agent.tools.settings import HttpToolSettings, ToolSettings
from agent.tools.tool import ToolProblem
from agent.tools.toolbox import open_toolbox


@dataclass(frozen=True, slots=True)
class ToolFinding:
    """One tool or server: whether it can be used, and what to do if not."""

    name: str
    is_usable: bool
    text: str


async def look_at_tools(settings: ToolSettings) -> AsyncIterator[ToolFinding]:
    """Import every function, resolve every host, connect to every MCP server."""
    for function in settings.python:
        try:
            PythonTool(function)
        except ToolProblem as error:
            yield ToolFinding(function.name, False, str(error))
        else:
            yield ToolFinding(function.name, True, f"calls {function.function}")
    for http in settings.http:
        yield await _http(http)
    patience_s = max((it.connect_timeout_s + 1 for it in settings.mcp), default=0)
    rest = settings.model_copy(update={"python": ()})
    async with (
        httpx.AsyncClient() as client,
        open_toolbox(rest, client, start_timeout_s=patience_s) as toolbox,
    ):
        problems = dict(toolbox.problems())
        for server in settings.mcp:
            problem = problems.get(server.name, "")
            names: Sequence[str] = [it.name for it in toolbox.schemas([f"{server.name}.*"])]
            text = problem or f"offers {', '.join(names) or 'no tools'}"
            yield ToolFinding(server.name, not problem, text)


async def _http(http: HttpToolSettings) -> ToolFinding:
    parts = urlsplit(http.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        await resolve(http.host, port, allow_private=http.allow_private)
    except httpcore2.ConnectError as error:
        return ToolFinding(http.name, False, str(error))
    return ToolFinding(http.name, True, f"asks {http.host}")
