"""Tokens let in whom they name, and their files keep others out."""

import dataclasses
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from agent.store.database import Database
from agent.store.kept_secret import SecretFileUnavailable
from agent.store.tables import api_tokens
from agent.store.tokens import (
    ROLES,
    Identity,
    Role,
    TokenError,
    Tokens,
    open_tokens,
)


@pytest.fixture
def beside(database: Database, tmp_path: Path) -> Database:
    """The database, with its files in a temporary folder for PostgreSQL too."""
    return dataclasses.replace(database, folder=tmp_path)


@pytest.mark.parametrize("role", ROLES)
async def test_token(database: Database, role: Role) -> None:
    """A token is known by its name and role; the database does not hold it."""
    tokens = Tokens(database)
    token = await tokens.create("dashboard", role)
    assert await tokens.verify(token) == Identity("dashboard", role)
    assert await tokens.verify(token + "x") is None
    async with database.engine.connect() as connection:
        row = (await connection.execute(sa.select(api_tokens))).one()
    assert token not in str(row)
    assert row.last_used_at >= row.created_at


@pytest.mark.parametrize("token", ["", "tl_", "tl_guess", "é\x00\ud800", "x" * 100_000])
async def test_stranger(database: Database, token: str) -> None:
    """Anything else is nobody's."""
    assert await Tokens(database, SecretStr("admin's")).verify(token) is None


@pytest.mark.parametrize("name", ["", "  ", "admin", "taken"])
async def test_name(database: Database, name: str) -> None:
    """A name is given once, and never one that would pass for the admin."""
    tokens = Tokens(database)
    await tokens.create("taken", "viewer")
    with pytest.raises(TokenError, match="token name"):
        await tokens.create(name, "viewer")


async def test_first_start(beside: Database) -> None:
    """The first start makes a token, shows it once and keeps it where only we can read."""
    tokens, shown = await open_tokens(beside, None)
    assert shown is not None
    assert await tokens.verify(shown) == Identity("admin", "admin")
    file = beside.folder / "trunkline.token"
    assert file.read_text().strip() == shown
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    file.chmod(0o644)
    tokens, shown_again = await open_tokens(beside, None)
    assert shown_again is None
    assert await tokens.verify(shown) == Identity("admin", "admin")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_configured(beside: Database) -> None:
    """A configured token is the admin's, and no other is made."""
    tokens, shown = await open_tokens(beside, SecretStr("chosen"))
    assert shown is None
    assert await tokens.verify("chosen") == Identity("admin", "admin")
    assert not (beside.folder / "trunkline.token").exists()


@pytest.mark.parametrize("damage", ["empty", "folder", "binary"])
async def test_damaged_file(beside: Database, damage: str) -> None:
    """A token file that cannot be used is named, with what to do."""
    file = beside.folder / "trunkline.token"
    match damage:
        case "empty":
            file.touch()
        case "folder":
            file.mkdir()
        case _:
            file.write_bytes(b"\xff\xfe")
    with pytest.raises(SecretFileUnavailable, match=str(file)):
        await open_tokens(beside, None)
