"""A call to run tools in, for their tests."""

from typing import Any

from agent.call.ports import DigitsKeyed, DigitsWanted, LineRefused, ToolContext


class FakeLine:
    """A line that does what the test says."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.noted: list[dict[str, Any]] = []
        self.refuses = ""
        self.keyed = DigitsKeyed("", "timeout")

    async def transfer(self, target: str) -> None:
        if self.refuses:
            raise LineRefused(self.refuses)
        self.did.append(f"REFER {target}")

    def send_digits(self, digits: str) -> None:
        if self.refuses:
            raise LineRefused(self.refuses)
        self.did.append(f"keys {digits}")

    async def collect_digits(self, wanted: DigitsWanted) -> DigitsKeyed:
        self.did.append(f"wait for {wanted.count} or {wanted.terminator!r}")
        return self.keyed

    def note(self, kind: str, **detail: object) -> None:
        self.noted.append({"kind": kind, **detail})


def context(*tools: str, line: FakeLine | None = None) -> ToolContext:
    """A call that was offered these tools."""
    return ToolContext(
        call_id="call-1",
        agent="receptionist",
        trunk="carrier",
        did="+15550100",
        caller_number="+15550111",
        timezone="Europe/Berlin",
        tools=frozenset(tools),
        line=line or FakeLine(),
    )
