"""The session an agent gets: what `[realtime]` says, and what `[[agents]]` says otherwise."""

from pathlib import Path
from typing import Any

import pytest
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from agent.embedded.session_object import default_session, merge_session
from agent.profiles import profiles_of
from agent.realtime.session import session_of, with_own
from agent.settings import ConfigurationError, load_settings

CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)


def session(tmp_path: Path, text: str, agent: str = "a") -> dict[str, Any]:
    """The session object of one agent, as a configuration file has it."""
    file = tmp_path / "trunkline.toml"
    file.write_text(text if "[[agents]]" in text else text + '\n[[agents]]\nname = "a"\n')
    settings = load_settings(file, {})
    profile = profiles_of(settings)[agent]
    return session_of(profile, with_own(settings.realtime, profile.own_settings))


def at(found: object, path: str) -> object:
    for part in path.split("."):
        assert isinstance(found, dict)
        found = found[part]
    return found


FIELDS = [
    pytest.param("speed = 1.25", "audio.output.speed", 1.25, id="speed"),
    pytest.param('voice = "cedar"', "audio.output.voice", "cedar", id="voice"),
    pytest.param('voice = "voice_7"', "audio.output.voice", {"id": "voice_7"}, id="own voice"),
    pytest.param(
        "turn_detection = {threshold = 0.7, prefix_padding_ms = 200, silence_duration_ms = 400,"
        " idle_timeout_ms = 6000, interrupt_response = false}",
        "audio.input.turn_detection",
        {
            "type": "server_vad",
            "threshold": 0.7,
            "prefix_padding_ms": 200,
            "silence_duration_ms": 400,
            "idle_timeout_ms": 6000,
            "create_response": True,
            "interrupt_response": False,
        },
        id="server_vad",
    ),
    pytest.param(
        'turn_detection = {type = "semantic_vad", eagerness = "high"}',
        "audio.input.turn_detection",
        {
            "type": "semantic_vad",
            "eagerness": "high",
            "create_response": True,
            "interrupt_response": True,
        },
        id="semantic_vad",
    ),
    pytest.param(
        'noise_reduction = "far_field"',
        "audio.input.noise_reduction",
        {"type": "far_field"},
        id="noise reduction",
    ),
    pytest.param(
        'noise_reduction = {type = "near_field", strength = 0.5}',
        "audio.input.noise_reduction",
        {"type": "near_field", "strength": 0.5},
        id="noise reduction with its strength",
    ),
    pytest.param(
        'noise_reduction = "off"', "audio.input.noise_reduction", None, id="no noise reduction"
    ),
    pytest.param(
        'transcription = {model = "ears", language = "de", languages = ["de", "en"],'
        ' prompt = "Bread.", keywords = ["rye"], delay = "low"}',
        "audio.input.transcription",
        {
            "model": "ears",
            "language": "de",
            "languages": ["de", "en"],
            "prompt": "Bread.",
            "keywords": ["rye"],
            "delay": "low",
        },
        id="transcription",
    ),
    pytest.param("max_output_tokens = 900", "max_output_tokens", 900, id="tokens"),
    pytest.param('max_output_tokens = "inf"', "max_output_tokens", "inf", id="any tokens"),
    pytest.param('truncation = "disabled"', "truncation", "disabled", id="no truncation"),
    pytest.param(
        'truncation = {type = "retention_ratio", retention_ratio = 0.8,'
        " token_limits = {post_instructions = 8000}}",
        "truncation",
        {
            "type": "retention_ratio",
            "retention_ratio": 0.8,
            "token_limits": {"post_instructions": 8000},
        },
        id="truncation",
    ),
    pytest.param('tracing = "auto"', "tracing", "auto", id="tracing"),
    pytest.param('tracing = "off"', "tracing", None, id="no tracing"),
    pytest.param(
        'tracing = {workflow_name = "phone", group_id = "g", metadata = {a = "b"}}',
        "tracing",
        {"workflow_name": "phone", "group_id": "g", "metadata": {"a": "b"}},
        id="a named trace",
    ),
    pytest.param(
        'prompt = {id = "pmpt_1", version = "2", variables = {city = "Oslo"}}',
        "prompt",
        {"id": "pmpt_1", "version": "2", "variables": {"city": "Oslo"}},
        id="prompt",
    ),
    pytest.param('reasoning = "low"', "reasoning", {"effort": "low"}, id="reasoning"),
    pytest.param("parallel_tool_calls = false", "parallel_tool_calls", False, id="one tool"),
    pytest.param('tool_choice = "required"', "tool_choice", "required", id="tool choice"),
    pytest.param(
        'tool_choice = {type = "function", name = "weather"}',
        "tool_choice",
        {"type": "function", "name": "weather"},
        id="this tool",
    ),
    pytest.param(
        'include = ["item.input_audio_transcription.logprobs"]',
        "include",
        ["item.input_audio_transcription.logprobs"],
        id="include",
    ),
]


