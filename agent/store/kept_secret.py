"""A secret that is made once and kept in a file beside the database, for our eyes only."""

import os
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import SecretStr

from agent.store.database import DatabaseUnavailable

log = structlog.get_logger()


class SecretFileUnavailable(DatabaseUnavailable):
    """The file of a secret, which lies beside the database, cannot be used."""


def kept_secret(
    path: Path, make: Callable[[], str], *, what: str, instead: str
) -> tuple[SecretStr, bool]:
    """Read the secret kept in a file, or make one; say whether it is new.

    Args:
        path: Its file, mode 0600.
        make: Makes one; its text is a line.
        what: What it is called when something is wrong.
        instead: The variable that makes the file unnecessary.

    Raises:
        SecretFileUnavailable: The file cannot be written or read, or is empty.
    """
    try:
        try:
            # O_EXCL: of two programs that start at once, one makes it.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _read(path, what), False
        secret = make()
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
    except (OSError, UnicodeDecodeError) as error:
        msg = (
            f"{what} file {path.absolute()}: {error}: "
            f"give this program permission, or set {instead}"
        )
        raise SecretFileUnavailable(msg) from error
    return SecretStr(secret), True


def _read(path: Path, what: str) -> SecretStr:
    secret = path.read_text().strip()
    if not secret:
        msg = f"{what} file {path.absolute()} is empty: delete it to have a new one made"
        raise SecretFileUnavailable(msg)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        log.warning("! a secret's file was readable by others, closed it", file=str(path))
    return SecretStr(secret)
