"""What goes wrong between a scripted session and its client: decided here, done elsewhere.

    session -> event -> Faults.pass_on() -> what really leaves
    client  -> event -> Faults.take()    -> whether the session sees it, what leaves because of it
    clock   -> fault -> Faults.strike()  -> what leaves because of it

Every fault happens once; those of RTP begin once and are `downlink`'s from then on.
Nothing here sends, waits or knows the time.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Self

from agent.embedded.downlink import Downlink
from agent.embedded.protocol import JsonObject, Refused, error_event, new_id
from agent.embedded.script import ANSWERING, CHANGING, CUE, OF_RTP, ScriptFault

_FIRST_EVENT = "session.created"


class RawText(str):
    """A text message whose bytes are no UTF-8: what WebRTC and WebSocket send is its `encode`."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        """Wrap the bytes; as text they show what can be read of them."""
        text = super().__new__(cls, raw.decode(errors="replace"))
        text.raw = raw
        return text

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Give the bytes as they are."""
        del encoding, errors
        return self.raw


class Faults:
    """The faults of one session.

    Args:
        faults: The script's.
        postpone: Told of a fault that is to strike later, and in how many seconds.

    Attributes:
        downlink: The way of RTP to the client.
        is_frozen: Nothing leaves any more, and no sound.
        is_muted: Speech is announced and silent.
        is_dropped: The session is to end without another word.
    """

    def __init__(
        self, faults: Iterable[ScriptFault], postpone: Callable[[ScriptFault, float], None]
    ) -> None:
        self.downlink = Downlink()
        self.is_frozen = False
        self.is_muted = False
        self.is_dropped = False
        self._postpone = postpone
        self._waiting = list(faults)
        self._seen: Counter[str] = Counter()
        self._held: list[str] = []

    def pass_on(self, text: str) -> list[str]:
        """Take one server event on its way out.

        Args:
            text: JSON, as the session wrote it.

        Returns:
            The messages to send now, in order.
        """
        due = self._due(str(json.loads(text)["type"]), "*")
        sent: list[str] = []
        if not (self.is_frozen or self.is_dropped):
            released, self._held = self._held, []
            sent = [text]
            for fault in due:
                if fault.do in CHANGING:
                    sent = self._changed(sent, fault)
            sent += released
        return sent + self._struck(due)

    def take(self, event: JsonObject) -> tuple[bool, list[str]]:
        """Take one event of the client, before the session does.

        Returns:
            Whether the session is to see it, and the messages to send now.
        """
        kind = str(event.get("type"))
        due = self._due(kind)
        answering = [fault for fault in due if fault.do in ANSWERING]
        sent = [_refusal(fault, event) for fault in answering if fault.do == "refuse"]
        if self.is_frozen or self.is_dropped:
            sent = []
        return not answering and not kind.startswith(CUE), sent + self._struck(due)

    def _due(self, *kinds: str) -> list[ScriptFault]:
        """The faults whose event this is."""
        due: list[ScriptFault] = []
        for kind in kinds:
            self._seen[kind] += 1
            due += [
                fault
                for fault in self._waiting
                if _moment(fault) == kind and fault.nth == self._seen[kind]
            ]
        self._waiting = [fault for fault in self._waiting if fault not in due]
        return due

    def _struck(self, due: list[ScriptFault]) -> list[str]:
        sent: list[str] = []
        for fault in due:
            after_s = fault.at if isinstance(fault.at, float) else fault.after_s
            if after_s:
                self._postpone(fault, after_s)
            else:
                sent += self.strike(fault)
        return sent

    def _changed(self, sent: list[str], fault: ScriptFault) -> list[str]:
        if fault.do == "repeat":
            return sent + sent
        if fault.do == "fail_response":
            return [_failed(text, fault.error) for text in sent]
        if fault.do == "hold":
            self._held += sent
        return []

    def strike(self, fault: ScriptFault) -> list[str]:
        """Let a fault happen that changes no event; one that changes them has no effect here.

        Returns:
            The messages it makes the server send.
        """
        if self.is_dropped:
            return []
        sent: list[str] = []
        if fault.do == "send":
            sent = [_message(fault)]
        elif fault.do == "expire":
            sent = [_expired()]
        elif fault.do in OF_RTP:
            self.downlink.add(fault)
        if self.is_frozen:
            sent = []
        self.is_muted |= fault.do == "mute"
        self.is_frozen |= fault.do in {"freeze", "vanish"}
        self.downlink.is_cut |= fault.do == "vanish"
        self.is_dropped |= fault.do in {"drop", "expire"}
        return sent


def _moment(fault: ScriptFault) -> str:
    return _FIRST_EVENT if isinstance(fault.at, float) else fault.at


def _refusal(fault: ScriptFault, event: JsonObject) -> str:
    refused = Refused("scripted_refusal", "The script says no.")
    refusal = error_event(refused, event.get("event_id"))
    refusal["error"] |= fault.error
    return json.dumps({"event_id": new_id("event_"), **refusal})


def _expired() -> str:
    refused = Refused("session_expired", "Your session hit the maximum duration of 60 minutes.")
    return json.dumps({"event_id": new_id("event_"), **error_event(refused)})


def _message(fault: ScriptFault) -> str:
    if fault.hex is not None:
        return RawText(bytes.fromhex(fault.hex))
    if fault.text is not None:
        return fault.text.ljust(fault.size_bytes, "x")
    event: JsonObject = {"event_id": new_id("event_"), **(fault.event or {})}
    missing_bytes = fault.size_bytes - len(json.dumps({**event, "padding": ""}))
    if missing_bytes > 0:
        event["padding"] = "x" * missing_bytes
    return json.dumps(event)


def _failed(text: str, fields: JsonObject) -> str:
    event: JsonObject = json.loads(text)
    error = {"type": "server_error", "code": "rate_limit_exceeded", **fields}
    event["response"] |= {
        "status": "failed",
        "status_details": {"type": "failed", "error": error},
    }
    return json.dumps(event)
