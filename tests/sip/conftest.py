"""The agent and the caller as processes, because PJSIP starts once per process."""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

WAIT_S = 8.0


class Agent:
    """The program `tests.sip.answering`, as seen from outside."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sip.answering", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.log: list[str] = []
        self.noise: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.port = 0
        self.first = self.expect("ready", "unavailable")
        self.port = self.first.get("port", 0)

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._events.put(json.loads(line))
            except ValueError:
                self.noise.append(line)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        self.log.extend(self._process.stderr)

    def expect(self, *names: str, within_s: float = WAIT_S) -> dict[str, Any]:
        """Wait for the next event of these names; others pass by."""
        until_s = time.monotonic() + within_s
        passed = []
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left_s)
            except queue.Empty:
                break
            if event["event"] in names:
                return event
            passed.append(event)
        raise AssertionError(f"no {names} but {passed}; log: {''.join(self.log)}")

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def count(self) -> dict[str, Any]:
        self.tell("count")
        return self.expect("counted")

    def count_idle(self) -> dict[str, Any]:
        """Count once PJSIP has let go of its last call."""
        until_s = time.monotonic() + WAIT_S
        while (counted := self.count())["pj_calls"] and time.monotonic() < until_s:
            time.sleep(0.02)
        return counted

    def settle(self) -> None:
        """Wait until the last test's calls are gone, and forget what it did not read."""
        self.count_idle()
        while not self._events.empty():
            self._events.get_nowait()

    def stop(self) -> int:
        """Stop it, return its exit code."""
        if self._process.poll() is None:
            try:
                self.tell("stop")
            except BrokenPipeError:
                pass
        try:
            code = self._process.wait(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(timeout=WAIT_S)
        for reader in self._readers:
            reader.join(timeout=WAIT_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return code


def stop_all(agents: list[Agent]) -> None:
    """Stop agents; each must end cleanly, silent on stdout, without a traceback."""
    codes = [agent.stop() for agent in agents]
    for agent, code in zip(agents, codes, strict=True):
        log = "".join(agent.log)
        assert code == 0, log
        assert agent.noise == []
        assert "Traceback" not in log or "the bridge fell down" in log, log


@pytest.fixture
def start_agent() -> Iterator[Callable[..., Agent]]:
    """Start agents for this test alone."""
    agents: list[Agent] = []

    def start(**options: Any) -> Agent:
        agents.append(Agent(options))
        return agents[-1]

    yield start
    stop_all(agents)


@pytest.fixture(scope="module")
def running_agents() -> Iterator[dict[str, Agent]]:
    """Agents that go on from test to test, by their options."""
    agents: dict[str, Agent] = {}
    yield agents
    stop_all(list(agents.values()))


@pytest.fixture
def agent_with(running_agents: dict[str, Agent]) -> Callable[..., Agent]:
    """Give an idle agent with these options, started by the first test that asks."""

    def find(**options: Any) -> Agent:
        key = json.dumps(options, sort_keys=True)
        if key not in running_agents:
            running_agents[key] = Agent(options)
        running_agents[key].settle()
        return running_agents[key]

    return find


@pytest.fixture
def place_call() -> Callable[..., dict[str, Any]]:
    """Run `tests.sip.calling` to its end and return what it says came of the call."""

    def place(**options: Any) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.sip.calling", json.dumps(options)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return place
