"""The embedded server as its own tests have it, for clients nobody here wrote.

`make test` installs what they need beyond Python's own requirements: npm and Chromium.
"""

from tests.embedded.conftest import server, settings, url, voice

__all__ = ["server", "settings", "url", "voice"]