@pytest.mark.parametrize("where", ["[realtime]", '[[agents]]\nname = "a"'])
@pytest.mark.parametrize(("key", "path", "expected"), FIELDS)
def test_field(tmp_path: Path, where: str, key: str, path: str, expected: object) -> None:
    """Every field can be set for all agents or for one, and is sent as the API has it."""
    found = session(tmp_path, f"{where}\n{key}\n")
    assert at(found, path) == expected
    CLIENT_EVENT.validate_python({"type": "session.update", "session": found})
    if "prompt" not in found:  # none are stored there
        merge_session(default_session("sess_1", 0), found, is_new=True)


def test_nothing_is_asked_for_that_nobody_configured(tmp_path: Path) -> None:
    """A model that does not know a field refuses the session, so it is not named by default."""
    found = session(tmp_path, "")
    assert found.keys() == {
        "type", "instructions", "output_modalities", "tool_choice", "tools", "audio",
    }  # fmt: skip
    assert found["audio"]["input"].keys() == {"turn_detection", "transcription"}
    assert found["audio"]["output"].keys() == {"voice"}


@pytest.mark.parametrize(
    ("realtime", "agent", "path", "expected"),
    [
        pytest.param(
            'transcription = {model = "ears", keywords = ["rye"]}',
            'transcription = {language = "de"}',
            "audio.input.transcription",
            {"model": "ears", "keywords": ["rye"], "language": "de"},
            id="a table is added to",
        ),
        pytest.param(
            "turn_detection = {threshold = 0.7}",
            "turn_detection = {silence_duration_ms = 300}",
            "audio.input.turn_detection.threshold",
            0.7,
            id="turn detection of the same kind is added to",
        ),
        pytest.param(
            "turn_detection = {interrupt_response = false}",
            'turn_detection = "semantic_vad"',
            "audio.input.turn_detection",
            {
                "type": "semantic_vad",
                "eagerness": "auto",
                "create_response": True,
                "interrupt_response": True,
            },
            id="turn detection of another kind replaces",
        ),
        pytest.param(
            'turn_detection = {type = "semantic_vad", eagerness = "low"}',
            "turn_detection = {interrupt_response = false}",
            "audio.input.turn_detection.eagerness",
            "low",
            id="what both kinds have is added to either",
        ),
        pytest.param(
            'voice = "cedar"', 'timezone = "UTC"', "audio.output.voice", "cedar", id="inherited"
        ),
        pytest.param(
            'voice = "cedar"', 'voice = "ash"', "audio.output.voice", "ash", id="replaced"
        ),
    ],
)
def test_an_agents_own(
    tmp_path: Path, realtime: str, agent: str, path: str, expected: object
) -> None:
    """What an agent says goes before what all say, key by key."""
    text = f'[realtime]\n{realtime}\n[[agents]]\nname = "a"\n{agent}\n'
    assert at(session(tmp_path, text), path) == expected


