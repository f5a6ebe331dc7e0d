"""A language model's stand-in: chat completions on a real port, with a script.

Each request is kept and answered with the next `answer`: a status, or lines of
the event stream, among which it may stall, die or give mere signs of life.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

STALL, DIE, PING = "stall", "die", "ping"


def words(*texts: str) -> list[str]:
    """The stream of an answer in words."""
    return [chunk({"content": text}) for text in texts] + ["data: [DONE]"]


def call(name: str, *arguments: str) -> list[str]:
    """The stream of a tool call whose arguments come in pieces."""
    first = {"index": 0, "id": "call_1", "function": {"name": name, "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in arguments]
    return [chunk({"tool_calls": [piece]}) for piece in (first, *pieces)] + ["data: [DONE]"]


def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    """One line of the stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}"


class ModelServer:
    """What it was asked, and what it shall answer."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.answers: list[list[str] | int] = []
        self.hung_up = asyncio.Event()
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("authorization", ""))
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            return JSONResponse({"error": {"message": "no"}}, answer)
        return StreamingResponse(self._stream(answer), media_type="text/event-stream")

    async def _stream(self, lines: list[str]) -> AsyncIterator[str]:
        try:
            for line in lines:
                if line == STALL:
                    await asyncio.Event().wait()
                while line == PING:
                    yield ": still here\n\n"
                    await asyncio.sleep(0.02)
                if line == DIE:
                    raise ConnectionAbortedError
                yield f"{line}\n\n"
        except asyncio.CancelledError:
            self.hung_up.set()
            raise


@asynccontextmanager
async def open_model() -> AsyncIterator[ModelServer]:
    """Serve on a free port for as long as the block lasts."""
    model = ModelServer()
    config = uvicorn.Config(
        model.app, host="127.0.0.1", port=0, ws="none", lifespan="off", log_config=None
    )
    web = uvicorn.Server(config)
    serving = asyncio.create_task(web.serve())
    async with asyncio.timeout(5):
        while not web.started:
            await asyncio.sleep(0.01)
    model.url = f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield model
    finally:
        web.should_exit = web.force_exit = True
        await serving
