"""The whole program as a user starts it: `trunkline serve` in its own process and folder.

::

    with serving(folder, config) as served:
        served.uri            # sip:agent@127.0.0.1:PORT
        served.get("/api/v1/calls")
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 40


@dataclass
class Served:
    """A running `trunkline serve`."""

    process: subprocess.Popen[str]
    folder: Path
    config: Path
    banner: str
    environment: Mapping[str, str] = field(repr=False)

    @property
    def uri(self) -> str:
        """What to dial."""
        return self._find(r"dial\s+(sip:\S+)")

    @property
    def sip_port(self) -> int:
        """Where it listens for SIP on 127.0.0.1."""
        return int(self.uri.rpartition(":")[2]) if self.uri.count(":") > 1 else 5060

    @property
    def url(self) -> str:
        """Where the admin API is."""
        return self._find(r"open\s+(http://\S+)").rstrip("/")

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self.banner)
        assert found, f"{pattern} is not in:\n{self.banner}"
        return found[1]

    def get(self, path: str) -> Any:
        """GET from the admin API with the test's token; JSON."""
        reply = httpx.get(
            self.url + path, headers={"Authorization": "Bearer test-token"}, timeout=5
        )
        assert reply.status_code == 200, reply.text
        return reply.json()

    def wait_for_calls(self, count: int, timeout_s: float = 15) -> list[dict[str, Any]]:
        """Wait until so many calls have ended and been logged; newest first, with details."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            items = self.get("/api/v1/calls")["items"]
            if len(items) >= count and all(item["state"] == "ended" for item in items):
                return [self.get(f"/api/v1/calls/{item['id']}") for item in items]
            assert time.monotonic() < deadline_s, f"calls so far: {items}"
            time.sleep(0.1)

    def wait_for_tool(self, name: str, status: str = "running", timeout_s: float = 30) -> None:
        """Wait until the log of some call has a call of this tool in this state."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            calls = [
                self.get(f"/api/v1/calls/{item['id']}")
                for item in self.get("/api/v1/calls")["items"]
            ]
            found = [
                (tool["name"], tool["status"]) for call in calls for tool in call["tool_calls"]
            ]
            if (name, status) in found:
                return
            assert time.monotonic() < deadline_s, f"tool calls so far: {found}"
            time.sleep(0.1)

    def run(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run another `trunkline` command in the same folder and configuration."""
        return trunkline(
            *arguments, folder=self.folder, environment=self.environment, timeout_s=timeout_s
        )

    @property
    def stderr(self) -> str:
        """The log so far."""
        return (self.folder / "serve.log").read_text(errors="replace")

    @property
    def open_files(self) -> int:
        """Descriptors the process holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stop(self) -> int:
        """SIGTERM, and wait for the orderly end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def trunkline(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run one `trunkline` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "agent.main", *arguments],
        cwd=folder,
        env=plain_environment(environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def plain_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without anybody's keys and settings, with the checkout importable."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRUNKLINE_", "OPENAI_"))
    }
    root = str(Path(__file__).parents[2])
    return kept | {"PYTHONPATH": root, "PYTHONWARNINGS": "default"} | dict(extra or {})


@contextlib.contextmanager
def serving(
    folder: Path, config: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Start `trunkline serve` on free ports and stop it in an orderly way.

    `config` is added to a configuration that listens on free ports.
    """
    file = folder / "trunkline.toml"
    file.write_text(config)
    variables = {
        "TRUNKLINE_ADMIN_TOKEN": "test-token",
        "TRUNKLINE_SIP__LISTEN": "127.0.0.1:0",
        "TRUNKLINE_ADMIN__LISTEN": "127.0.0.1:0",
        "TRUNKLINE_LIMITS__DRAIN_TIMEOUT_S": "1",
        **(environment or {}),
    }
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.main", "serve"],
            cwd=folder,
            env=plain_environment(variables),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    served = Served(process, folder, file, "", variables)
    try:
        served.banner = _read_banner(served)
        yield served
    finally:
        served.stop()
        assert process.stdout is not None
        process.stdout.close()


def _read_banner(served: Served) -> str:
    """Read stdout until it has said how many calls it carries, its last fact."""
    assert served.process.stdout is not None
    banner = ""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while "calls " not in banner:
        line = served.process.stdout.readline()
        assert line, f"serve ended with {served.process.wait()}:\n{banner}\n{served.stderr}"
        assert time.monotonic() < deadline_s
        banner += line
    return banner
