"""Text from strangers cannot break a store or steer a reader."""

import pytest

from agent.call.clean import clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Alice", "Alice", id="plain"),
        pytest.param("a\x00b", "ab", id="NUL"),
        pytest.param("a\udcffb", "a\ufffdb", id="lone surrogate"),
        pytest.param("\x1b[31mred\x1b[0m", "[31mred[0m", id="terminal escape"),
        pytest.param("abc\u202etxt", "abctxt", id="bidi override"),
        pytest.param("a\r\nX-Evil: 1", "a  X-Evil: 1", id="header injection"),
        pytest.param("x" * 300, "x" * 255 + "…", id="capped"),
        pytest.param("Zoë 😀 日本", "Zoë 😀 日本", id="the world's text stays"),
        pytest.param("<b>'; DROP", "<b>'; DROP", id="harmless where escaped"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    """What is dangerous in any store goes; what merely looks odd stays."""
    result = clean(text)
    assert result == expected
    result.encode()
