"""`/api/v1/calls`: the call log."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.security import HTTPBearer
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from agent.admin.models import (
    CallDetailModel,
    CallPageModel,
    Problem,
    describe_call,
    describe_page,
)
from agent.admin.problems import InvalidParameter
from agent.store.calls import DEFAULT_LIMIT, MAX_LIMIT, CallFilter, CallLog, InvalidCursor

_PROBLEM: dict[str, Any] = {
    "model": Problem,
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}

# Only describes the header in OpenAPI; `access.RequireToken` has read it by then.
_BEARER = HTTPBearer(auto_error=False, description="A token from `trunkline tokens create`.")

router = APIRouter(
    prefix="/api/v1/calls",
    tags=["calls"],
    dependencies=[Depends(_BEARER)],
    responses=dict.fromkeys((401, 422, 503), _PROBLEM),
)


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("a point in time between the years 1 and 9999 in UTC") from None


_Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
_Text = Annotated[str, Field(max_length=500)]


class CallQuery(BaseModel):
    """Which calls to list; an empty value is the same as none."""

    model_config = ConfigDict(extra="forbid")

    q: _Text | None = Field(None, description="Words that were said in the call.")
    state: Literal["ringing", "active", "ended"] | None = None
    trunk: _Text | None = None
    agent: _Text | None = None
    did: _Text | None = Field(None, description="The number dialled.")
    caller: _Text | None = Field(None, description="The caller's number.")
    since: _Time | None = Field(None, description="Started then or later (RFC 3339).")
    until: _Time | None = Field(None, description="Started before (RFC 3339).")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, description="`next_cursor` of the page before.")

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if value != ""}
        return values


def _log(request: Request) -> CallLog:
    log: CallLog = request.app.state.log
    return log


Log = Annotated[CallLog, Depends(_log)]


@router.get("", summary="List calls, newest first")
async def list_calls(query: Annotated[CallQuery, Query()], log: Log) -> CallPageModel:
    """List calls, newest first; `next_cursor` leads to the older ones."""
    wanted = CallFilter(**query.model_dump(exclude={"limit", "cursor"}))
    try:
        page = await log.list_calls(wanted, limit=query.limit, cursor=query.cursor)
    except InvalidCursor:
        raise InvalidParameter(
            "cursor", query.cursor or "", "next_cursor of an earlier reply, unchanged"
        ) from None
    return describe_page(page)


@router.get("/{call_id}", summary="One call with all that was said", responses={404: _PROBLEM})
async def show_call(call_id: str, log: Log) -> CallDetailModel:
    """Show one call with its turns, tool calls, events, quality and usage."""
    detail = await log.get_call(call_id)
    if detail is None:
        raise HTTPException(404, "There is no such call")
    return describe_call(detail)
