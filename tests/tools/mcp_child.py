"""A small MCP server over stdio, as a child process, which misbehaves on demand.

python -m tests.tools.mcp_child [silent | garbage | chatter | endless | refuses | http PORT]
"""

import asyncio
import os
import sys
import time
from typing import Any

from mcp.server.mcpserver import MCPServer

server = MCPServer("orders")


@server.tool()
def status(number: int) -> str:
    """Look up an order."""
    return f"order {number} is ready; {os.environ.get('CRM_KEY', 'no key')}"


@server.tool()
def facts() -> dict[str, Any]:
    """Everything as an object."""
    return {"open": True}


@server.tool()
def fail() -> str:
    """Raise."""
    raise ValueError("the database is away")


@server.tool()
def die() -> str:
    """End the process in the middle of a call."""
    os._exit(3)


@server.tool()
async def hang() -> str:
    """Never answer."""
    await asyncio.sleep(60)
    return "too late"


@server.tool()
def big() -> str:
    """Say far too much."""
    return "x" * 10_000_000


@server.tool()
def environment() -> str:
    """Tell which variables there are."""
    return ",".join(sorted(os.environ))


def main(how: str, *port: str) -> None:
    if how == "http":
        server.run("streamable-http", port=int(port[0]))
        return
    if how == "silent":
        time.sleep(60)
    if how == "refuses":
        sys.exit("cannot start: no licence")
    if how == "endless":
        while True:
            os.write(1, b"x" * 65_536)
    if how == "garbage":
        while True:
            os.write(1, b"this is no message\n")
    if how == "chatter":
        os.write(1, b"Starting...\n{}\n[1, 2]\n\xff\xfe\n\n")
    server.run("stdio")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [""]))
