"""`/api/v1/realtime`: keys for browsers that talk to an agent themselves."""

from typing import Any, Protocol

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from agent.admin.access import demand_role
from agent.admin.models import Problem, Time
from agent.admin.problems import InvalidParameter
from agent.call.ports import AgentUnavailable
from agent.realtime.secrets import BrowserKey

_PROBLEM: dict[str, Any] = {
    "model": Problem,
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}

router = APIRouter(
    prefix="/api/v1/realtime",
    tags=["realtime"],
    responses=dict.fromkeys((401, 403, 422, 503), _PROBLEM),
)


class Keys(Protocol):
    """Has keys made; raises `AgentUnavailable` where it cannot."""

    @property
    def agents(self) -> list[str]:
        """For whom; the first is meant when nobody is named."""
        ...

    async def make(self, agent: str, life_s: int | None = None) -> BrowserKey:
        """Have one made."""
        ...


class ClientSecretRequest(BaseModel):
    """Which key is wanted."""

    model_config = ConfigDict(extra="forbid")

    agent: str | None = Field(None, max_length=64, description="By default, the first agent.")
    life_s: int | None = Field(None, ge=10, le=7200, description="How long it opens sessions.")


class ClientSecretModel(BaseModel):
    """An ephemeral key; the agent's session is behind it."""

    model_config = ConfigDict(from_attributes=True)

    value: str = Field(description="Bearer for `url`; it opens this agent's sessions only.")
    expires_at: Time
    url: str = Field(description="Where to POST the SDP offer, as application/sdp.")
    agent: str
    model: str


@router.post(
    "/client-secrets",
    summary="An ephemeral key for a browser",
    dependencies=[Depends(demand_role("operator"))],
)
async def make_client_secret(
    request: Request, wanted: ClientSecretRequest | None = None
) -> ClientSecretModel:
    """Have the provider make a key with which a browser can talk to an agent, and no more."""
    keys: Keys = request.app.state.keys
    wanted = wanted or ClientSecretRequest()
    agents = keys.agents
    agent = wanted.agent or agents[0]
    if agent not in agents:
        raise InvalidParameter("agent", agent, f"one of {', '.join(agents)}")
    try:
        key = await keys.make(agent, wanted.life_s)
    except AgentUnavailable as error:
        raise HTTPException(
            503, f"No key was made: {error.reason}", {"Retry-After": str(error.retry_after_s)}
        ) from error
    return ClientSecretModel.model_validate(key)
