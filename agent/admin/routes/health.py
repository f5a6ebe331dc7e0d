"""`/healthz`, `/readyz` and `/metrics`: for whoever watches the process. No token."""

from typing import Any

import prometheus_client
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from agent.admin.problems import problem

router = APIRouter(tags=["health"])
_OK: dict[str, Any] = {"status": "ok"}


@router.get("/healthz", summary="Is the process alive", response_model=None)
async def healthz() -> Response:
    """Answer; a process that does not should be restarted."""
    return JSONResponse(_OK)


@router.get("/readyz", summary="Can calls be taken", response_model=None)
async def readyz(request: Request) -> Response:
    """Say 200 while calls can be taken, else 503."""
    if request.app.state.is_ready():
        return JSONResponse(_OK)
    return problem(503, "No calls can be taken now: starting or draining.")


@router.get("/metrics", summary="What the process carries now", response_model=None)
async def metrics(request: Request) -> Response:
    """Give Prometheus text."""
    return Response(
        prometheus_client.generate_latest(request.app.state.metrics),
        media_type=prometheus_client.CONTENT_TYPE_LATEST,
    )
