"""What the model has asked of its tools in this call: repeats are known again, floods end.

A model that is interrupted or impatient asks for the same thing twice, and a confused
one asks a thousand times. Decides only: told requests, results and `now_ms`.
"""

import json
from dataclasses import dataclass, field

from agent.call.events import ToolCallRequested
from agent.call.ports import ToolResult
from agent.call.settings import ToolUseSettings

_MOST_REFUSED_ROWS = 20
"""Enough for an admin to see what happened; the rest is one event."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run it."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """The call `tool_call_id` asked for the same: give its result again."""

    tool_call_id: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Run nothing; `reason` is for the log."""

    reason: str
    is_recorded: bool
    """It gets a row of its own."""
    is_first: bool
    """Nothing was refused before: worth an event."""


Verdict = Run | Repeat | Refuse


@dataclass(slots=True)
class _Entry:
    """The last call with one name and one set of arguments."""

    tool_call_id: str
    finished_ms: int | None = None


@dataclass(slots=True)
class ToolLedger:
    """The tool calls of one call."""

    settings: ToolUseSettings
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)
    _counts: dict[str, int] = field(default_factory=dict)
    _total: int = 0
    _refused: int = 0
    _failed_in_row: int = 0

    def caller_spoke(self) -> None:
        """Somebody said something new: what failed before may make sense now."""
        self._failed_in_row = 0

    def take(self, request: ToolCallRequested, now_ms: int) -> Verdict:
        """Decide about one request; `Run` must be followed by `finish`."""
        key = _key(request)
        entry = self._entries.get(key)
        is_repeat = entry is not None and self._is_fresh(entry, now_ms)
        problem = self._problem(request.name, is_repeat=is_repeat)
        if problem:
            self._refused += 1
            return Refuse(problem, self._refused <= _MOST_REFUSED_ROWS, self._refused == 1)
        self._total += 1
        if entry is not None and is_repeat:
            return Repeat(entry.tool_call_id)
        self._counts[request.name] = self._counts.get(request.name, 0) + 1
        self._running.add(key)
        self._entries[key] = _Entry(request.tool_call_id)
        return Run()

    def finish(self, request: ToolCallRequested, result: ToolResult, now_ms: int) -> None:
        """Note what came of a call that was run; what failed may be tried again at once."""
        key = _key(request)
        self._running.discard(key)
        self._failed_in_row = self._failed_in_row + 1 if result.error else 0
        if not result.error and not result.is_repeatable:
            self._entries[key].finished_ms = now_ms
        else:
            self._entries.pop(key, None)

    def _is_fresh(self, entry: _Entry, now_ms: int) -> bool:
        window_ms = int(self.settings.duplicate_window_s * 1000)
        return entry.finished_ms is None or now_ms - entry.finished_ms < window_ms

    def _problem(self, name: str, *, is_repeat: bool) -> str:
        settings = self.settings
        most = settings.max_calls.get(name, settings.max_calls_per_call)
        if self._total >= settings.max_calls_per_call:
            return f"a call may have {settings.max_calls_per_call} tool calls"
        if self._failed_in_row >= settings.max_failures_in_row:
            return f"{self._failed_in_row} tool calls in a row failed"
        if is_repeat:
            return ""
        if self._counts.get(name, 0) >= most:
            return f"{name} may be called {most} times in a call"
        if len(self._running) >= settings.max_calls_at_once:
            return f"{len(self._running)} tools are running"
        return ""


def _key(request: ToolCallRequested) -> str:
    """Name and arguments, however the arguments were written."""
    try:
        arguments = json.dumps(json.loads(request.arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        arguments = request.arguments
    return f"{request.name} {arguments}"
