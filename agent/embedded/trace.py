"""What an embedded server and its clients said to each other: `trunkline realtime --trace FILE`.

    session -> SessionTrace -> one JSON object a line

For somebody who wants to see what their client really sends. Audio inside
events is told by its length. Everything else is there in full, with the words
of the conversation: the file belongs to whoever runs the server.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Note = Callable[[dict[str, Any]], None]
"""Takes one record. Must not raise."""

_AUDIO = {"input_audio_buffer.append": "audio", "response.output_audio.delta": "delta"}


class SessionTrace:
    """The records of one session.

    Args:
        note: Takes each record.
        session_id: `rtc_...` of a call, `sess_...` of a WebSocket.
    """

    def __init__(self, note: Note, session_id: str) -> None:
        self._note = note
        self._session_id = session_id

    def opened(self, session: Mapping[str, Any]) -> None:
        """The session object, as it begins."""
        self._write("opened", session=session)

    def received(self, text: str) -> None:
        """A message of the client, or of a sideband."""
        self._write("received", **_told(text))

    def before(self, emit: Callable[[str], None]) -> Callable[[str], None]:
        """Write down each message to the client, faults included, and then let it go."""

        def sent(text: str) -> None:
            self._write("sent", **_told(text))
            emit(text)

        return sent

    def ended(self, reason: str, **packets: int) -> None:
        """The session is over."""
        self._write("ended", reason=reason, **packets)

    def _write(self, what: str, **fields: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._note({"at": at, "session_id": self._session_id, "what": what, **fields})


def _told(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return {"text": text}
    if not isinstance(event, dict):
        return {"text": text}
    kind = event.get("type")
    field = _AUDIO.get(kind) if isinstance(kind, str) else None
    if field is not None and isinstance(audio := event.get(field), str):
        event[field] = f"({len(audio)} characters)"
    return {"event": event}


@contextmanager
def writing(path: Path) -> Iterator[Note]:
    """Append records to a file that only its owner can read.

    Raises:
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(descriptor, "w", encoding="utf-8", buffering=1) as file:  # noqa: PTH123 - its mode

        def note(record: dict[str, Any]) -> None:
            # A full disk ends the file, not the conversation.
            with suppress(OSError):
                file.write(json.dumps(record) + "\n")

        yield note
