"""How log lines look: time, `[call_id]` in front, one event, its facts.

`<` received, `>` sent, `=` state, `x` closing, `!` error. Everything goes to
stderr; stdout belongs to the answers of commands.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

_QUIET_LIBRARIES = ("aiortc", "aioice", "httpx", "httpcore", "uvicorn", "alembic", "asyncio")
_SILENT_LIBRARIES = ("mcp", "httpx2", "httpcore2")
"""They quote what servers sent; what matters of it is said by whoever uses them."""


def _call_id_first(
    _logger: FilteringBoundLogger, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    call_id = event.pop("call_id", None)
    if call_id is not None:
        event["event"] = f"[{call_id}] {event['event']}"
    return event


def configure_logs(level: str = "info") -> None:
    """Set the form of all log lines of this process. Call it once, at its start."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            _call_id_first,
            # Plain tracebacks: rich ones print local variables, and a key may be among them.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s"
    )
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _SILENT_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
