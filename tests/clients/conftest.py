"""The embedded server as its own tests have it, for clients nobody here wrote."""

from tests.embedded.conftest import engines, server, settings, url, voice

__all__ = ["engines", "server", "settings", "url", "voice"]
