"""A call log with a few calls, and the admin application over it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from agent.admin.app import create_app
from agent.store.calls import CallLog
from agent.store.database import Database, open_database, upgrade
from agent.store.journal import open_journal
from agent.store.settings import DatabaseSettings
from agent.store.tokens import Tokens
from tests.store.telling import NOON, answered, charge, cost, ended, event, offered, tool, turn

ADMIN_TOKEN = "let me in"
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m"


@dataclass
class Readiness:
    """Whether calls can be taken: for a test to change."""

    is_ready: bool = True


@dataclass
class Admin:
    """The application and what is behind it."""

    app: FastAPI
    database: Database
    tokens: Tokens
    readiness: Readiness = field(default_factory=Readiness)


@pytest.fixture
def settings(tmp_path: Path) -> DatabaseSettings:
    """A migrated SQLite database."""
    found = DatabaseSettings(url=f"sqlite:///{tmp_path}/calls.db")
    upgrade(found)
    return found


@pytest.fixture
async def admin(settings: DatabaseSettings) -> AsyncIterator[Admin]:
    """The application over a log of three calls: ended, active and ringing."""
    async with open_database(settings) as database:
        async with open_journal(database) as journal:
            for record in (
                offered(caller_number=HOSTILE),
                answered(),
                turn(
                    latency_ms=300,
                    endpointing_ms=120,
                    model_ms=100,
                    network_ms=60,
                    buffer_ms=20,
                    tool_ms=0,
                ),
                turn("item-2", position=1, speaker="caller", text="And the weather?\x1b]0;x\x07"),
                tool(),
                event(detail={"code": "x"}),
                charge(),
                cost("0.0036", text_in=100, audio_out=50),
                ended(quality={"lost": 1}),
                offered("call-2", started_at=NOON + timedelta(minutes=1)),
                answered("call-2", answered_at=NOON + timedelta(minutes=1, seconds=1)),
                offered("call-3", started_at=NOON + timedelta(minutes=2), trunk="b"),
            ):
                journal(record)
        tokens = Tokens(database, SecretStr(ADMIN_TOKEN))
        readiness = Readiness()
        app = create_app(
            CallLog(database),
            tokens,
            is_ready=lambda: readiness.is_ready,
            measure=lambda: {"calls": ("Calls now", 3)},
        )
        yield Admin(app, database, tokens, readiness)


@pytest.fixture
async def client(admin: Admin) -> AsyncIterator[httpx.AsyncClient]:
    """A stranger who speaks HTTP to the application."""
    # A mistake of ours is what the client gets, as behind a real server.
    transport = httpx.ASGITransport(admin.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


@pytest.fixture
def signed_in(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The same, with the admin's token."""
    client.headers["Authorization"] = f"Bearer {ADMIN_TOKEN}"
    return client
