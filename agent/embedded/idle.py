"""When a caller has said nothing for so long that the agent should speak up.

Pure: told what happens and when, in ms of audio heard, it says whether the time
of `idle_timeout_ms` is over. The wait begins when a response is done and its
audio has been played, once a response.
"""


class IdleWatch:
    """The silence after the agent's last words."""

    def __init__(self) -> None:
        self._since_ms: int | None = None

    def answered(self, now_ms: int, speech_ms: int) -> None:
        """A response is done; `speech_ms` of it may still have to be played."""
        self._since_ms = now_ms + speech_ms

    def disarm(self) -> None:
        """The caller speaks, or another response has begun."""
        self._since_ms = None

    def due(self, now_ms: int, timeout_ms: int | None, *, agent_speaks: bool) -> int | None:
        """Ask whether it is time.

        Args:
            now_ms: How much audio was heard.
            timeout_ms: The session's `idle_timeout_ms`.
            agent_speaks: Its audio is being sent just now.

        Returns:
            Since when nobody has spoken, when that is long enough; then no more
            until the next response.
        """
        if self._since_ms is None:
            return None
        if agent_speaks:
            self._since_ms = max(self._since_ms, now_ms)
            return None
        if timeout_ms is None or now_ms - self._since_ms < timeout_ms:
            return None
        since_ms, self._since_ms = self._since_ms, None
        return since_ms
