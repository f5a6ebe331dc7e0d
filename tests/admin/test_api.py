"""The API as its users meet it: names, times, filters, and errors that say what is wrong."""

from typing import Any

import httpx
import pytest

from tests.admin.conftest import ADMIN_TOKEN, HOSTILE, Admin

PROBLEM = "application/problem+json"
CALL_FIELDS = [
    "id",
    "direction",
    "state",
    "trunk",
    "did",
    "caller_number",
    "agent",
    "source",
    "started_at",
    "answered_at",
    "ended_at",
    "duration_ms",
    "answer_delay_ms",
    "ending",
    "turn_count",
    "tool_call_count",
    "turn_latency",
    "cost_usd",
    "has_recording",
]


async def test_list(signed_in: httpx.AsyncClient) -> None:
    """The list is newest first, with the agreed names and times in UTC."""
    reply = await signed_in.get("/api/v1/calls")
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    found = reply.json()
    assert [call["id"] for call in found["items"]] == ["call-3", "call-2", "call-1"]
    assert found["next_cursor"] is None
    call = found["items"][2]
    assert sorted(call) == sorted(CALL_FIELDS)
    assert call == {
        "id": "call-1",
        "direction": "inbound",
        "state": "ended",
        "trunk": "carrier",
        "did": "+15550100",
        "caller_number": HOSTILE,
        "agent": "receptionist",
        "source": "sip",
        "started_at": "2026-11-21T12:00:00.123456Z",
        "answered_at": "2026-11-21T12:00:00.823456Z",
        "ended_at": "2026-11-21T12:00:10.823456Z",
        "duration_ms": 10_000,
        "answer_delay_ms": 700,
        "ending": {"by": "caller", "reason": "hung up"},
        "turn_count": 2,
        "tool_call_count": 1,
        "turn_latency": {"p50_ms": 300, "p95_ms": 300},
        "cost_usd": 0.0036,
        "has_recording": False,
    }


async def test_detail(signed_in: httpx.AsyncClient) -> None:
    """One call has its turns, tool calls and events, with the agreed names."""
    found = (await signed_in.get("/api/v1/calls/call-1")).json()
    assert {name: found[name] for name in CALL_FIELDS} == (
        await signed_in.get("/api/v1/calls")
    ).json()["items"][2]
    assert [turn["position"] for turn in found["turns"]] == [0, 1]
    assert found["turns"][0] == {
        "item_id": "item-1",
        "position": 0,
        "speaker": "agent",
        "text": "Hello, this is the bakery.",
        "heard_text": "Hello, this is the bakery.",
        "interrupted": False,
        "started_ms": 100,
        "ended_ms": 1900,
        "latency_ms": 300,
        "endpointing_ms": 120,
        "model_ms": 100,
        "network_ms": 60,
        "buffer_ms": 20,
        "tool_ms": 0,
    }
    assert found["tool_calls"] == [
        {
            "tool_call_id": "tool-1",
            "name": "weather",
            "arguments": '{"place":"Ghent"}',
            "output": "12 degrees",
            "error": None,
            "status": "completed",
            "started_ms": 3000,
            "duration_ms": 150,
            "attempts": 1,
            "silence_ms": None,
            "repeats": None,
        }
    ]
    assert found["events"] == [
        {
            "at": "2026-11-21T12:00:02.123456Z",
            "offset_ms": 1300,
            "kind": "agent error",
            "detail": {"code": "x"},
        }
    ]
    assert found["charges"] == [
        {
            "source_id": "resp-1",
            "purpose": "response",
            "model": "gpt-realtime-2.1",
            "offset_ms": 1500,
            "usage": {"text_in": 100, "audio_out": 50},
            "cost_usd": 0.0036,
            "remark": "",
        }
    ]
    assert (found["quality"], found["usage"]) == ({"lost": 1}, {"text_in": 100, "audio_out": 50})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"state": "active"}, ["call-2"], id="state"),
        pytest.param({"trunk": "b"}, ["call-3"], id="trunk"),
        pytest.param({"caller": HOSTILE}, ["call-1"], id="caller"),
        pytest.param({"q": "WEATHER"}, ["call-1"], id="words"),
        pytest.param({"q": "\x00"}, [], id="NUL"),
        pytest.param(
            {"q": "", "state": "", "limit": ""}, ["call-3", "call-2", "call-1"], id="empty"
        ),
        pytest.param({"since": "2026-11-21T13:02:00+01:00"}, ["call-3"], id="since"),
        pytest.param({"until": "2026-11-21T12:01:00Z"}, ["call-1"], id="until"),
        pytest.param({"did": "+15550100", "limit": "2"}, ["call-3", "call-2"], id="limit"),
    ],
)
async def test_filters(
    signed_in: httpx.AsyncClient, query: dict[str, str], expected: list[str]
) -> None:
    """Every filter of the agreed list is understood; an empty one is none."""
    reply = await signed_in.get("/api/v1/calls", params=query)
    assert [call["id"] for call in reply.json()["items"]] == expected


