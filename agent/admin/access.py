"""Who is asking: a token in the header, or in the cookie the page got for it.

The cookie is HttpOnly and SameSite=Strict: no script and no other site can use
it, and it opens nothing but reading. Whatever changes something needs the
header, which no form of another site can send.
"""

from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.admin.problems import database_problem, problem
from agent.store.database import DatabaseUnavailable
from agent.store.tokens import ROLES, Identity, Role, Tokens

COOKIE = "trunkline_token"
_API = "/api/v1"
_READING = {"GET", "HEAD"}
_CHALLENGE = 'Bearer realm="trunkline"'


class RequireToken:
    """Lets nobody without a token into the API, not even to see what is there."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or not _is_api(scope["path"]):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if find_token(request) is None:
            detail, error = "A token is needed: Authorization: Bearer TOKEN", ""
        else:
            try:
                identity = await identify(request, self._tokens)
                if identity is not None:
                    request.state.identity = identity
                    await self._app(scope, receive, send)
                    return
            except DatabaseUnavailable as unavailable:
                await database_problem(unavailable)(scope, receive, send)
                return
            # Source: RFC 6750, 3.1.
            detail, error = "The token is not known here", ', error="invalid_token"'
        reply = problem(401, detail, headers={"WWW-Authenticate": _CHALLENGE + error})
        await reply(scope, receive, send)


def demand_role(least: Role) -> Callable[[Request], None]:
    """Make a dependency that lets in nobody below a role; they are told which it takes."""

    def demand(request: Request) -> None:
        identity: Identity = request.state.identity
        if ROLES.index(identity.role) < ROLES.index(least):
            raise HTTPException(
                403, f"The token {identity.name!r} is a {identity.role}'s; this takes an {least}'s"
            )

    return demand


async def identify(request: Request, tokens: Tokens) -> Identity | None:
    """Tell who is asking; None for somebody without a token we know.

    Raises:
        DatabaseUnavailable: The tokens cannot be read.
    """
    token = find_token(request)
    return None if token is None else await tokens.verify(token)


def find_token(request: Request) -> str | None:
    """Take the token from the header, or the cookie when the request only reads."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme:
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None
    return request.cookies.get(COOKIE) if request.method in _READING else None


def _is_api(path: str) -> bool:
    return path == _API or path.startswith(_API + "/")
