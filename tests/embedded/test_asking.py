"""Words a client demands exactly are said without a language model; all other wishes are asked."""

import pytest

from agent.embedded.asking import exact_words


@pytest.mark.parametrize(
    ("instructions", "words"),
    [
        pytest.param(
            "Say exactly these words to the caller, in their language, and nothing else: "
            '"Hello, the bakery."',
            "Hello, the bakery.",
            id="Trunkline's own greeting",
        ),
        pytest.param("Say exactly the following: “Hello.”", "Hello.", id="typographic"),
        pytest.param(
            'Say exactly this: "Call "Ada"\nback."', 'Call "Ada" back.', id="quotes inside"
        ),
        pytest.param('Greet the caller: say "Hello" in your words.', "", id="free wording"),
        pytest.param("Name the topic: answer in JSON.", "", id="a colon is no demand"),
        pytest.param("Tell exactly what you know.", "", id="nothing quoted"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_exact_words(instructions: str, words: str) -> None:
    """Only what is quoted and demanded exactly is said as it stands."""
    assert exact_words(instructions) == words
