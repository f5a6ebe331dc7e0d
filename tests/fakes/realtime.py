"""The embedded server as a user starts it: `trunkline realtime` in a process of its own.

::

    with realtime() as served:
        served.url            # http://127.0.0.1:PORT/v1
        served.process.pid
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.trunkline import plain_environment

STOP_TIMEOUT_S = 15


@dataclass(frozen=True)
class Realtime:
    """A running `trunkline realtime`, and how long it took to be ready."""

    process: subprocess.Popen[str]
    url: str
    load_s: float


@contextlib.contextmanager
def realtime(
    *arguments: str, environment: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[Realtime]:
    """Start the server on a free port; stop it, and see that it ends well.

    What it writes to stderr goes into `log`, if one is given.
    """
    began_s = time.monotonic()
    stderr = log.open("w") if log is not None else contextlib.nullcontext()
    with stderr as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.main", "realtime", "--listen", "127.0.0.1:0", *arguments],
            env=plain_environment(environment),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"trunkline realtime ended with {process.wait()}"
        yield Realtime(process, json.loads(line)["url"], time.monotonic() - began_s)
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
