"""What docs/realtime.md shows can be pasted and used."""

from pathlib import Path

import pytest

from agent.profiles import profiles_of
from agent.realtime.session import SessionSettings
from agent.settings import load_settings

TEXT = (Path(__file__).parents[1] / "docs" / "realtime.md").read_text(encoding="utf-8")
BLOCKS = [block.split("```")[0] for block in TEXT.split("```toml")[1:]]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_blocks_are_accepted(tmp_path: Path, number: int) -> None:
    """Each block is a configuration, once the files it names are there."""
    for name in ("realtime", "safety", "turn"):
        (tmp_path / name).write_text("a secret")
    file = tmp_path / "trunkline.toml"
    file.write_text(BLOCKS[number].replace("/run/secrets", str(tmp_path)))
    assert profiles_of(load_settings(file, {}))


def test_every_field_is_shown() -> None:
    """Nobody has to read the code to find out what can be set."""
    missing = [key for key in SessionSettings.model_fields if key not in BLOCKS[0]]
    assert missing == []