async def test_cursor(signed_in: httpx.AsyncClient) -> None:
    """The cursor leads through the list, with the same filters, to its end."""
    seen = []
    query: dict[str, str] = {"limit": "1", "did": "+15550100"}
    for _ in range(3):
        found = (await signed_in.get("/api/v1/calls", params=query)).json()
        seen += [call["id"] for call in found["items"]]
        query["cursor"] = found["next_cursor"]
    assert seen == ["call-3", "call-2", "call-1"]
    assert found["next_cursor"] is None


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        pytest.param("limit", "0", "greater than or equal to 1", id="limit too small"),
        pytest.param("limit", "201", "less than or equal to 200", id="limit too large"),
        pytest.param("limit", "many", "a valid integer", id="limit no number"),
        pytest.param("state", "gone", "'ringing', 'active' or 'ended'", id="state"),
        pytest.param("since", "yesterday", "RFC 3339", id="since"),
        pytest.param("until", "2026-11-21T12:00:00", "with its zone", id="no zone"),
        pytest.param("until", "0001-01-01T00:00:00+10:00", "years 1 and 9999", id="before time"),
        pytest.param("cursor", "made-up", "next_cursor of an earlier reply", id="cursor"),
        pytest.param("colour", "red", "no such parameter", id="unknown"),
    ],
)
async def test_invalid(signed_in: httpx.AsyncClient, name: str, value: str, accepted: str) -> None:
    """A wrong parameter is named, with what was found and what is accepted."""
    reply = await signed_in.get("/api/v1/calls", params={name: value})
    assert (reply.status_code, reply.headers["content-type"]) == (422, PROBLEM)
    problem = reply.json()
    assert problem["status"] == 422
    assert [(error["parameter"], error["value"]) for error in problem["errors"]] == [(name, value)]
    assert accepted in problem["errors"][0]["accepted"]
    assert name in problem["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": "Bearer wrong"}, id="wrong"),
        pytest.param({"Authorization": "Bearer "}, id="empty"),
        pytest.param({"Authorization": f"Basic {ADMIN_TOKEN}"}, id="other scheme"),
        pytest.param({"Cookie": "trunkline_token=wrong"}, id="wrong cookie"),
        pytest.param({"Cookie": f"x={ADMIN_TOKEN}"}, id="other cookie"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/calls"),
        ("GET", "/api/v1/calls/call-1"),
        ("GET", "/api/v1/openapi.json"),
        ("GET", "/api/v1"),
        ("DELETE", "/api/v1/calls/call-1"),
        ("GET", "/api/v1/nothing"),
    ],
)
async def test_stranger(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    """Without a token that is known, the API says nothing but 401."""
    reply = await client.request(method, path, headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (401, PROBLEM)
    assert reply.headers["www-authenticate"].startswith('Bearer realm="trunkline"')
    assert reply.json()["status"] == 401


async def test_any_role_reads(client: httpx.AsyncClient, admin: Admin) -> None:
    """A viewer's token reads the log."""
    token = await admin.tokens.create("wall", "viewer")
    reply = await client.get("/api/v1/calls", headers={"authorization": f"bearer {token}"})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        pytest.param("GET", "/api/v1/calls/call-9", 404, "There is no such call", id="no call"),
        pytest.param("GET", "/api/v1/calls/%00%ff", 404, "There is no such call", id="hostile id"),
        pytest.param("GET", "/api/v1/nothing", 404, "GET /api/v1/nothing", id="no route"),
        pytest.param("GET", "/nothing", 404, "GET /nothing", id="no page"),
        pytest.param("POST", "/healthz", 405, "POST /healthz", id="method"),
        pytest.param("PUT", "/api/v1/calls", 405, "PUT /api/v1/calls", id="method in the API"),
    ],
)
async def test_problem(
    signed_in: httpx.AsyncClient, method: str, path: str, status: int, detail: str
) -> None:
    """Every error is problem details."""
    reply = await signed_in.request(method, path)
    assert (reply.status_code, reply.headers["content-type"]) == (status, PROBLEM)
    problem = reply.json()
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    assert problem["detail"].startswith(detail)
    if status == 405:
        assert reply.headers["allow"] == "GET"


