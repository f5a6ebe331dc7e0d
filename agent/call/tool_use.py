"""The tools of one call: run when the model asks, each a row from its first moment on."""

import asyncio

from agent.call.diary import Diary
from agent.call.events import ToolCallRequested
from agent.call.farewell import Farewell
from agent.call.ports import AgentLeg, Toolbox
from agent.call.records import ToolCallRecord, ToolStatus

_SAY_GOODBYE = "Say a short goodbye to the caller. The line is closed right after it."


class ToolUse:
    """Runs what the model asks for, and hands back what came of it."""

    def __init__(self, toolbox: Toolbox, agent: AgentLeg, farewell: Farewell, diary: Diary) -> None:
        """Serve one conversation."""
        self._toolbox = toolbox
        self._agent = agent
        self._farewell = farewell
        self._diary = diary

    async def use(self, request: ToolCallRequested) -> None:
        """Run one tool to its end; cancelled, its row says so."""
        diary = self._diary
        started_ms = diary.now_ms()

        def record(status: ToolStatus, output: str | None, error: str | None) -> None:
            duration_ms = None if status == "running" else diary.now_ms() - started_ms
            diary.tell(
                ToolCallRecord(
                    call_id=diary.call_id,
                    tool_call_id=request.tool_call_id,
                    item_id=request.item_id,
                    name=request.name,
                    arguments=request.arguments,
                    output=output,
                    error=error,
                    status=status,
                    started_ms=started_ms,
                    duration_ms=duration_ms,
                )
            )

        record("running", None, None)
        try:
            result = await self._toolbox.run(request.name, request.arguments)
        except asyncio.CancelledError:
            record("failed", None, "the call ended before the tool did")
            raise
        record("failed" if result.error else "completed", result.output, result.error)
        if not result.ends_call:
            self._agent.give_tool_output(request.tool_call_id, result.output)
            return
        spoken = self._farewell.ask(request.response_id, diary.now_ms())
        self._agent.give_tool_output(request.tool_call_id, result.output, reply=False)
        if not spoken:
            self._agent.speak(_SAY_GOODBYE)