def test_a_guard_takes_turns_itself(tmp_path: Path) -> None:
    """With a guard, the far end neither stops nor answers by itself, whatever the VAD is."""
    text = '[realtime]\nturn_detection = "semantic_vad"\n[interruption]\nguard = "pause"\n'
    detection = at(session(tmp_path, text), "audio.input.turn_detection")
    assert isinstance(detection, dict)
    assert detection["create_response"] is detection["interrupt_response"] is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "temperature = 0.8", ["realtime.temperature", "unknown key"], id="temperature"
        ),
        pytest.param("speed = 3", ["realtime.speed", "found 3", "1.5"], id="too fast"),
        pytest.param(
            "turn_detection = {eagerness = 'low'}",
            ["realtime.turn_detection", "server_vad has no eagerness"],
            id="eagerness of a server_vad",
        ),
        pytest.param(
            "turn_detection = {type = 'semantic_vad', threshold = 0.5}",
            ["realtime.turn_detection", "semantic_vad has no threshold"],
            id="threshold of a semantic_vad",
        ),
        pytest.param(
            "turn_detection = {create_response = false}",
            ["realtime.turn_detection.create_response", "found False", "True"],
            id="an agent that never answers",
        ),
        pytest.param(
            "turn_detection = {thresold = 0.5}",
            ["realtime.turn_detection.thresold", "unknown key", "threshold"],
            id="misspelt in a table",
        ),
        pytest.param(
            "max_output_tokens = 9999",
            ["realtime.max_output_tokens", "found 9999", '1 to 4096, or "inf"'],
            id="too many tokens",
        ),
        pytest.param(
            "truncation = 'retention_ratio'",
            ["realtime.truncation", 'retention_ratio together with type = "retention_ratio"'],
            id="a ratio that is not given",
        ),
        pytest.param("tracing = 'on'", ["realtime.tracing", "'off', 'auto'"], id="tracing"),
        pytest.param("reasoning = 'much'", ["realtime.reasoning.effort", "'much'"], id="reasoning"),
        pytest.param("tool_choice = 'any'", ["realtime.tool_choice", '"required"'], id="tools"),
        pytest.param("include = ['x']", ["realtime.include.0", "'x'"], id="include"),
        pytest.param(
            "ice_servers = ['nonsense']",
            ["realtime.ice_servers.0.urls.0", "'nonsense'", "stun:HOST"],
            id="no ICE server",
        ),
        pytest.param(
            "ice_servers = ['turn:10.0.0.1']",
            ["realtime.ice_servers.0", "credential_file or credential_env"],
            id="a TURN server without credentials",
        ),
        pytest.param(
            "ice_servers = [{urls = 'turn:10.0.0.1', username = 'a', credential = 'b'}]",
            ["ice_servers.0.credential", "found a secret in the file", "credential_env"],
            id="a credential in the file",
        ),
        pytest.param(
            "ice_servers = ['stun:10.0.0.1', 'stun:10.0.0.2']",
            ["realtime", "one STUN URL at most"],
            id="more servers than are used",
        ),
        pytest.param(
            "provider = 'azure'",
            ["realtime", "base_url", "openai.azure.com/openai/v1"],
            id="azure somewhere else",
        ),
        pytest.param(
            "safety_key = 'abc'",
            ["realtime.safety_key", "found a secret in the file", "safety_key_file"],
            id="safety key in the file",
        ),
        pytest.param(
            "organization = 'a b'", ["realtime.organization", "'a b'"], id="no header value"
        ),
        pytest.param(
            "[[agents]]\nname = 'a'\ninstructions = 'Hi {name}'",
            ["agents.0.instructions", "{did}", "not {name}", "{{name}}"],
            id="unknown variable",
        ),
        pytest.param(
            "[[agents]]\nname = 'a'\ninstructions = '{header:X-A}'",
            ["agents.a.instructions", "{header:X-A}", 'headers = ["X-A"]', "[[trunks]]"],
            id="a header that no trunk lets in",
        ),
        pytest.param(
            "[[trunks]]\nname = 't'\nheaders = ['X A']",
            ["trunks.0.headers.0", "'X A'"],
            id="no header name",
        ),
        pytest.param(
            "[[agents]]\nname = 'a'\napi_key = 'x'",
            ["agents.0.api_key", "unknown key", "base_url, ", "voice"],
            id="what only all agents have",
        ),
    ],
)
def test_wrong(tmp_path: Path, text: str, expected: list[str]) -> None:
    """The message names the key, what was found and what is accepted."""
    with pytest.raises(ConfigurationError) as caught:
        session(tmp_path, f"[realtime]\n{text}\n")
    for part in expected:
        assert part in str(caught.value)


def test_secrets_come_from_files_and_variables(tmp_path: Path) -> None:
    """Credentials of ICE servers and the safety key are read where they are named, and hidden."""
    (tmp_path / "safety").write_text("pepper\n")
    file = tmp_path / "trunkline.toml"
    file.write_text(
        f'[realtime]\nsafety_key_file = "{tmp_path}/safety"\n[[realtime.ice_servers]]\n'
        'urls = ["turn:10.0.0.1:3478?transport=tcp"]\nusername = "u"\ncredential_env = "TURN"\n'
    )
    realtime = load_settings(file, {"TURN": "sesame"}).realtime
    [server] = realtime.ice_servers
    assert server.credential is not None
    assert server.credential.get_secret_value() == "sesame"
    assert realtime.safety_key is not None
    assert realtime.safety_key.get_secret_value() == "pepper"
    assert "sesame" not in repr(realtime)
    assert "pepper" not in repr(realtime)
