"""Errors as the API's users see them: RFC 9457 problem details, and no traceback.

Every error of the API passes through here, whoever raised it: a route, the
router, the validation of parameters, the database, or a mistake of ours.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agent.admin.models import Problem
from agent.store.database import DatabaseUnavailable

log = structlog.get_logger()

_LONGEST_SHOWN = 200


class ProblemResponse(JSONResponse):
    """A reply with problem details."""

    media_type = "application/problem+json"


class InvalidParameter(Exception):
    """A parameter that only the store could judge.

    Attributes:
        parameter: Its name.
        value: What was found.
        accepted: What would have been.
    """

    def __init__(self, parameter: str, value: str, accepted: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter
        self.value = value
        self.accepted = accepted


def problem(
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] | None = None,
) -> ProblemResponse:
    """Build the reply for an error."""
    content = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=None if errors is None else [dict(error) for error in errors],
    )
    return ProblemResponse(
        content.model_dump(exclude_none=True), status_code=status, headers=dict(headers or {})
    )


def database_problem(error: Exception) -> ProblemResponse:
    """Build the reply for a database that does not answer; why is for the log alone."""
    log.error("! the API cannot read the database", reason=str(error))
    return problem(503, "The database does not answer; try again.", headers={"Retry-After": "5"})


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of the app leave as a problem."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(InvalidParameter, _parameter)
    app.add_exception_handler(DatabaseUnavailable, _database)
    app.add_exception_handler(Exception, _mistake)


async def _http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:
        # The router's own words: say what was asked for.
        detail = f"{request.method} {request.url.path}: {detail.lower()}"
    return problem(error.status_code, detail, headers=error.headers)


async def _validation(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    return _unprocessable([_explain(finding) for finding in error.errors()])


async def _parameter(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, InvalidParameter)
    return _unprocessable(
        [
            {
                "parameter": error.parameter,
                "value": error.value[:_LONGEST_SHOWN],
                "accepted": error.accepted,
            }
        ]
    )


async def _database(_request: Request, error: Exception) -> ProblemResponse:
    return database_problem(error)


async def _mistake(request: Request, error: Exception) -> ProblemResponse:
    log.error("! a request failed", path=request.url.path, exc_info=error)
    return problem(500, "Trunkline made a mistake; its log has the details.")


def _unprocessable(errors: Sequence[Mapping[str, Any]]) -> ProblemResponse:
    detail = "; ".join(
        f"{error['parameter']}: found {error['value']!r}, accepted: {error['accepted']}"
        for error in errors
    )
    return problem(422, detail, errors=errors)


def _explain(finding: Mapping[str, Any]) -> dict[str, Any]:
    accepted = str(finding["msg"]).removeprefix("Value error, ")
    if finding["type"] == "extra_forbidden":
        accepted = "no such parameter"
    elif finding["type"].startswith(("datetime", "timezone")):
        accepted = "an RFC 3339 time with its zone, such as 2026-11-21T12:00:00Z"
    else:
        accepted = accepted.removeprefix("Input should be ")
    return {
        "parameter": str(finding["loc"][-1]),
        "value": str(finding["input"])[:_LONGEST_SHOWN],
        "accepted": accepted,
    }
