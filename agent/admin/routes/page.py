"""`/`: the page, and the door to it.

A sign-in is a plain form; its answer is a cookie and a redirect. The signed-in
page is one HTML shell whose script reads the API, so the page can do nothing
that the API does not allow. Nothing comes from another host.
"""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from agent.admin.access import COOKIE, identify
from agent.store.tokens import Tokens

PAGE_FOLDER = Path(__file__).parents[1] / "page"
_LONGEST_FORM_BYTES = 4096
_SIGNED_IN_FOR_S = 30 * 24 * 3600

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/calls/{call_id}")
async def page(request: Request) -> Response:
    """Show the page, or the sign-in to whoever is not known yet."""
    if await identify(request, request.app.state.tokens) is None:
        return _sign_in_page()
    return HTMLResponse(_read("index.html"))


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Take the token from the form; keep it in a cookie that no script can read."""
    _refuse_other_sites(request)
    token = await _form_field(request, "token")
    tokens: Tokens = request.app.state.tokens
    if await tokens.verify(token) is None:
        return _sign_in_page("This token is not known here.", 401)
    reply = RedirectResponse("/", 303)
    reply.set_cookie(
        COOKIE,
        token,
        max_age=_SIGNED_IN_FOR_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return reply


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """Forget the cookie."""
    _refuse_other_sites(request)
    reply = RedirectResponse("/", 303)
    reply.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return reply


def _refuse_other_sites(request: Request) -> None:
    """Turn away a form that another site made our visitor's browser send."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "This form can only be sent from Trunkline's own page")


async def _form_field(request: Request, name: str) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM_BYTES:
            raise HTTPException(413, f"A form has at most {_LONGEST_FORM_BYTES} bytes")
    fields = parse_qs(body.decode("utf-8", "replace"))
    return fields.get(name, [""])[0].strip()


def _sign_in_page(message: str = "", status: int = 200) -> HTMLResponse:
    return HTMLResponse(_read("sign-in.html").replace("<!-- message -->", message), status)


def _read(name: str) -> str:
    return (PAGE_FOLDER / name).read_text(encoding="utf-8")
