"""Wrong configuration is answered with file, key, value found and what is accepted."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.call.settings import RecoverySettings
from agent.settings import ConfigurationError, Settings, load_settings

INTERFACE_EXAMPLE = """
[sip]
listen = "127.0.0.1:5060"
public_address = ""
rtp_ports = "16384-18383"
max_calls = 0
[realtime]
provider = "auto"
base_url = "https://api.openai.com/v1"
model = "gpt-realtime-2.1"
transport = "webrtc"
codec = "opus"
connect_timeout_s = 8
[database]
url = "sqlite:///trunkline.db"
[admin]
listen = "127.0.0.1:8080"
[recording]
enabled = false
folder = "recordings"
[limits]
max_call_s = 3600
drain_timeout_s = 30
[[agents]]
name = "receptionist"
instructions = "You answer the phone for a bakery. Be brief."
greeting = "Hello, this is the bakery. How can I help?"
voice = "marin"
tools = ["hang_up", "transfer", "weather"]
[[trunks]]
name = "carrier"
allow = ["203.0.113.0/24"]
transport = "udp"
srtp = "off"
codecs = ["PCMU", "PCMA"]
[[routes]]
did = "+15550100"
agent = "receptionist"
"""


def load(tmp_path: Path, text: str, **environment: str) -> Settings:
    file = tmp_path / "trunkline.toml"
    file.write_text(text)
    return load_settings(file, environment)


def test_documented_prices_and_budgets_are_accepted(tmp_path: Path) -> None:
    """What docs/money.md shows can be pasted and used, and says what we ship."""
    text = (Path(__file__).parents[1] / "docs" / "money.md").read_text(encoding="utf-8")
    settings = load(tmp_path, text.split("```toml")[1].split("```")[0])
    assert settings.limits.budget.day_usd == 100
    assert settings.limits.zone == ZoneInfo("Europe/Brussels")
    shipped, today = load(tmp_path, "").price_list, date(2026, 11, 21)
    for price in settings.prices:
        assert price == shipped.price_of(price.model, today)


def test_documented_recovery_is_accepted(tmp_path: Path) -> None:
    """What docs/recovery.md shows can be pasted and used, and says what the defaults are."""
    text = (Path(__file__).parents[1] / "docs" / "recovery.md").read_text(encoding="utf-8")
    settings = load(tmp_path, text.split("```toml")[1].split("```")[0])
    assert settings.recovery == RecoverySettings()
    assert settings.uses_embedded
    assert settings.fallback.transfer == "sip:reception@192.0.2.10"


def test_documented_example_is_accepted(tmp_path: Path) -> None:
    """What the documentation shows can be pasted and used."""
    settings = load(tmp_path, INTERFACE_EXAMPLE)
    assert settings.answering_agents[0].tools == ("hang_up", "transfer", "weather")
    assert settings.trunks[0].allow == ("203.0.113.0/24",)
    assert settings.provider == "embedded"


def test_no_file_means_one_built_in_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer needs no file: one agent answers every number."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, {})
    assert [agent.name for agent in settings.answering_agents] == ["receptionist"]
    assert settings.routes == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("[sip\nlisten = 1", ["trunkline.toml", "not valid TOML", "line 1"], id="toml"),
        pytest.param(
            '[sip]\nlisten_on = "x"',
            ["trunkline.toml", "sip.listen_on", "unknown key", "accepted are", "listen, "],
            id="unknown key",
        ),
        pytest.param("[sipp]\nx = 1", ["sipp", "unknown key", "realtime"], id="unknown section"),
        pytest.param(
            '[realtime]\nconnect_timeout_s = "soon"',
            ["realtime.connect_timeout_s", "'soon'", "number"],
            id="wrong type",
        ),
        pytest.param(
            '[sip]\nlisten = "here"', ["sip.listen", "'here'", "host:port"], id="no address"
        ),
        pytest.param(
            '[sip]\nrtp_ports = "9-5"', ["sip.rtp_ports", "'9-5'", "low-high"], id="bad range"
        ),
        pytest.param(
            '[[trunks]]\nname = "c"\nallow = ["nowhere"]',
            ["trunks.0.allow.0", "'nowhere'", "203.0.113.0/24"],
            id="bad network",
        ),
        pytest.param(
            '[fallback]\nannouncement = "none.wav"',
            ["fallback.announcement", "'none.wav'", "file"],
            id="no announcement there",
        ),
        pytest.param(
            f'[fallback]\nannouncement = "{__file__}"',
            ["fallback.announcement", "cannot be read as WAV"],
            id="an announcement that is no WAV",
        ),
        pytest.param(
            '[[trunks]]\nname = "c"\nfallback = {transfer = "reception"}',
            ["trunks.0.fallback.transfer", "'reception'", "sip"],
            id="a transfer to no address",
        ),
        pytest.param(
            "[realtime.standby]\nspeed = 9", ["realtime.standby.speed", "9", "1.5"], id="stand-by"
        ),
        pytest.param(
            '[realtime.standby]\nmodel = "m"\napi_key = "sk-1"',
            ["realtime.standby.api_key", "TRUNKLINE_REALTIME__STANDBY__API_KEY"],
            id="the stand-by's key in the file",
        ),
        pytest.param(
            "[recovery]\nattempts = -1",
            ["recovery.attempts", "-1", "0"],
            id="fewer than no attempts",
        ),
        pytest.param(
            '[[routes]]\ndid = "*"\nagent = "nobody"',
            ["routes.*.agent", "'nobody'", "receptionist"],
            id="route to nobody",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ntools = ["fly"]',
            ["agents.a.tools", "'fly'", "hang_up"],
            id="unknown tool",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\n[[agents]]\nname = "a"', ["agents", "'a' twice"], id="twice"
        ),
        pytest.param("[[trunks]]\nallow = []", ["trunks.0.name", "missing"], id="missing name"),
        pytest.param(
            '[realtime]\napi_key = "sk-very-secret"',
            ["realtime.api_key", "secret", "OPENAI_API_KEY"],
            id="secret in the file",
        ),
        pytest.param(
            '[embedded]\napi_key = "of the embedded server"',
            ["embedded.api_key", "secret", "TRUNKLINE_EMBEDDED__API_KEY"],
            id="another secret in the file",
        ),
        pytest.param(
            '[database]\nurl = "mysql://u:hunter2@h/x"', ["database.url", "accepted"], id="database"
        ),
        pytest.param("[recording]\nenabled = true", ["recording.enabled", "True"], id="recording"),
        pytest.param(
            "[limits.budget]\nday_usd = -1",
            ["limits.budget.day_usd", "-1", "greater than 0"],
            id="budget below nothing",
        ),
        pytest.param(
            "[limits.budget]\nmonth_usd = 1",
            ["limits.budget.month_usd", "unknown key", "caller_day_usd"],
            id="unknown budget",
        ),
        pytest.param(
            '[limits]\ntimezone = "Mars"',
            ["limits.timezone", "'Mars'", "Europe/Brussels"],
            id="no such time zone",
        ),
        pytest.param(
            '[[prices]]\nmodel = "m"\nfrom = "soon"\ntext_in = 1',
            ["prices.0.from", "'soon'", "date"],
            id="price from no date",
        ),
        pytest.param(
            '[[prices]]\nmodel = "m"\nfrom = 2026-10-01\ntext_in = nan',
            ["prices.0.text_in", "finite number"],
            id="price of no number",
        ),
        pytest.param(
            '[[prices]]\nmodel = "m"\nfrom = 2026-10-01\ntext = 1',
            ["prices.0.text", "unknown key", "audio_in", "from, "],
            id="unknown price",
        ),
        pytest.param(
            '[[prices]]\nmodel = "m"\nfrom = 2026-10-01',
            ["prices.0", "at least one is needed"],
            id="price of nothing",
        ),
        pytest.param(
            '[[prices]]\nmodel = "m"\nfrom = 2026-10-01\ntext_in = 1\n' * 2,
            ["prices", "'m from 2026-10-01' twice"],
            id="price twice",
        ),
        pytest.param(
            '[interruption]\nguard = "loud"',
            ["interruption.guard", "'loud'", "'off', 'duck' or 'pause'"],
            id="unknown guard",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\n[agents.idle]\nafter = 3',
            ["agents.0.idle.after", "unknown key", "after_s, goodbye, question, times"],
            id="unknown key of an agent's own table",
        ),
        pytest.param(
            "[watchdog]\nsound_timeout_s = 0",
            ["watchdog.sound_timeout_s", "found 0", "greater than 0"],
            id="a watchdog without patience",
        ),
    ],
)
def test_wrong_configuration(tmp_path: Path, text: str, expected: list[str]) -> None:
    """The message names the file, the key, the value found and what is accepted; no secret."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert [part for part in expected if part not in message] == []
    assert "very-secret" not in message
    assert "hunter2" not in message


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file asked for by name must be there."""
    with pytest.raises(ConfigurationError, match=r"absent\.toml: there is no such file"):
        load_settings(tmp_path / "absent.toml", {})


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key has a variable, and a wrong value there is named as the variable."""
    monkeypatch.setenv("TRUNKLINE_SIP__LISTEN", "127.0.0.1:5099")
    settings = load(tmp_path, '[sip]\nlisten = "127.0.0.1:5060"\nmax_calls = 3')
    assert (settings.sip.listen, settings.sip.max_calls) == ("127.0.0.1:5099", 3)
    monkeypatch.setenv("TRUNKLINE_SIP__MAX_CALLS", "many")
    with pytest.raises(
        ConfigurationError, match=r"SIP__MAX_CALLS: found .many., accepted: .*integer"
    ):
        load(tmp_path, "", TRUNKLINE_SIP__MAX_CALLS="many")


