"""What a user of the command line sees when something is wrong: one message, never a traceback."""

import itertools
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.trunkline import plain_environment, serving, trunkline


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on 127.0.0.1 that somebody else uses, for UDP and TCP alike."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        yield port


def refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    """It ended with 2 and one message that says everything expected."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert [part for part in expected if part not in message] == [], done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("[sip", ("trunkline.toml", "not valid TOML"), id="broken TOML"),
        pytest.param("[sip]\nlisen = 1", ("sip.lisen", "unknown key", "listen"), id="unknown key"),
        pytest.param(
            '[limits]\nmax_call_s = "long"',
            ("limits.max_call_s", "'long'", "integer"),
            id="wrong type",
        ),
    ],
)
@pytest.mark.parametrize("command", ["serve", "check", "calls list", "db upgrade"])
def test_wrong_configuration(
    tmp_path: Path, command: str, text: str, expected: tuple[str, ...]
) -> None:
    """Every command refuses a wrong file in the same words."""
    (tmp_path / "trunkline.toml").write_text(text)
    refused(trunkline(*command.split(), folder=tmp_path), *expected)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file named with -c must exist."""
    refused(trunkline("serve", "-c", "absent.toml", folder=tmp_path), "absent.toml", "no such file")


def test_sip_port_in_use(tmp_path: Path, taken_port: int) -> None:
    """Another program on the SIP port: named, with what to do."""
    environment = {
        "TRUNKLINE_SIP__LISTEN": f"127.0.0.1:{taken_port}",
        "TRUNKLINE_ADMIN__LISTEN": "127.0.0.1:0",
        "OPENAI_API_KEY": "unused",
    }
    done = trunkline("serve", folder=tmp_path, environment=environment)
    refused(done, f"127.0.0.1:{taken_port}", "[sip] listen")


def test_admin_port_in_use(tmp_path: Path, taken_port: int) -> None:
    """Another program on the admin port: named, with what to do."""
    environment = {
        "TRUNKLINE_SIP__LISTEN": "127.0.0.1:0",
        "TRUNKLINE_ADMIN__LISTEN": f"127.0.0.1:{taken_port}",
        "OPENAI_API_KEY": "unused",
    }
    done = trunkline("serve", folder=tmp_path, environment=environment)
    refused(done, f"127.0.0.1:{taken_port}", "admin.listen")


