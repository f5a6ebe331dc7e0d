"""`trunkline check` tries the language model behind `embedded.chat_url`, and says what to do."""

import asyncio
from pathlib import Path

import pytest

from tests.embedded.model import STALL, open_model, words
from tests.fakes.trunkline import trunkline


@pytest.mark.parametrize(
    ("answer", "verdict", "text"),
    [
        pytest.param(words("Yes."), "ok", "the language model tiny at 127.0.0.1", id="speaks"),
        pytest.param(401, "FAIL", "set TRUNKLINE_EMBEDDED__CHAT_API_KEY", id="wrong key"),
        pytest.param(404, "FAIL", "correct embedded.chat_url", id="wrong address"),
        pytest.param([STALL], "FAIL", "raise embedded.chat_timeout_s", id="too slow"),
        pytest.param(words("**"), "FAIL", "nothing that can be spoken", id="no words"),
        pytest.param(None, "FAIL", "cannot be reached; is it running", id="not there"),
    ],
)
async def test_check_tries_the_language_model(
    tmp_path: Path, answer: list[str] | int | None, verdict: str, text: str
) -> None:
    """One line tells whether the model speaks, and otherwise how it will; no secret in it."""
    async with open_model() as server:
        server.answers = [] if answer is None else [answer]
        url = "http://127.0.0.1:9/v1" if answer is None else server.url
        environment = {
            "TRUNKLINE_SIP__LISTEN": "127.0.0.1:0",
            "TRUNKLINE_ADMIN__LISTEN": "127.0.0.1:0",
            "TRUNKLINE_EMBEDDED__CHAT_URL": url.replace("127.", "caller:sesame@127."),
            "TRUNKLINE_EMBEDDED__CHAT_MODEL": "tiny",
            "TRUNKLINE_EMBEDDED__CHAT_TIMEOUT_S": "1",
        }
        done = await asyncio.to_thread(trunkline, "check", folder=tmp_path, environment=environment)
    line = next(line for line in done.stdout.splitlines() if line[6:].startswith("mind"))
    assert line.startswith(verdict)
    assert text in line
    assert "sesame" not in done.stdout + done.stderr