def test_unknown_variable_is_refused(tmp_path: Path) -> None:
    """A misspelt variable must not be ignored silently."""
    with pytest.raises(ConfigurationError, match="TRUNKLINE_SPI__LISTEN: unknown"):
        load(tmp_path, "", TRUNKLINE_SPI__LISTEN="127.0.0.1:1")


@pytest.mark.parametrize("by_file", [False, True], ids=["OPENAI_API_KEY", "api_key_file"])
def test_key_makes_openai_the_provider_and_is_never_shown(tmp_path: Path, by_file: bool) -> None:
    """With a key the caller talks to OpenAI; the key appears in no text form."""
    key_file = tmp_path / "key"
    key_file.write_text("sk-very-secret\n")
    text = f'[realtime]\napi_key_file = "{key_file}"' if by_file else ""
    environment = {} if by_file else {"OPENAI_API_KEY": "sk-very-secret"}
    settings = load(tmp_path, text, **environment)
    assert settings.provider == "openai"
    assert settings.realtime.api_key is not None
    assert settings.realtime.api_key.get_secret_value() == "sk-very-secret"
    assert "very-secret" not in repr(settings) + str(settings.model_dump_json())


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        pytest.param('provider = "azure"', "REALTIME__API_KEY", id="a wrong table"),
        pytest.param("[realtime.standby]", "REALTIME__STANDBY__API_KEY", id="a table in it"),
        pytest.param("standby = 1", "REALTIME__SAFETY_KEY", id="a wrong value beside it"),
    ],
)
def test_a_table_that_is_refused_keeps_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, variable: str
) -> None:
    """What is said about a whole table shows no key that the environment put into it."""
    monkeypatch.setenv(f"TRUNKLINE_{variable}", "sk-very-secret")
    with pytest.raises(ConfigurationError, match=r"realtime.*accepted") as refused:
        load(tmp_path, f"[realtime]\n{text}")
    assert "very-secret" not in str(refused.value)


