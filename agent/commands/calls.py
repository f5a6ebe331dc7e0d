"""`trunkline calls list` and `show`: the call log on the terminal.

What callers and models said is cleaned before it is printed: a transcript must
not steer the terminal it is read on.
"""

import sys
from collections import Counter
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.admin.models import describe_call, describe_page
from agent.call.clean import clean
from agent.settings import Settings
from agent.store.calls import Call, CallDetail, CallLog, CallPage, ToolCall, Turn
from agent.store.database import DatabaseUnavailable, open_database

_LONGEST_SAID = 10_000
_LONGEST_TOOL_TEXT = 500
_PIPE_WIDTH = 2000
_STYLES = {"caller": "bold blue", "agent": "bold green"}


async def list_calls(settings: Settings, *, limit: int = 20, as_json: bool = False) -> int:
    """Print the newest calls, as a table or as the API's JSON.

    Returns:
        0, or 1 with one message on stderr when the database cannot be used.
    """
    try:
        async with open_database(settings.database) as database:
            page = await CallLog(database).list_calls(limit=limit)
    except DatabaseUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    if as_json:
        print(describe_page(page).model_dump_json(indent=2))
    else:
        _print_list(page)
    return 0


async def show_call(settings: Settings, call_id: str, *, as_json: bool = False) -> int:
    """Print one call, as a transcript or as the API's JSON.

    Returns:
        0, or 1 with one message on stderr when there is no such call or the
        database cannot be used.
    """
    try:
        async with open_database(settings.database) as database:
            detail = await CallLog(database).get_call(call_id)
    except DatabaseUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    if detail is None:
        shown = clean(call_id)
        print(f"there is no call {shown!r}: `trunkline calls list` shows them", file=sys.stderr)
        return 1
    if as_json:
        print(describe_call(detail).model_dump_json(indent=2))
    else:
        _print_call(detail)
    return 0


def _print_list(page: CallPage) -> None:
    # A pipe has no width: nothing may be folded for whoever reads it.
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(highlight=False, emoji=False, width=width)
    if not page.items:
        console.print("No calls yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    # The id is what `show` wants: it is never cut.
    table.add_column("Id", no_wrap=True)
    table.add_column("Started", no_wrap=True)
    for name in ("Caller", "Dialled", "State"):
        table.add_column(name, overflow="fold")
    for name in ("Duration", "Turns", "Cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Ending", overflow="fold")
    for call in page.items:
        table.add_row(
            _text(call.id),
            Text(_local(call.started_at)),
            _text(call.caller_number),
            _text(call.did),
            call.state,
            _span(call.duration_ms),
            str(call.turn_count),
            "-" if call.cost_usd is None else f"${call.cost_usd:.4f}",
            _text(_ending(call)),
        )
    console.print(table)


def _print_call(detail: CallDetail) -> None:
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    call = detail.call
    latency = call.turn_latency
    facts = {
        "call": f"{call.id}, {call.state}, {call.direction}",
        "from": f"{call.caller_number} to {call.did} (trunk {call.trunk}, agent {call.agent})",
        "started": _local(call.started_at),
        "answered": f"after {_span(call.answer_delay_ms)}" if call.answered_at else "no",
        "duration": _span(call.duration_ms),
        "ending": _ending(call),
        "latency": (
            f"{_span(latency.p50_ms)} median, {_span(latency.p95_ms)} p95" if latency else "-"
        ),
        "cost": _cost(detail),
    }
    for name, value in facts.items():
        console.print(Text(f"{name:<9}", style="dim") + _text(value))
    console.print()
    for entry in _in_order(detail):
        console.print(_turn(entry) if isinstance(entry, Turn) else _tool_call(entry))
    for event in detail.events:
        said = f"! {event.kind} {dict(event.detail) or ''}"
        console.print(Text(f"{_offset(event.offset_ms)}  ") + _text(said, _LONGEST_TOOL_TEXT))


def _in_order(detail: CallDetail) -> list[Turn | ToolCall]:
    """Put each tool call behind the last turn that began before it."""
    entries: list[Turn | ToolCall] = list(detail.turns)
    for tool_call in detail.tool_calls:
        before = [
            place for place, entry in enumerate(entries) if entry.started_ms <= tool_call.started_ms
        ]
        entries.insert(before[-1] + 1 if before else 0, tool_call)
    return entries


def _turn(turn: Turn) -> Text:
    line = Text(f"{_offset(turn.started_ms)}  ")
    line.append(f"{turn.speaker:<7}", _STYLES[turn.speaker])
    if turn.interrupted and turn.text.startswith(turn.heard_text):
        line.append(clean(turn.heard_text, _LONGEST_SAID))
        unheard = clean(turn.text[len(turn.heard_text) :], _LONGEST_SAID)
        line.append(f" [interrupted; not heard: {unheard}]", "dim")
    else:
        line.append(clean(turn.text, _LONGEST_SAID) or "...")
        line.append(" [interrupted]" if turn.interrupted else "", "dim")
    if turn.latency_ms is not None:
        line.append(f"  (after {_span(turn.latency_ms)})", "dim")
    return line


def _tool_call(tool_call: ToolCall) -> Text:
    line = Text(f"{_offset(tool_call.started_ms)}  ")
    line.append("tool   ", "bold yellow")
    said = f"{tool_call.name} {tool_call.arguments} -> {tool_call.error or tool_call.output or ''}"
    line.append(clean(said, _LONGEST_TOOL_TEXT))
    line.append(f"  ({tool_call.status}, {_span(tool_call.duration_ms)})", "dim")
    return line


def _text(text: str, max_chars: int = 256) -> Text:
    return Text(clean(text, max_chars))


def _ending(call: Call) -> str:
    return f"{call.ending.by}: {call.ending.reason}" if call.ending else "-"


def _cost(detail: CallDetail) -> str:
    remarks = sorted({charge.remark for charge in detail.charges} - {""})
    cost_usd = detail.call.cost_usd
    if cost_usd is None and not detail.charges:
        return "-"
    amount = "not known" if cost_usd is None else f"${cost_usd:.4f}"
    counts = Counter(charge.purpose for charge in detail.charges)
    parts = [f"{counts[purpose]} {purpose}s" for purpose in ("response", "transcription")]
    return "; ".join([f"{amount} ({', '.join(parts)})", *remarks])


def _local(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _span(span_ms: int | None) -> str:
    if span_ms is None:
        return "-"
    return f"{span_ms} ms" if span_ms < 1000 else f"{span_ms / 1000:.1f} s"


def _offset(offset_ms: int) -> str:
    return f"{offset_ms // 60000:2d}:{offset_ms % 60000 / 1000:04.1f}"
