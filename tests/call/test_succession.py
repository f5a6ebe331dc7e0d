"""When a session is succeeded by another: in time, where nobody is cut off, and not for ever."""

import pytest

from agent.call.settings import RecoverySettings
from agent.call.succession import GiveUp, Open, Step, Succession, Switch

HOUR = RecoverySettings(session_max_s=3300, session_margin_s=300, attempts=2, backoff_s=0.5)


def begun(
    settings: RecoverySettings = HOUR, lasts_s: float | None = None, places: int = 1
) -> Succession:
    succession = Succession(settings, places)
    succession.began(0, lasts_s)
    return succession


@pytest.mark.parametrize(
    ("lasts_s", "due_s"),
    [
        pytest.param(None, 3300, id="nothing told: at 55 minutes"),
        pytest.param(3600, 3300, id="an hour: five minutes before"),
        pytest.param(1800, 1500, id="half an hour: five minutes before"),
        pytest.param(60, 30, id="shorter than the margin: half of it"),
        pytest.param(86_400, 3300, id="a day: at 55 minutes nevertheless"),
    ],
)
def test_a_successor_is_opened_in_time(lasts_s: float | None, due_s: int) -> None:
    """Not before it is due, then at once, and only one."""
    succession = begun(lasts_s=lasts_s)
    assert succession.look(due_s * 1000 - 20, is_quiet=True) is None
    assert succession.look(due_s * 1000, is_quiet=False) == Open(0)
    assert succession.look(due_s * 1000 + 20, is_quiet=False) is None


def test_it_takes_over_where_nobody_is_cut_off() -> None:
    """It waits as long as somebody speaks."""
    succession = begun(lasts_s=3600)
    succession.look(3_300_000, is_quiet=False)
    succession.opened()
    assert succession.look(3_350_000, is_quiet=False) is None
    assert isinstance(succession.look(3_350_020, is_quiet=True), Switch)


def test_it_takes_over_before_the_time_is_up_whoever_speaks() -> None:
    """A long story is cut rather than lost."""
    succession = begun(lasts_s=3600)
    succession.look(3_300_000, is_quiet=False)
    succession.opened()
    assert succession.look(3_597_900, is_quiet=False) is None
    assert isinstance(succession.look(3_598_000, is_quiet=False), Switch)


def test_the_successor_has_time_of_its_own() -> None:
    """After the switch, everything counts from there."""
    succession = begun(lasts_s=60)
    succession.look(30_000, is_quiet=True)
    succession.opened()
    assert isinstance(succession.look(31_000, is_quiet=True), Switch)
    succession.began(31_000, 60)
    assert succession.look(60_000, is_quiet=True) is None
    assert succession.look(61_000, is_quiet=True) == Open(0)


def test_a_lost_session_is_replaced_at_once() -> None:
    """Nobody waits for quiet: it is quiet enough."""
    succession = begun()
    succession.lost("the connection was lost", 100_000)
    assert succession.look(100_000, is_quiet=False) == Open(0)
    succession.opened()
    assert succession.look(100_200, is_quiet=False) == Switch("the connection was lost")


def test_attempts_are_counted_and_wait_longer_each_time() -> None:
    """Each provider gets its attempts, then there is no hope; the reason names the last failure."""
    succession = begun(places=2)
    succession.lost("lost", 100_000)
    now_ms, opened = 100_000, []
    for _ in range(2000):
        step = succession.look(now_ms, is_quiet=False)
        if isinstance(step, Open):
            opened.append((now_ms - 100_000, step.place))
            succession.failed("500", now_ms)
        elif isinstance(step, GiveUp):
            break
        now_ms += 20
    assert opened == [(0, 0), (500, 0), (1500, 1), (3500, 1)]
    assert step == GiveUp("lost; 500")


def test_a_session_that_hangs_while_it_opens_is_not_waited_for_long() -> None:
    """A caller is left without an agent for a limited time."""
    succession = begun(RecoverySettings(timeout_s=5))
    succession.lost("lost", 100_000)
    succession.look(100_000, is_quiet=False)
    assert succession.look(104_980, is_quiet=False) is None
    assert succession.look(105_000, is_quiet=False) == GiveUp("lost")


def lost_young(succession: Succession, at_ms: int) -> Step | None:
    """Lose the session, and say what is done within the next ten seconds."""
    succession.lost("dropped", at_ms)
    for now_ms in range(at_ms, at_ms + 10_000, 20):
        step = succession.look(now_ms, is_quiet=False)
        if isinstance(step, Open):
            succession.opened()
        elif isinstance(step, Switch):
            succession.began(now_ms, 3600)
            return step
        elif step is not None:
            return step
    return None


def test_sessions_that_die_young_use_up_the_attempts() -> None:
    """A far end that drops every session does not keep the caller for ever."""
    succession = begun()
    steps = [lost_young(succession, at_ms) for at_ms in (10_000, 15_000, 20_000)]
    assert steps == [Switch("dropped"), Switch("dropped"), GiveUp("dropped")]


def test_a_session_that_lasted_earns_new_attempts() -> None:
    """What failed half an hour ago does not count against a session that is lost now."""
    succession = begun()
    steps = [lost_young(succession, at_ms) for at_ms in (10_000, 15_000, 1_800_000, 1_805_000)]
    assert steps == [Switch("dropped")] * 4


@pytest.mark.parametrize(
    ("attempts", "is_begun"), [pytest.param(2, True, id="yes"), pytest.param(0, False, id="never")]
)
def test_a_session_that_is_of_no_use(attempts: int, is_begun: bool) -> None:
    """The watchdog gets another session, or is told at once that there is none."""
    succession = begun(RecoverySettings(attempts=attempts))
    assert succession.restart("mute", 100_000) is is_begun
    assert (succession.look(100_000, is_quiet=False) == Open(0)) is is_begun
    if is_begun:
        succession.opened()
        assert succession.look(100_200, is_quiet=False) == Switch("mute")


def test_a_useless_session_without_a_successor_is_given_up() -> None:
    """A caller is not left with a session that does nothing."""
    succession = begun(RecoverySettings(attempts=1))
    succession.restart("mute", 100_000)
    assert succession.look(100_000, is_quiet=False) == Open(0)
    succession.failed("500", 100_100)
    assert succession.look(100_120, is_quiet=False) == GiveUp("mute; 500")


def test_without_recovery_the_call_ends_with_its_session() -> None:
    """Nothing is tried, and the reason is the session's."""
    succession = begun(RecoverySettings(attempts=0))
    succession.lost("the connection was lost", 100_000)
    assert succession.look(100_000, is_quiet=False) == GiveUp("the connection was lost")


def test_a_renewal_that_fails_is_tried_until_it_works() -> None:
    """As long as the old session lives, no attempt is the last; they come ten seconds apart."""
    succession = begun(lasts_s=3600)
    now_ms, opened = 3_300_000, 0
    while now_ms < 3_597_000:
        if isinstance(succession.look(now_ms, is_quiet=True), Open):
            opened += 1
            succession.failed("429", now_ms)
        now_ms += 20
    assert 25 < opened < 40
    succession.lost("expired", 3_597_000)
    assert succession.look(3_597_000, is_quiet=False) == Open(0)