def test_the_documented_example_works_over_a_websocket(tmp_path: Path) -> None:
    """One key changed, and the default codec beside it, is no mistake: the caller's law goes."""
    text = INTERFACE_EXAMPLE.replace('"webrtc"', '"websocket"')
    realtime = load(tmp_path, text).realtime
    assert (realtime.transport, realtime.codec) == ("websocket", "opus")


def test_prices_are_shipped_and_can_be_replaced(tmp_path: Path) -> None:
    """A model named in the file is priced from there alone; the others as shipped."""
    text = '[[prices]]\nmodel = "gpt-realtime-2.1"\nfrom = 2026-01-01\naudio_in = 0.1'
    prices = load(tmp_path, text).price_list
    today = date(2026, 11, 21)
    own, shipped = (prices.price_of(name, today) for name in ("gpt-realtime-2.1", "gpt-transcribe"))
    assert own is not None
    assert (own.audio_in, own.text_in) == (Decimal("0.1"), None)
    assert shipped is not None
    assert shipped.per_minute == Decimal("0.0045")


@pytest.mark.parametrize(
    ("text", "environment", "priced"),
    [
        pytest.param("", {}, True, id="built in"),
        pytest.param("", {"OPENAI_API_KEY": "x"}, True, id="the default models"),
        pytest.param('[realtime]\nmodel = "new"', {"OPENAI_API_KEY": "x"}, False, id="a new one"),
    ],
)
def test_what_we_ship_can_be_priced(
    tmp_path: Path, text: str, environment: dict[str, str], priced: bool
) -> None:
    """The default models and the embedded server have a price; others need one."""
    settings = load(tmp_path, text, **environment)
    prices = settings.price_list
    found = [prices.price_of(model, date(2026, 11, 21)) for model in settings.billed_models]
    assert (None not in found) is priced
