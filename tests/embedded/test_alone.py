"""The embedded server needs no network: a machine with nothing but loopback can be talked with."""

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.fakes.trunkline import plain_environment

TIMEOUT_S = 120
# Root may simply have a network of its own; anybody else becomes root of a user namespace first.
WAYS = (["unshare", "--net"], ["unshare", "--map-root-user", "--net"])


def new_network() -> list[str]:
    """The command that runs another one with no network but loopback."""
    assert shutil.which("unshare"), "`unshare` is missing: apt-get install util-linux"
    refusals = []
    for way in WAYS:
        tried = subprocess.run([*way, "true"], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return way
        refusals.append(tried.stderr.strip())
    pytest.fail(
        f"this user may not make a network namespace ({'; '.join(refusals)}): run the tests as "
        "root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
        "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces=10000)"
    )


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What the server and its client did in a network namespace of their own."""
    done = subprocess.run(
        [*new_network(), sys.executable, "-m", "tests.embedded.alone"],
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nothing_but_loopback(alone: dict[str, Any]) -> None:
    """In there is no other interface, so nothing could have left the machine."""
    assert alone["interfaces"] == ["lo"]


@pytest.mark.parametrize("way", ["webrtc", "websocket"])
def test_spoken_turn(alone: dict[str, Any], way: str) -> None:
    """A spoken question gets a spoken answer that fits."""
    assert "Saturday" in str(alone[way]["said"])
    assert alone[way]["loudest"] > 1000
