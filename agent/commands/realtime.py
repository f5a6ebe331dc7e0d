"""`trunkline realtime`: the embedded Realtime server alone."""

import sys
from pathlib import Path

from pydantic import ValidationError

from agent.embedded.settings import EmbeddedSettings


def run_realtime(
    settings: EmbeddedSettings,
    *,
    listen: str | None,
    facts: Path | None,
    script: Path | None = None,
    trace: Path | None = None,
) -> int:
    """Serve until a signal; print one JSON line with the URL when ready."""
    values = settings.model_dump()
    if listen is not None:
        values["listen"] = listen
    if facts is not None:
        values["facts_file"] = facts
    try:
        settings = EmbeddedSettings(**values)
    except ValidationError as error:
        detail = error.errors()[0]
        print(f"--listen: found {detail['input']!r}, accepted: host:port", file=sys.stderr)
        return 2
    from agent.embedded.script import ScriptError, load_script
    from agent.embedded.server import serve_forever

    try:
        part = load_script(script) if script is not None else None
    except ScriptError as error:
        print(error, file=sys.stderr)
        return 2
    serve_forever(settings, part, trace)
    return 0