def test_database_newer_than_the_code(tmp_path: Path) -> None:
    """A database of a later version is not touched."""
    assert trunkline("db", "upgrade", folder=tmp_path).returncode == 0
    with closing(sqlite3.connect(tmp_path / "trunkline.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    done = trunkline("serve", folder=tmp_path, environment={"OPENAI_API_KEY": "unused"})
    refused(done, "trunkline.db", "newer")


def test_no_permission_to_write_the_database(tmp_path: Path) -> None:
    """A folder that may not be written: the file is named. No process is above it."""
    folder = tmp_path / "kept"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    # Root may write everywhere; without these two capabilities it is like anybody else.
    as_anybody = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    done = subprocess.run(
        [*(as_anybody if os.getuid() == 0 else []), sys.executable, "-m", "agent.main", "serve"],
        cwd=folder, env=plain_environment({"OPENAI_API_KEY": "unused"}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    refused(done, "trunkline.db", "permission")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["call", "telephone"], "reached", id="no host"),
        pytest.param(["call", "sip:a b@127.0.0.1"], "accepted: sip:USER@HOST", id="no URI"),
        pytest.param(["call", "sip:x@127.0.0.1", "--wav", "no.wav"], "no.wav", id="no WAV"),
        pytest.param(["realtime", "--listen", "here"], "host:port", id="no address"),
        pytest.param(["fly"], "No such command", id="unknown command"),
        pytest.param(["serve", "--fast"], "No such option", id="unknown option"),
        pytest.param(["tokens", "create", "--role", "king", "--name", "x"], "king", id="role"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """A wrong option says what is accepted."""
    done = trunkline(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert expected in done.stderr


def test_check_finds_what_is_wrong(tmp_path: Path, taken_port: int) -> None:
    """One line per finding, the fix in words, and 1 as a whole."""
    environment = {
        "TRUNKLINE_SIP__LISTEN": f"127.0.0.1:{taken_port}",
        "TRUNKLINE_ADMIN__LISTEN": "127.0.0.1:0",
        "TRUNKLINE_REALTIME__BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_API_KEY": "sk-very-secret",
    }
    (tmp_path / "trunkline.toml").write_text(
        '[realtime]\nmodel = "brand-new"\n[limits.budget]\nday_usd = 5\n[[trunks]]\nname = "carrier"'
    )
    done = trunkline("check", folder=tmp_path, environment=environment)
    lines = {line[6:].split()[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 1, done.stdout + done.stderr
    assert lines["sip"].startswith("FAIL")
    assert lines["admin"].startswith("ok")
    assert "trunkline db upgrade" in lines["database"]
    assert "the Realtime API is unreachable" in lines["realtime"]
    assert "nobody may call" in lines["trunk"]
    assert "carries" in lines["pjsip"]
    assert lines["prices"].startswith("FAIL")
    assert "none for brand-new" in lines["prices"]
    assert "very-secret" not in done.stdout + done.stderr


def test_check_is_content_after_db_upgrade(tmp_path: Path) -> None:
    """The built-in configuration passes on a fresh machine."""
    environment = {
        "TRUNKLINE_SIP__LISTEN": "127.0.0.1:0",
        "TRUNKLINE_ADMIN__LISTEN": "127.0.0.1:0",
    }
    assert trunkline("db", "upgrade", folder=tmp_path).returncode == 0
    done = trunkline("check", folder=tmp_path, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_refuses_the_wheel_on_a_public_address(tmp_path: Path) -> None:
    """The public PJSIP wheel is not for strangers, and the reason is given."""
    environment = {"TRUNKLINE_SIP__LISTEN": "0.0.0.0:0", "OPENAI_API_KEY": "unused"}
    done = trunkline("check", folder=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "wheel" in next(line for line in done.stdout.splitlines() if "pjsip" in line)
    refused(trunkline("serve", folder=tmp_path, environment=environment), "0.0.0.0", "wheel")


def test_sigterm_ends_in_order_and_the_token_is_shown_once(tmp_path: Path) -> None:
    """The first start prints a token and keeps it privately; SIGTERM ends with 0."""
    environment = {"TRUNKLINE_ADMIN_TOKEN": "", "OPENAI_API_KEY": "unused"}
    with serving(tmp_path, environment=environment) as served:
        first = served.banner
        assert served.stop() == 0
    with serving(tmp_path, environment=environment) as served:
        assert served.stop() == 0
        second = served.banner
    kept = tmp_path / "trunkline.token"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    token = kept.read_text().strip()
    assert token
    assert token in first
    assert token not in second


def test_sighup_while_starting_ends_nothing(tmp_path: Path) -> None:
    """A reload that comes too early is no end: the program goes on to answer."""
    environment = {
        "OPENAI_API_KEY": "unused",
        "TRUNKLINE_SIP__LISTEN": "127.0.0.1:0",
        "TRUNKLINE_ADMIN__LISTEN": "127.0.0.1:0",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "agent.main", "serve"],
        cwd=tmp_path,
        env=plain_environment(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            wait_until_caught(process.pid, signal.SIGTERM)
            process.send_signal(signal.SIGHUP)
            banner = "".join(itertools.islice(process.stdout, 4))
            assert "sip:agent@" in banner
        finally:
            process.terminate()
            process.stdout.read()
    assert process.returncode == 0


def wait_until_caught(pid: int, number: signal.Signals) -> None:
    """Wait until a process has a handler for a signal (proc(5), SigCgt)."""
    deadline_s = time.monotonic() + 20
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        if caught >> (number - 1) & 1:
            return
        assert time.monotonic() < deadline_s
        time.sleep(0.002)
