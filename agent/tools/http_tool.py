"""A tool that is a request to an HTTP service, as `[[tools.http]]` describes it.

Arguments named in the URL go into it, percent-encoded; the others become the query
of a GET or DELETE and the JSON body of anything else.
"""

import asyncio
from collections.abc import Mapping
from string import Formatter
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import orjson

from agent.call.clean import clean
from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.tools.egress import TargetRefused, open_client
from agent.tools.settings import HttpToolSettings
from agent.tools.tool import answer, failure, hide

_UNREACHABLE = "The service cannot be reached right now."
_ADVICE = {
    400: "The service did not understand that. Check the details with the caller.",
    404: "The service knows nothing under that. Check the details with the caller.",
    409: "The service says that this is not possible as things are.",
    422: "The service did not understand that. Check the details with the caller.",
}
_BROKEN = "The service has a problem right now."


class HttpTool:
    """Sends one request for each call."""

    def __init__(self, settings: HttpToolSettings) -> None:
        """Prepare the client; `close` lets go of its connections."""
        self.schema = ToolSchema(settings.name, settings.description, settings.parameters)
        self.timeout_s = settings.timeout_s
        self._settings = settings
        self._secrets = tuple(settings.secret_headers.values())
        self._client = open_client(
            allow_private=settings.allow_private,
            max_bytes=settings.max_bytes,
            timeout_s=settings.timeout_s,
            headers={
                **settings.headers,
                **{name: it.get_secret_value() for name, it in settings.secret_headers.items()},
            },
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Send it; a GET whose connection broke is sent once more."""
        del context
        settings = self._settings
        attempts = 0
        try:
            request = self._request(arguments)
            async with asyncio.timeout(settings.timeout_s):
                while True:
                    attempts += 1
                    try:
                        reply = await self._client.send(request)
                        break
                    except httpx2.NetworkError as error:
                        is_final = attempts > 1 or settings.method != "GET"
                        if is_final or isinstance(error.__cause__, TargetRefused):
                            raise
                    except httpx2.RemoteProtocolError:
                        if attempts > 1 or settings.method != "GET":
                            raise
            result = self._read(reply)
        except ValueError as error:
            return failure(str(error), "The arguments cannot be used as they are.", 0)
        except (TimeoutError, httpx2.TimeoutException):
            error_text = f"{settings.host} did not answer within {settings.timeout_s:g} s"
            return failure(error_text, _UNREACHABLE, attempts)
        except httpx2.HTTPError as error:
            error_text = hide(clean(f"{settings.host}: {error or repr(error)}"), self._secrets)
            return failure(error_text, _UNREACHABLE, attempts)
        return ToolResult(hide(result.output, self._secrets), result.error, attempts=attempts)

    def _request(self, arguments: Mapping[str, Any]) -> httpx2.Request:
        """Put the arguments where they belong.

        Raises:
            ValueError: One of them would lead to another place.
        """
        settings = self._settings
        named = {name for _, name, _, _ in Formatter().parse(settings.url) if name}
        rest = {name: value for name, value in arguments.items() if name not in named}
        url = settings.url.format(
            **{name: quote(_text(arguments[name]), safe="") for name in named}
        )
        path = url.partition("?")[0]
        if any(part in (".", "..") for part in path.split("/")):
            raise ValueError("an argument would change the path")
        if settings.method in ("GET", "DELETE"):
            if rest:
                pairs = [(name, _text(value)) for name, value in rest.items()]
                url += ("&" if "?" in url else "?") + urlencode(pairs)
            return self._client.build_request(settings.method, url)
        return self._client.build_request(
            settings.method,
            url,
            content=orjson.dumps(rest),
            headers={"Content-Type": "application/json"},
        )

    def _read(self, reply: httpx2.Response) -> ToolResult:
        host, status = self._settings.host, reply.status_code
        if not 200 <= status < 300:
            return failure(f"{host} answered {status}", _ADVICE.get(status, _BROKEN))
        if not reply.content:
            return answer({"status": "done"})
        if "json" not in reply.headers.get("content-type", "json"):
            return answer({"text": reply.content.decode("utf-8", "replace")})
        try:
            return answer(orjson.loads(reply.content))
        except orjson.JSONDecodeError:
            return failure(f"{host} answered something that is not JSON", _BROKEN)


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
