"""The embedded server as its own tests have it, for clients nobody here wrote.

Two of the clients come with what `make test` installs beyond Python's own
requirements; where one is not, its file is left out.
"""

import importlib.util
import shutil

from tests.embedded.conftest import engines, server, settings, url, voice

__all__ = ["engines", "server", "settings", "url", "voice"]

collect_ignore: list[str] = []
if shutil.which("npm") is None:
    collect_ignore.append("test_browser.py")
if importlib.util.find_spec("agents") is None:
    collect_ignore.append("test_openai_agents.py")
