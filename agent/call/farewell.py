"""When a goodbye has been heard, so that the line may be closed.

The model asks for `hang_up` while its last sentence is still on its way to the
ear. Hanging up then would cut it; waiting for ever would keep the line. Decides
only: told events and `now_ms`, answers `is_due`.
"""

from agent.call.events import (
    AgentInterrupted,
    AgentLost,
    AgentSpeaking,
    AgentSpoke,
    AgentTextDelta,
    CallerSpeechStarted,
    CallEvent,
    ResponseEnded,
    ResponseStarted,
)


class Farewell:
    """One call's goodbye: asked for, spoken, heard, or taken back."""

    def __init__(self, timeout_ms: int) -> None:
        """Wait at most `timeout_ms` from the request for the last sentence to be heard."""
        self._timeout_ms = timeout_ms
        self._deadline_ms: int | None = None
        self._awaited_response_id: str | None = None
        self._asking_response_id = ""
        self._speech: dict[str, bool] = {}
        self._interrupted: set[str] = set()
        self._heard = False
        self._is_final = False
        self._begun: set[str] = set()
        self._earlier: frozenset[str] = frozenset()
        """Responses that began before we insisted: none of them is the goodbye."""

    @property
    def is_pending(self) -> bool:
        """The agent wants to hang up and the caller has not spoken since."""
        return self._deadline_ms is not None

    def insist(self, now_ms: int) -> bool:
        """The call ends now, whatever the caller says.

        Returns:
            True if the model must be asked for a goodbye; False if one is on its way.
        """
        self._is_final = True
        if self.is_pending:
            return False
        # What it was saying may have to be played out before.
        self._deadline_ms = now_ms + 2 * self._timeout_ms
        self._earlier = frozenset(self._begun)
        self._awaited_response_id = None
        self._heard = False
        return True

    def ask(self, response_id: str, now_ms: int) -> bool:
        """The response `response_id` asked to hang up.

        Returns:
            True if that response says the goodbye itself; False if the model
            must still be asked for one.
        """
        if self._is_final:
            return True
        if response_id in self._interrupted:
            self._deadline_ms = None
            return True  # the caller was faster than this request: they have more to say
        self._deadline_ms = now_ms + self._timeout_ms
        self._asking_response_id = response_id
        speaks = response_id in self._speech
        self._awaited_response_id = response_id if speaks else None
        self._heard = speaks and not self._speech[response_id]
        return speaks

    def receive(self, event: CallEvent) -> None:
        """Follow who speaks; a caller who speaks again takes the goodbye back."""
        match event:
            case ResponseStarted(response_id):
                self._begun.add(response_id)
            case AgentTextDelta(response_id=response_id) | AgentSpeaking(response_id):
                self._begun.add(response_id)
                self._speech.setdefault(response_id, True)
                is_first = self.is_pending and self._awaited_response_id is None
                if is_first and response_id not in self._earlier:
                    self._awaited_response_id = response_id
            case AgentSpoke(response_id):
                self._speech[response_id] = False
                self._heard = self._heard or response_id == self._awaited_response_id
            case AgentInterrupted(response_id):
                self._speech[response_id] = False
                self._interrupted.add(response_id)
                if response_id == self._awaited_response_id and not self._heard:
                    self._take_back()
            case AgentLost():
                self._heard = self._heard or self.is_pending
            case CallerSpeechStarted() if not self._heard and not self._is_final:
                self._deadline_ms = None
            case ResponseEnded(response_id, "failed") if response_id != self._asking_response_id:
                is_it = self._awaited_response_id in (None, response_id)
                self._heard = self._heard or (is_it and response_id not in self._earlier)
            case _:
                pass

    def _take_back(self) -> None:
        """The caller talks over the goodbye: they have more to say, unless that is over."""
        if self._is_final:
            self._heard = True
        else:
            self._deadline_ms = None

    def is_due(self, now_ms: int, buffered_ms: int) -> bool:
        """Tell whether to hang up now.

        Args:
            now_ms: Milliseconds since the answer.
            buffered_ms: Speech that still waits for the caller's ear.
        """
        if self._deadline_ms is None:
            return False
        return (self._heard and buffered_ms == 0) or now_ms >= self._deadline_ms
