"""Tools in the configuration: secrets by name only, every mistake named with file and key."""

from pathlib import Path

import pytest

from agent.settings import ConfigurationError, Settings, load_settings

HTTP = """
[[tools.http]]
name = "order_status"
description = "Look up an order."
url = "https://shop.example/orders/{number}"
parameters = {type = "object", properties = {number = {type = "string"}}, required = ["number"]}
"""


def load(tmp_path: Path, text: str, **environment: str) -> Settings:
    file = tmp_path / "trunkline.toml"
    file.write_text(text)
    return load_settings(file, environment)


def test_documented_examples_are_accepted(tmp_path: Path) -> None:
    """What docs/tools.md shows can be used as it stands."""
    document = (Path(__file__).parents[2] / "docs" / "tools.md").read_text()
    blocks = document.split("```toml\n")[1:]
    text = "\n".join(block.partition("```")[0] for block in blocks)
    secret = tmp_path / "crm-token"
    secret.write_text("t0ken\n")
    text = text.replace("/etc/trunkline/crm-token", str(secret))
    settings = load(tmp_path, text, CRM_KEY="k3y", PATH="/bin", OPENAI_API_KEY="sk-ours")
    crm = next(server for server in settings.tools.mcp if server.command)
    assert {name: it.get_secret_value() for name, it in crm.secret_env.items()} == {
        "CRM_KEY": "k3y"
    }
    assert crm.base_env == {"PATH": "/bin"}
    http = settings.tools.http[0]
    assert http.secret_headers["Authorization"].get_secret_value() == "t0ken"
    assert "k3y" not in repr(settings)
    assert "t0ken" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            '[[agents]]\nname = "a"\ntools = ["fly"]', "agents.a.tools: found 'fly'", id="no tool"
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ntools = ["crm.*"]', "found 'crm.*'", id="no such server"
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ntimezone = "Mars"',
            "found 'Mars', accepted: an IANA",
            id="zone",
        ),
        pytest.param(
            HTTP + 'headers = {Authorization = "hush"}', "headers_file", id="secret in file"
        ),
        pytest.param(
            HTTP + 'headers_file = {Authorization = "/none"}', "'/none', which cannot", id="no file"
        ),
        pytest.param(
            HTTP + 'headers_env = {Authorization = "NONE"}', "no NONE; set it", id="no variable"
        ),
        pytest.param(
            HTTP + 'secret_headers = {Authorization = "x"}', "unknown key", id="through the back"
        ),
        pytest.param(HTTP + 'verb = "GET"', "unknown key; accepted are: allow_private", id="key"),
        pytest.param(HTTP + HTTP, "'order_status' names two tools", id="twice"),
        pytest.param(HTTP.replace("order_status", "hang_up"), "'hang_up' names two", id="built in"),
        pytest.param(
            '[tools]\nhttp_hosts = ["crm.example"]' + HTTP, "host 'shop.example'", id="host"
        ),
        pytest.param(
            '[[tools.transfer.targets]]\nname = "x"\nuri = "sip:a@b>;x=<"', "uri", id="no uri"
        ),
        pytest.param('[[tools.python]]\nfunction = "shop"', "tools.python.0.function", id="python"),
        pytest.param('[[tools.mcp]]\nname = "crm"\ntools = ["*"]', "a command or a url", id="mcp"),
        pytest.param(
            '[[tools.mcp]]\nname = "crm"\ncommand = ["x"]\ntools = ["*"]\nenv = {API_KEY = "hush"}',
            "only what is no secret (API_KEY looks like one)",
            id="secret in env",
        ),
        pytest.param(
            '[[tools.mcp]]\nname = "crm"\ncommand = ["x"]\ntools = ["*"]\nenv_from = ["NONE"]',
            "no NONE; set it",
            id="variable to pass on",
        ),
        pytest.param(
            "[tools]\nfiller_after_s = -1", "tools.filler_after_s: found -1", id="negative"
        ),
        pytest.param("tools = 7", "tools: found 7", id="no table"),
        pytest.param('[tools]\nhttp = "x"', "tools.http", id="no list"),
    ],
)
def test_wrong_configuration(tmp_path: Path, text: str, expected: str) -> None:
    """One message names the place, what was found and what is accepted; no secret is shown."""
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, text)
    assert expected in str(refused.value)
    assert "trunkline.toml" in str(refused.value)
    assert "hush" not in str(refused.value)
