"""A scripted session: stands where engines and mind would, and between session and client.

    caller's turn -> transcribe -> the words of the script
    words, tools  -> Mind       -> the steps of the script
    server events -> send       -> faults -> what really leaves
    client events -> lets_in    -> faults -> what the session sees
    RTP           -> downlink, echoes        (scripted_media.py)

One stage is one performance. It judges nothing of what the client does: turns
are taken, items kept and events ordered by the same `Session` as always.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import structlog

from agent.embedded.engines import Engines
from agent.embedded.faults import Faults
from agent.embedded.mind import CallTool, Heard, Mind, Say, Step
from agent.embedded.offers import Tool
from agent.embedded.protocol import JsonObject
from agent.embedded.script import Script, ScriptFault, ScriptStep, ScriptTurn
from agent.embedded.voice import sentences

log = structlog.get_logger()


class Dropped(Exception):
    """The script ends the session here."""


class ScriptedMind(Mind):
    """Answers as written, turn by turn, whatever was heard."""

    def __init__(self, engines: Engines, script: Script) -> None:
        super().__init__(engines.rulebook)
        self._greeting = script.greeting
        self._otherwise = ScriptStep(say=script.otherwise)
        self._turns = deque(script.turns)
        self._steps: deque[ScriptStep] = deque()
        self._manners: dict[str, ScriptStep] = {}

    def open(self, instructions: str) -> list[Step]:
        """Say the greeting the first time, then what the script goes on with."""
        del instructions
        greeting, self._greeting = self._greeting, None
        if greeting is not None:
            return [Say(greeting)]
        return self._next_turn()

    def interrupted(self) -> None:
        """Scripts do not mind."""

    def reply(self, heard: Heard, tools: Mapping[str, Tool], now: datetime) -> list[Step]:
        """Answer with the next turn's steps, up to its first tool call."""
        del heard, tools, now
        return self._next_turn()

    def tool_output(self, name: str, output: str) -> list[Step]:
        """Go on with what is written after the tool call."""
        del name
        return self._until_call(output)

    @property
    def next_turn(self) -> ScriptTurn | None:
        """The turn that will be answered next; None after the last."""
        return self._turns[0] if self._turns else None

    def manners_of(self, words: str) -> ScriptStep | None:
        """How a text is spoken; told once, for its first sentence or the beginning of a long one."""
        head = words.removesuffix(",")
        begun = next((first for first in self._manners if first.startswith(head)), "")
        return self._manners.pop(begun, None)

    def _next_turn(self) -> list[Step]:
        self._steps = deque(self._turns.popleft().answer if self._turns else [self._otherwise])
        return self._until_call("")

    def _until_call(self, output: str) -> list[Step]:
        steps: list[Step] = []
        while self._steps:
            step = self._steps.popleft()
            if step.call is not None:
                return [*steps, CallTool(step.call, step.arguments)]
            text = (step.say or "").replace("{output}", output)
            steps.append(Say(text))
            for sentence in sentences(text)[:1]:
                self._manners[sentence] = step
        return steps


class ScriptedEngines(Engines):
    """Loaded engines, and the script that every session is to play with them.

    Args:
        engines: The real ones; closed with these.
        script: The part.
    """

    def __init__(self, engines: Engines, script: Script) -> None:
        self._engines = engines
        self.script = script

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engines, name)

    def close(self) -> None:
        """Close the real ones."""
        self._engines.close()


class Stage(ScriptedEngines):
    """The engines of one scripted session; what the script leaves open, the real ones do.

    Args:
        engines: The real ones, shared.
        script: The part.
        emit: Sends one message to the client. Never raises.

    Attributes:
        opens_channel: Whether there is a data channel.
        echoes: Whether RTP goes back as it came.
        downlink: What the network does to RTP on its way to the client.
    """

    def __init__(self, engines: Engines, script: Script, emit: Callable[[str], None]) -> None:
        super().__init__(engines, script)
        self._emit = emit
        self._faults = Faults(script.faults, self._postpone)
        self._timers: list[asyncio.TimerHandle] = []
        self._over = asyncio.Event()
        self._manners: ScriptStep | None = None
        self.opens_channel = script.channel
        self.echoes = script.echo
        self.downlink = self._faults.downlink
        self.chat = None
        self.mind = ScriptedMind(engines, script)

    # -- towards the client ------------------------------------------------------------------

    def send(self, text: str) -> None:
        """Let one server event out, or what the faults make of it."""
        self._let_out(self._faults.pass_on(text))

    def lets_in(self, event: JsonObject) -> bool:
        """Say whether the session is to see this event of the client; if not, it is answered."""
        is_let_in, messages = self._faults.take(event)
        self._let_out(messages)
        return is_let_in

    def _postpone(self, fault: ScriptFault, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(after_s, self._strike, fault))

    def _strike(self, fault: ScriptFault) -> None:
        log.debug("= the script strikes", fault=fault.do)
        self._let_out(self._faults.strike(fault))

    def _let_out(self, messages: list[str]) -> None:
        for message in messages:
            self._emit(message)
        if self._faults.is_dropped:
            self._over.set()

    @property
    def is_mute(self) -> bool:
        """Whether the client hears silence, whatever is said."""
        return self._faults.is_frozen or self._faults.is_muted

    async def over(self) -> None:
        """Wait for the script to end the session.

        Raises:
            Dropped: It does.
        """
        await self._over.wait()
        # What was just sent, such as "session_expired", has to leave first.
        await asyncio.sleep(0.1)
        raise Dropped

    def leave(self) -> None:
        """Forget the faults that were still to come. Harmless when repeated."""
        for timer in self._timers:
            timer.cancel()

    # -- in place of the engines ---------------------------------------------------------------

    async def transcribe(self, pcm: bytes, *args: Any, **kwargs: Any) -> str:
        """Hear the turn that will be answered next."""
        line = self.mind.next_turn
        if line is None or line.hear is None:
            return await self._engines.transcribe(pcm, *args, **kwargs)
        await asyncio.sleep(line.hear_after_s)
        return line.hear

    async def say(self, sentence: str, *args: Any, **kwargs: Any) -> bytes:
        """Speak as the script wants it: late, with another sound, or without any."""
        begun = self.mind.manners_of(sentence)
        manners = self._manners = begun or self._manners
        if begun is not None:
            await asyncio.sleep(begun.after_s)
        if manners is None or manners.sound is None:
            pcm = await self._engines.say(sentence, *args, **kwargs)
        else:
            # The sound stands for the whole text, however many sentences it has.
            pcm = manners.sound if begun is not None else b""
        return bytes(len(pcm)) if self.is_mute or (manners and manners.silent) else pcm

    def close(self) -> None:
        """Leave the shared engines alone; who loaded them closes them."""


def open_stage(engines: Engines, emit: Callable[[str], None]) -> Stage | None:
    """Begin the performance for one session; None when there is no script to play."""
    if not isinstance(engines, ScriptedEngines):
        return None
    return Stage(engines, engines.script, emit)
