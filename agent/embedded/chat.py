"""A language model as the mind: any OpenAI-compatible chat completions URL.

    Question (chat_request.py) -> POST, streamed -> Reading (chat_stream.py) -> Say, Write, Call

llama.cpp, Ollama and vLLM speak this. Here is the I/O and its limits: whoever
stops iterating ends the request, so the caller who barges in costs the model
nothing more; and nobody waits longer than `chat_timeout_s` for the next word.
A failure is one exception, `ChatFailed`; what it says may be logged and shown.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx

from agent.embedded.chat_request import Question
from agent.embedded.chat_stream import ChatFailed, Part, Reading
from agent.embedded.response import OutOfTokens
from agent.embedded.settings import EmbeddedSettings

_CONNECT_TIMEOUT_S = 3
# Shorter than the five seconds after which usual servers hang up: a connection
# that is just being closed cannot be told from a model that dies.
_KEEP_ALIVE_S = 2
_MOST_LINE_BYTES = 256 * 1024
_MOST_S = 120
_ADVICE = {
    400: "it does not like the request; does the model know tools and chat templates?",
    401: "it refuses the key; set TRUNKLINE_EMBEDDED__CHAT_API_KEY",
    403: "it refuses the key; set TRUNKLINE_EMBEDDED__CHAT_API_KEY",
    404: "there is no such address or model; correct embedded.chat_url (it usually ends in /v1)"
    " and embedded.chat_model",
    429: "it has too much to do, or the account is at its limit",
}


class ChatModel:
    """The model behind `[embedded] chat_url`, shared by all sessions. Close it at the end.

    Args:
        settings: With a `chat_url`.
    """

    def __init__(self, settings: EmbeddedSettings) -> None:
        base = settings.chat_url.rstrip("/")
        self._url = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        self._model = settings.chat_model
        self._timeout_s = settings.chat_timeout_s
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if settings.chat_api_key is not None:
            headers["Authorization"] = f"Bearer {settings.chat_api_key.get_secret_value()}"
        # Such a model runs beside us or next door: no proxy stands between.
        self._client = httpx.AsyncClient(
            headers=headers,
            trust_env=False,
            timeout=httpx.Timeout(self._timeout_s, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(keepalive_expiry=_KEEP_ALIVE_S),
        )

    async def answer(self, asked: Question) -> AsyncGenerator[Part, None]:
        """Answer, each sentence as soon as it is whole.

        Yields:
            What to say or write as it comes, then the calls.

        Raises:
            ChatFailed: It cannot be reached, refuses, stalls or sends nonsense.
            OutOfTokens: It may say no more; what it said was yielded.
        """
        loop = asyncio.get_running_loop()
        last_s = loop.time() + _MOST_S
        due_s = loop.time() + self._timeout_s
        reading = Reading(asked.tools, is_spoken=asked.is_spoken)
        request = self._client.build_request("POST", self._url, json=asked.body(self._model))
        try:
            async with asyncio.timeout_at(due_s):
                reply = await self._client.send(request, stream=True)
            async with aclosing(reply), aclosing(_lines(reply)) as lines:
                if reply.status_code != httpx.codes.OK:
                    raise _refused(reply.status_code)
                while not reading.is_done and loop.time() < last_s:
                    # Signs of life are not words: only those give it more time.
                    async with asyncio.timeout_at(due_s):
                        line = await anext(lines, None)
                    if line is None:
                        break
                    chars = reading.chars
                    for part in reading.line(line):
                        yield part
                    if reading.chars > chars:
                        due_s = loop.time() + self._timeout_s
        except (TimeoutError, httpx.TimeoutException) as error:
            raise ChatFailed(
                f"it said nothing for {self._timeout_s:g} seconds; is the machine too slow for the"
                " model? Otherwise raise embedded.chat_timeout_s"
            ) from error
        except httpx.ConnectError as error:
            raise ChatFailed(
                "it cannot be reached; is it running, and is embedded.chat_url right?"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ChatFailed(f"it hung up ({type(error).__name__})") from error
        for part in reading.end():
            yield part
        if reading.is_cut:
            raise OutOfTokens

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def _refused(status: int) -> ChatFailed:
    advice = _ADVICE.get(status, "look at its own log")
    code = "rate_limit_exceeded" if status == httpx.codes.TOO_MANY_REQUESTS else "server_error"
    return ChatFailed(f"it replied with status {status}: {advice}", code)


async def _lines(reply: httpx.Response) -> AsyncGenerator[str, None]:
    """Cut the stream into lines; one without end is a failure, not a full memory."""
    open_line = b""
    async for data in reply.aiter_raw():
        *whole, open_line = (open_line + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if len(open_line) > _MOST_LINE_BYTES:
            raise ChatFailed("its stream cannot be read")
    yield open_line.decode(errors="replace")