async def test_mistake(
    admin: Admin, signed_in: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours is a 500 that keeps its traceback to itself."""

    async def broken(*_: Any, **__: Any) -> None:
        msg = "secret inside"
        raise RuntimeError(msg)

    monkeypatch.setattr(admin.app.state.log, "list_calls", broken)
    reply = await signed_in.get("/api/v1/calls")
    assert (reply.status_code, reply.headers["content-type"]) == (500, PROBLEM)
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text


@pytest.mark.parametrize(
    ("table", "headers"),
    [
        pytest.param("turns", {"Authorization": f"Bearer {ADMIN_TOKEN}"}, id="reading calls"),
        pytest.param("api_tokens", {"Authorization": "Bearer tl_x"}, id="reading tokens"),
    ],
)
async def test_database_fails(
    admin: Admin, client: httpx.AsyncClient, table: str, headers: dict[str, str]
) -> None:
    """A database that fails is a 503 that says to come back, and not what is inside."""
    async with admin.database.engine.begin() as connection:
        await connection.exec_driver_sql(f"DROP TABLE {table}")
    reply = await client.get("/api/v1/calls", headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (503, PROBLEM)
    assert reply.headers["retry-after"] == "5"
    assert table not in reply.text


async def test_health(admin: Admin, client: httpx.AsyncClient) -> None:
    """Health and readiness need no token; readiness follows whether calls are taken."""
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code == 200
    admin.readiness.is_ready = False
    reply = await client.get("/readyz")
    assert (reply.status_code, reply.headers["content-type"]) == (503, PROBLEM)
    assert (await client.get("/healthz")).status_code == 200


async def test_openapi(signed_in: httpx.AsyncClient) -> None:
    """The API describes itself: every parameter, every error, the token it needs."""
    found = (await signed_in.get("/api/v1/openapi.json")).json()
    listing = found["paths"]["/api/v1/calls"]["get"]
    assert {parameter["name"] for parameter in listing["parameters"]} == {
        "q",
        "state",
        "trunk",
        "agent",
        "did",
        "caller",
        "since",
        "until",
        "limit",
        "cursor",
    }
    assert listing["security"] == [{"HTTPBearer": []}]
    assert PROBLEM in listing["responses"]["422"]["content"]
    assert set(found["paths"]) == {
        "/healthz",
        "/metrics",
        "/readyz",
        "/api/v1/calls",
        "/api/v1/calls/{call_id}",
    }
    assert set(found["components"]["schemas"]["CallModel"]["properties"]) == set(CALL_FIELDS)
    for path in ("/docs", "/redoc"):
        assert (await signed_in.get(path)).status_code == 404


async def test_metrics(client: httpx.AsyncClient) -> None:
    """Whoever watches the process reads its numbers without a token."""
    found = await client.get("/metrics")
    assert found.status_code == 200
    assert found.headers["content-type"].startswith("text/plain")
    assert "# HELP trunkline_calls Calls now\n" in found.text
    assert "trunkline_calls 3.0\n" in found.text
