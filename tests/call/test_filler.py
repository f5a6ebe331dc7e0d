"""What a caller hears while a tool takes long."""

import pytest

from agent.call.filler import Fill, Filler, heard_ms


@pytest.mark.parametrize(
    ("phrase", "after_ms", "looks", "expected"),
    [
        pytest.param(
            "",
            1500,
            [(0, 0), (0, 1499), (0, 1500), (0, 9000)],
            ["nothing", "nothing", "tone", "tone"],
            id="a tone, as long as it takes",
        ),
        pytest.param(
            "One moment.",
            1500,
            [(0, 1500), (0, 1520), (2600, 2700), (2600, 4099), (2600, 4100)],
            ["phrase", "nothing", "nothing", "nothing", "tone"],
            id="words once, then a tone",
        ),
        pytest.param(
            "One moment.",
            1500,
            [(0, 1500), (0, 2999), (0, 3000)],
            ["phrase", "nothing", "tone"],
            id="words that never came",
        ),
        pytest.param(
            "",
            1500,
            [(0, 1500), (1600, 1600), (1600, 3099), (1600, 3100)],
            ["tone", "nothing", "nothing", "tone"],
            id="the agent speaks in between",
        ),
        pytest.param(
            "One moment.",
            1500,
            [(0, 1500), (None, 1600), (2000, 3499), (2000, 3500)],
            ["phrase", "nothing", "nothing", "phrase"],
            id="the next tool",
        ),
        pytest.param("One moment.", 0, [(0, 99_999)], ["nothing"], id="switched off"),
    ],
)
def test_filling(
    phrase: str, after_ms: int, looks: list[tuple[int | None, int]], expected: list[Fill]
) -> None:
    """Silence is filled after a while, and only while it lasts."""
    filler = Filler(after_ms, phrase)
    assert [filler.look(quiet_since_ms, now_ms) for quiet_since_ms, now_ms in looks] == expected


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([], 0, id="nothing"),
        pytest.param([(0, 100), (500, 5000)], 0, id="before and after"),
        pytest.param([(0, 150), (180, 190), (250, 999)], 50 + 10 + 50, id="across the edges"),
    ],
)
def test_what_was_heard_in_between(runs: list[tuple[int, int]], expected: int) -> None:
    """Only what falls into the time counts."""
    assert heard_ms(runs, 100, 300) == expected
