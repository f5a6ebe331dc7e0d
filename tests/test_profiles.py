"""Which agent takes a call, in which region, and what it is told of it."""

from pathlib import Path

import pytest

from agent.call.ports import CallOffer
from agent.profiles import addresses_of, for_call, profiles_of, regions_of
from agent.realtime.session import with_own
from agent.settings import load_settings

CONFIG = """
[realtime]
provider = "openai"
base_url = "https://world.example/v1"
voice = "cedar"
[[agents]]
name = "anna"
instructions = "You are {agent}, called by {caller}."
initial_message = "Via {trunk}."
[[agents]]
name = "bert"
base_url = "https://own.example/v1"
voice = "ash"
[[trunks]]
name = "east"
base_url = "https://east.example/v1"
[[trunks]]
name = "west"
"""


@pytest.mark.parametrize(
    ("agent", "trunk", "is_embedded", "expected"),
    [
        pytest.param("anna", "west", False, "https://world.example/v1", id="of all"),
        pytest.param("anna", "east", False, "https://east.example/v1", id="of the trunk"),
        pytest.param("bert", "west", False, "https://own.example/v1", id="of the agent"),
        pytest.param("bert", "east", False, "https://own.example/v1", id="agent before trunk"),
        pytest.param("bert", "east", True, "https://world.example/v1", id="embedded has no region"),
    ],
)
def test_region(tmp_path: Path, agent: str, trunk: str, is_embedded: bool, expected: str) -> None:
    """The provider's address is the agent's, else the trunk's, else everybody's."""
    file = tmp_path / "trunkline.toml"
    file.write_text(CONFIG)
    settings = load_settings(file, {})
    offer = CallOffer("c", "s", trunk, "100", "200", 0.0)
    profile = for_call(
        profiles_of(settings)[agent], offer, regions_of(settings), is_embedded=is_embedded
    )
    assert with_own(settings.realtime, profile.own_settings).base_url == expected
    assert addresses_of(settings) == {
        "https://world.example/v1",
        "https://east.example/v1",
        "https://own.example/v1",
    }


def test_what_an_agent_is_told(tmp_path: Path) -> None:
    """The call's facts are in what the agent reads, and its voice is its own or everybody's."""
    file = tmp_path / "trunkline.toml"
    file.write_text(CONFIG)
    profiles = profiles_of(load_settings(file, {}))
    offer = CallOffer("c", "s", "west", "100", "200", 0.0)
    told = for_call(profiles["anna"], offer, {}, is_embedded=False)
    assert told.instructions.startswith("You are <<<anna>>>, called by <<<200>>>.\n")
    assert told.initial_message.startswith("Via <<<west>>>.\n")
    assert [profile.voice for profile in profiles.values()] == ["cedar", "ash"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('provider = "embedded"', set(), id="embedded"),
        pytest.param("", set(), id="embedded by default"),
        pytest.param('provider = "openai"', {"https://api.openai.com/v1"}, id="openai"),
        pytest.param(
            'provider = "embedded"\n[realtime.standby]\nprovider = "openai"\nmodel = "m"',
            {"https://api.openai.com/v1"},
            id="a stand-by far away",
        ),
        pytest.param(
            'provider = "openai"\n[realtime.standby]\nbase_url = "https://two.example/v1"',
            {"https://api.openai.com/v1", "https://two.example/v1"},
            id="two providers",
        ),
        pytest.param(
            'provider = "openai"\n[realtime.standby]\nprovider = "embedded"',
            {"https://api.openai.com/v1"},
            id="a stand-by here",
        ),
    ],
)
def test_addresses(tmp_path: Path, text: str, expected: set[str]) -> None:
    """What is kept warm is what calls may go to, and nothing when all stays on this machine."""
    file = tmp_path / "trunkline.toml"
    file.write_text(f"[realtime]\n{text}\n")
    assert addresses_of(load_settings(file, {})) == expected
