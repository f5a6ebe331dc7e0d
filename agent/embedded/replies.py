"""What the server says over HTTP when it says no: OpenAI's error form and status codes.

Section 1.6 of the protocol reference. A handler raises `HttpError`; the
application turns it, and whatever the framework refuses by itself, into the
same JSON body.
"""

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from agent.embedded.protocol import JsonObject, Refused

_RETRY_AFTER_S = 5


class HttpError(Exception):
    """A request that is refused.

    Attributes:
        status: The HTTP status code.
        code: As in the reference, 1.6.
        param: Which field, if one is to blame.
    """

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    @classmethod
    def of(cls, refused: Refused) -> "HttpError":
        """Say over HTTP what would be an `error` event inside a session."""
        return cls(400, refused.code, refused.message, param=refused.param)


def error_body(
    message: str, code: str | None, param: str | None, kind: str = "invalid_request_error"
) -> JsonObject:
    """Build the body of a refusal."""
    return {
        "error": {
            "message": message,
            "type": kind,
            "param": param,
            "code": code,
        }
    }


def refusal(error: HttpError) -> Response:
    """Build the whole reply of a refusal."""
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if error.status == 429 else None
    body = error_body(str(error), error.code, error.param)
    return JSONResponse(body, error.status, headers=headers)


async def error_reply(_connection: HTTPConnection, error: Exception) -> Response:
    """Answer a request whose handler raised `HttpError`."""
    assert isinstance(error, HttpError)
    return refusal(error)


async def http_exception_reply(_request: Request, error: Exception) -> Response:
    """Answer unknown paths, methods and broken multipart bodies, in the same form."""
    assert isinstance(error, HTTPException)
    return JSONResponse(error_body(str(error.detail), None, None), error.status_code)


async def broken_reply(_request: Request, _error: Exception) -> Response:
    """Answer a request at which the server itself broke; what broke is in its log."""
    return JSONResponse(error_body("The server had an error.", None, None, "server_error"), 500)
