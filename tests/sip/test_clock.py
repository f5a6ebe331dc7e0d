"""The 20 ms clock: its schedule without time, and one real turn of it."""

import asyncio

import pytest

from sip.clock import PhoneClock, TickSchedule
from sip.rtp_watch import RtpWatch, Verdict


@pytest.mark.parametrize(
    ("looks_s", "due", "late", "skipped"),
    [
        pytest.param([0.005, 0.02, 0.04, 0.06], [0, 1, 1, 1], 0, 0, id="in time"),
        pytest.param([0.0201, 0.0399, 0.04], [1, 0, 1], 0, 0, id="a little late is no drift"),
        pytest.param([0.065, 0.08], [3, 1], 2, 0, id="two late ticks are made good"),
        pytest.param([1.0201, 1.04], [5, 1], 50, 46, id="a second is not"),
        pytest.param([0.02, 0.02], [1, 0], 0, 0, id="never twice"),
    ],
)
def test_schedule(looks_s: list[float], due: list[int], late: int, skipped: int) -> None:
    """Ticks keep to their own time, catch up a little, and count what was late."""
    schedule = TickSchedule(0.0)
    assert [schedule.due(now_s) for now_s in looks_s] == due
    assert (schedule.late, schedule.skipped) == (late, skipped)


async def test_a_fault_does_not_stop_the_clock() -> None:
    """Polls and ticks go on after each has raised, and end with stop()."""
    counted = {"poll": 0, "tick": 0}
    went_on = asyncio.Event()

    def fail(step: str) -> None:
        counted[step] += 1
        if min(counted.values()) >= 2:
            went_on.set()
        raise RuntimeError(step)

    clock = PhoneClock(lambda: fail("poll"), lambda: fail("tick"))
    async with asyncio.timeout(5):
        await went_on.wait()
    clock.stop()
    clock.stop()
    at_stop = dict(counted)
    await asyncio.sleep(0.05)
    assert counted == at_stop


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param(
            [(0, 0.9, False), (0, 1.0, False), (0, 3.0, False)],
            [Verdict.FINE, Verdict.OTHER_PORT, Verdict.GONE],
            id="never heard",
        ),
        pytest.param(
            [(50, 1.0, False), (50, 3.9, False), (50, 4.0, False)],
            [Verdict.FINE, Verdict.FINE, Verdict.GONE],
            id="fell silent: its port is known, and no other becomes welcome",
        ),
        pytest.param(
            [(50, 1.0, False), (50, 9.0, True), (50, 11.9, False), (50, 12.0, False)],
            [Verdict.FINE, Verdict.FINE, Verdict.FINE, Verdict.GONE],
            id="silence on hold does not count",
        ),
        pytest.param(
            [(50, 2.0, False), (3, 4.5, False), (4, 7.0, False)],
            [Verdict.FINE, Verdict.FINE, Verdict.FINE],
            id="a new stream counts anew",
        ),
    ],
)
def test_rtp_watch(looks: list[tuple[int, float, bool]], expected: list[Verdict]) -> None:
    """A caller is gone after the timeout without a packet, and not before."""
    watch = RtpWatch(3.0)
    watch.begin(0.0)
    assert [watch.look(n, now_s, on_hold=hold) for n, now_s, hold in looks] == expected


def test_rtp_watch_before_media() -> None:
    """Without media nobody is missed."""
    assert RtpWatch(3.0).look(0, 100.0, on_hold=False) is Verdict.FINE
