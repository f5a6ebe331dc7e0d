"""What goes wrong between a scripted session and its client: decided here, done elsewhere.

    session -> event -> Faults.pass_on() -> what really leaves
    clock   -> fault -> Faults.strike()  -> what leaves because of it

Every fault happens once. Nothing here sends, waits or knows the time.
"""

import json
from collections import Counter
from collections.abc import Iterable

from agent.embedded.protocol import JsonObject, Refused, error_event, new_id
from agent.embedded.script import ScriptFault

_CHANGING = frozenset({"repeat", "hold", "omit", "fail_response"})


class Faults:
    """The faults of one session.

    Attributes:
        is_frozen: Nothing leaves any more, and no sound.
        is_muted: Speech is announced and silent.
        is_dropped: The session is to end without another word.
    """

    def __init__(self, faults: Iterable[ScriptFault]) -> None:
        self.is_frozen = False
        self.is_muted = False
        self.is_dropped = False
        self._waiting = [fault for fault in faults if isinstance(fault.at, str)]
        self._seen: Counter[str] = Counter()
        self._held: list[str] = []

    def pass_on(self, text: str) -> list[str]:
        """Take one server event on its way out.

        Args:
            text: JSON, as the session wrote it.

        Returns:
            The messages to send now, in order.
        """
        kind = str(json.loads(text)["type"])
        self._seen[kind] += 1
        self._seen["*"] += 1
        due = [fault for fault in self._waiting if self._seen[str(fault.at)] == fault.nth]
        due = [fault for fault in due if fault.at in {kind, "*"}]
        self._waiting = [fault for fault in self._waiting if fault not in due]
        if self.is_frozen or self.is_dropped:
            return []
        released, self._held = self._held, []
        sent = [text]
        for fault in due:
            if fault.do in _CHANGING:
                sent = self._changed(sent, fault)
        sent += released
        for fault in due:
            if fault.do not in _CHANGING:
                sent += self.strike(fault)
        return sent

    def _changed(self, sent: list[str], fault: ScriptFault) -> list[str]:
        if fault.do == "repeat":
            return sent + sent
        if fault.do == "fail_response":
            return [_failed(text, fault.code) for text in sent]
        if fault.do == "hold":
            self._held += sent
        return []

    def strike(self, fault: ScriptFault) -> list[str]:
        """Let a fault happen that changes no event.

        Returns:
            The messages it makes the server send.
        """
        if self.is_frozen or self.is_dropped:
            return []
        if fault.do == "send":
            return [_message(fault)]
        if fault.do == "freeze":
            self.is_frozen = True
        elif fault.do == "mute":
            self.is_muted = True
        else:
            self.is_dropped = True
        if fault.do != "expire":
            return []
        refused = Refused("session_expired", "Your session hit the maximum duration of 60 minutes.")
        return [json.dumps({"event_id": new_id("event_"), **error_event(refused)})]


def _message(fault: ScriptFault) -> str:
    if fault.text is not None:
        return fault.text.ljust(fault.size_bytes, "x")
    event: JsonObject = {"event_id": new_id("event_"), **(fault.event or {})}
    missing_bytes = fault.size_bytes - len(json.dumps({**event, "padding": ""}))
    if missing_bytes > 0:
        event["padding"] = "x" * missing_bytes
    return json.dumps(event)


def _failed(text: str, code: str) -> str:
    event: JsonObject = json.loads(text)
    error = {"type": "server_error", "code": code}
    event["response"] |= {
        "status": "failed",
        "status_details": {"type": "failed", "error": error},
    }
    return json.dumps(event)
