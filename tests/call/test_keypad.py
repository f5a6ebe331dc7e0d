"""Whose the caller's keys are."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.call.keypad import Keypad
from agent.call.ports import DigitsKeyed, DigitsWanted


async def keys(queue: asyncio.Queue[str]) -> AsyncIterator[str]:
    while True:
        yield await queue.get()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("wanted", "pressed", "expected", "left"),
    [
        pytest.param(
            DigitsWanted(3, "#", 5), "1234", DigitsKeyed("123", "count"), "4", id="enough"
        ),
        pytest.param(
            DigitsWanted(9, "#", 5), "12#4", DigitsKeyed("12", "terminator"), "4", id="terminated"
        ),
        pytest.param(
            DigitsWanted(9, "", 0.05), "12#", DigitsKeyed("12#", "timeout"), "", id="no terminator"
        ),
        pytest.param(DigitsWanted(4, "#", 0.05), "", DigitsKeyed("", "timeout"), "", id="none"),
    ],
)
async def test_collecting(
    wanted: DigitsWanted, pressed: str, expected: DigitsKeyed, left: str
) -> None:
    """While a tool waits, keys are its own; before and after they are anybody's."""
    others: list[str] = []
    queue: asyncio.Queue[str] = asyncio.Queue()
    keypad = Keypad(others.append)
    listening = asyncio.create_task(keypad.listen(keys(queue)))
    queue.put_nowait("A")
    await settle()
    collecting = asyncio.create_task(keypad.collect(wanted))
    await settle()
    assert keypad.is_collecting
    for key in pressed:
        queue.put_nowait(key)
        await settle()
    async with asyncio.timeout(5):
        assert await collecting == expected
    assert not keypad.is_collecting
    assert others == ["A", *left]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
