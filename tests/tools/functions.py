"""Functions as an admin would write them."""

import asyncio
import threading
import time
from datetime import date
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, Field

from agent.call.ports import ToolContext
from agent.tools.tool import ToolError


class Size(Enum):
    """How big."""

    SMALL = "small"
    LARGE = "large"


class Cake(BaseModel):
    """What is ordered."""

    size: Size
    count: Annotated[int, Field(ge=1, le=9)] = 1


async def order(
    cake: Cake, day: date, call: ToolContext, note: str | None = None
) -> dict[str, Any]:
    """Order a cake.

    Takes the order for the caller.

    Args:
        cake: Which cake.
        day: When it is fetched,
            as a date.
        call: Not for the model.
        note: Anything else.

    Returns:
        The order.
    """
    return {"for": call.caller_number, "cake": cake, "day": day, "note": note}


def thread_name(title: str) -> str:
    """Tell where this runs."""
    return f"{title} in {threading.current_thread().name}"


def refuse() -> None:
    """Refuse."""
    raise ToolError("The shop is closed.")


def crash() -> None:
    """Crash."""
    raise ZeroDivisionError("secret detail")


def sleep() -> None:
    """Sleep."""
    time.sleep(1)


async def hang() -> None:
    """Hang."""
    await asyncio.Event().wait()


def strange() -> object:
    """Return what is no JSON."""
    return object()


def silent(number: int) -> int:
    return number


def unhinted(number) -> str:  # type: ignore[no-untyped-def] # noqa: ANN001
    """Has no hint."""
    return str(number)


def variadic(*numbers: int) -> str:
    """Take any number of numbers."""
    return str(numbers)


def unspeakable(lock: threading.Lock) -> str:
    """Take what no model can give."""
    return str(lock)


NOT_A_FUNCTION = 7
