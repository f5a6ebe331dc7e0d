"""The agent's answers: when there is one, what it does, and how it is stopped.

    caller_said(Heard), a tool's output, response.create -> steps -> ResponseWriter, Speech

One response at a time in the conversation, a few beside it. The steps come
from the mind or, where one is configured, from the language model. Orders of
events: S3 to S5, S7 and S8 of the protocol reference.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from agent.embedded.asking import Asking, exact_words
from agent.embedded.chat_stream import ChatFailed, Part, Write
from agent.embedded.ears import Ears
from agent.embedded.idle import IdleWatch
from agent.embedded.items import text_of
from agent.embedded.mind import CallTool, Heard, Mind, Say, Step, words_to_say
from agent.embedded.offers import Offer, demanded_call
from agent.embedded.protocol import JsonObject, Refused
from agent.embedded.response import OutOfTokens, ResponseWriter, Status
from agent.embedded.response_options import checked_response
from agent.embedded.session_object import offer
from agent.embedded.speech import Speech
from agent.embedded.state import State

_MOST_ASIDES = 8
_MOST_WAITING = 200
_MOST_RECALLED = 20
STILL_THERE = "Are you still there?"
"""What a caller is told who says nothing, where the client asks for that."""
# A mind is brief; a client's greeting of this length takes two minutes to say.
_MOST_CHARS_SAID = 2000
_MOST_UNHEARD_MS = 600_000  # 10 MB


class Answers:
    """The responses of one session.

    Args:
        state: The session.
        ears: Whether the caller goes on speaking.
        speech: The voice.
    """

    def __init__(self, state: State, ears: Ears, speech: Speech) -> None:
        self._state = state
        self._ears = ears
        self._speech = speech
        self._unanswered: list[Heard] = []
        self._owes_answer = False
        self._tool_outputs: list[tuple[str, str]] = []
        self._response: ResponseWriter | None = None
        self._response_task: asyncio.Task[None] | None = None
        self._asides: dict[str, tuple[ResponseWriter, asyncio.Task[None]]] = {}
        self._idle = IdleWatch()
        self._asking = Asking(state, speech.heard)

    @property
    def is_busy(self) -> bool:
        """Whether any response is being made."""
        return self._response is not None or bool(self._asides)

    # -- what the caller does ------------------------------------------------------------------

    def caller_began(self) -> None:
        """The caller speaks: whatever the agent says may have to stop."""
        self._idle.disarm()
        if self._state.takes_turns("interrupt_response"):
            self.hush("turn_detected")

    def caller_said(self, heard: Heard, *, wants_answer: bool) -> None:
        """A turn of the caller is understood.

        Args:
            heard: Its words.
            wants_answer: The agent answers by itself, as soon as it can.
        """
        self._unanswered.append(heard)
        self._owes_answer = self._owes_answer or wants_answer
        self._answer_if_free()

    def silent_since(self) -> int | None:
        """S8: since when nobody has spoken, once `idle_timeout_ms` is over."""
        detection = self._state.config["audio"]["input"]["turn_detection"]
        return self._idle.due(
            self._ears.now_ms,
            detection and detection.get("idle_timeout_ms"),
            agent_speaks=self._speech.is_heard or self._response is not None,
        )

    def speak_up(self) -> None:
        """Ask a silent caller whether anybody is there."""
        if self._state.takes_turns("create_response"):
            self._respond({}, [Say(STILL_THERE)])

    # -- what the client does ------------------------------------------------------------------

    def take_item(self, item: JsonObject) -> None:
        """The client added an item: something said, or a tool's output."""
        if item["type"] == "function_call_output":
            name = self._state.conversation.function_name(item["call_id"])
            self._tool_outputs.append((name, item["output"]))
        elif item["type"] == "message" and item["role"] == "user":
            self._unanswered.append(Heard(text_of(item)))
        # A client may add items without end and ask for nothing.
        del self._unanswered[:-_MOST_WAITING], self._tool_outputs[:-_MOST_WAITING]

    def create(self, event: JsonObject) -> None:
        """Begin the response a client asks for.

        Raises:
            Refused: It cannot be made, or another one is being made.
        """
        if self._speech.waiting_ms > _MOST_UNHEARD_MS:
            raise Refused("rate_limit_exceeded", "There are ten minutes of speech to be heard.")
        options = checked_response(event.get("response"))
        for item in options.get("input") or ():
            if item["type"] == "item_reference":
                self._state.conversation.get(item["id"])
        self._check_choice(options)
        if options.get("conversation") == "none":
            self._respond_aside(options)
            return
        if self._response is not None:
            raise Refused(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self._response.id}",
            )
        self._respond(options, None)

    def _check_choice(self, options: JsonObject) -> None:
        choice = options.get("tool_choice")
        if choice is not None and choice not in ("auto", "none"):
            asked = self._offer(options)
            if not asked.must_call:
                raise Refused(
                    "invalid_value", "There is no such tool to call.", "response.tool_choice"
                )

    def cancel(self, event: JsonObject) -> None:
        """End the response a client names, or the one in the conversation.

        Raises:
            Refused: There is no such response.
        """
        wanted = event.get("response_id")
        if isinstance(wanted, str) and wanted in self._asides:
            self._speech.complete(wanted)
            writer, task = self._asides.pop(wanted)
            task.cancel()
            writer.finish("cancelled", {"type": "cancelled", "reason": "client_cancelled"})
            return
        if self._response is None or (wanted is not None and wanted != self._response.id):
            raise Refused(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )
        self._speech.complete(self._response.id)
        self._stop("client_cancelled")

    def hush(self, reason: str) -> None:
        """S5: stop speaking and generating at once."""
        self._speech.cut()
        self._stop(reason)

    def _stop(self, reason: str) -> None:
        writer, task = self._response, self._response_task
        self._response = self._response_task = None
        if writer is None or task is None:
            return
        task.cancel()
        details = {"type": "cancelled", "reason": reason}
        writer.finish("cancelled", details, heard_ms=self._state.heard_ms)

    # -- what the agent does ---------------------------------------------------------------------

    def _answer_if_free(self) -> None:
        """Answer what the caller said, unless somebody is at it or the caller goes on."""
        if not self._owes_answer or self._response is not None or self._ears.speaking:
            return
        if self._state.engines.chat is not None and any(heard.text for heard in self._unanswered):
            self._owes_answer = False
            self._respond({}, None)
            return
        steps = self._reply({})
        if steps:
            self._respond({}, steps)
        else:
            # After a cough the caller is as silent as before.
            self._idle.answered(self._ears.now_ms, self._speech.ahead_ms)

    def _reply(self, options: JsonObject) -> list[Step]:
        """Let the mind answer everything said since the last answer, as one turn."""
        heard = Heard(
            " ".join(heard.text for heard in self._unanswered if heard.text),
            sum(heard.voiced_ms for heard in self._unanswered),
        )
        self._unanswered.clear()
        self._owes_answer = False
        state = self._state
        asked = self._offer(options)
        if heard.text and (call := self._demanded(asked, [heard.text])):
            return [call]
        return state.mind.reply(heard, asked.tools, state.local_time())

    def _offer(self, options: JsonObject) -> Offer:
        """The tools of a response: the session's, unless it has its own."""
        return offer({**self._state.config, **options})

    def _demanded(self, asked: Offer, said: list[str]) -> CallTool | None:
        """The call a client insists on, with what was said lately; None where the choice is free.

        Args:
            asked: The tools.
            said: The caller's words to be answered, the latest first.
        """
        if not asked.must_call:
            return None
        before = [
            text_of(item)
            for item in reversed(self._state.conversation.items)
            if item.get("role") == "user"
        ]
        said = [text for text in dict.fromkeys([*said, *before[:_MOST_RECALLED]]) if text]
        call = demanded_call(asked, said, self._state.local_time())
        return CallTool(*call) if call else None

    def _respond(self, options: JsonObject, steps: list[Step] | None) -> None:
        """Begin a response; without steps, what it does is decided once transcripts are there."""
        self._idle.disarm()
        state = self._state
        writer = ResponseWriter(state.emit, state.conversation, state.config, options)
        self._response = writer
        writer.begin()
        self._response_task = state.start(self._produce(writer, options, steps))

    async def _produce(
        self, writer: ResponseWriter, options: JsonObject, steps: list[Step] | None
    ) -> None:
        async with aclosing(self._steps(options, steps)) as coming:
            status, details = await self._carry_out(writer, coming, options)
        writer.finish(status, details, heard_ms=self._state.heard_ms)
        self._response = self._response_task = None
        self._idle.answered(self._ears.now_ms, self._speech.ahead_ms)
        self._answer_if_free()

    async def _carry_out(
        self, writer: ResponseWriter, steps: AsyncGenerator[Step | Part, None], options: JsonObject
    ) -> tuple[Status, JsonObject | None]:
        """Say and call what comes, and close the message; returns how the response ended."""
        is_parallel = {**self._state.config, **options}.get("parallel_tool_calls", True)
        try:
            async for step in steps:
                if isinstance(step, Say):
                    await self._speech.say(writer, step.text[:_MOST_CHARS_SAID])
                    continue
                if isinstance(step, Write):
                    self._speech.write(writer, step.text)
                    continue
                await self._speech.end_message(writer)
                writer.call_tool(step.name, step.arguments)
                if not is_parallel:
                    break
        except OutOfTokens:
            await self._speech.end_message(writer, is_whole=False)
            return "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}
        except ChatFailed as failed:
            await self._speech.end_message(writer, is_whole=False)
            message = f"The language model did not answer: {failed}."
            error = {"type": "server_error", "code": failed.code, "message": message}
            return "failed", {"type": "failed", "error": error}
        await self._speech.end_message(writer)
        return "completed", None

    async def _steps(
        self, options: JsonObject, steps: list[Step] | None, *, is_aside: bool = False
    ) -> AsyncGenerator[Step | Part, None]:
        """What a response does, step by step as it becomes known."""
        if steps is None:
            if self._state.transcribing:
                await asyncio.wait(self._state.transcribing)
            chat = self._state.engines.chat
            if chat is None:
                steps = self._decide_aside(options) if is_aside else self._decide(options)
            elif words := exact_words(options.get("instructions") or ""):
                steps = [Say(words)]
            else:
                if not is_aside and options.get("input") is None:
                    self._take_questions()
                tools = self._offer(options).tools
                async with aclosing(self._asking.answer(chat, options, tools)) as answer:
                    async for part in answer:
                        yield part
                return
        for step in steps:
            yield step

    def _take_questions(self) -> None:
        """All that was said and given back is in the conversation, which is answered now."""
        self._unanswered.clear()
        self._tool_outputs.clear()
        self._owes_answer = False

    def _decide(self, options: JsonObject) -> list[Step]:
        mind = self._state.mind
        if options.get("input") is not None:
            return self._decide_on_input(mind, options)
        said = " ".join(heard.text for heard in self._unanswered if heard.text)
        if call := self._demanded(self._offer(options), [said]):
            self._take_questions()
            return [call]
        if self._tool_outputs:
            outputs, self._tool_outputs = self._tool_outputs, []
            return [s for name, output in outputs for s in mind.tool_output(name, output)]
        if not options.get("instructions") and self._unanswered:
            return self._reply(options)
        return mind.open(options.get("instructions") or "")

    def _decide_on_input(self, mind: Mind, options: JsonObject) -> list[Step]:
        """Answer the items a response was given instead of the conversation."""
        state = self._state
        items = [
            state.conversation.find(item["id"]) if item["type"] == "item_reference" else item
            for item in options.get("input") or ()
        ]
        words = " ".join(text_of(item) for item in items if item and item.get("role") == "user")
        asked = self._offer(options)
        if call := self._demanded(asked, [words]):
            return [call]
        if not words or words_to_say(options.get("instructions") or ""):
            return mind.open(options.get("instructions") or "")
        return mind.reply(Heard(words), asked.tools, state.local_time())

    # -- beside the conversation -------------------------------------------------------------------

    def _respond_aside(self, options: JsonObject) -> None:
        """Begin a response outside the conversation, beside whatever else is going on."""
        if len(self._asides) >= _MOST_ASIDES:
            raise Refused(
                "conversation_already_has_active_response",
                f"There are {_MOST_ASIDES} responses outside the conversation in progress.",
            )
        writer = ResponseWriter(self._state.emit, None, self._state.config, options)
        writer.begin()
        task = self._state.start(self._produce_aside(writer, options))
        self._asides[writer.id] = (writer, task)

    async def _produce_aside(self, writer: ResponseWriter, options: JsonObject) -> None:
        async with aclosing(self._steps(options, None, is_aside=True)) as coming:
            status, details = await self._carry_out(writer, coming, options)
        self._asides.pop(writer.id, None)
        writer.finish(status, details)

    def _decide_aside(self, options: JsonObject) -> list[Step]:
        instructions = options.get("instructions") or self._state.config["instructions"]
        return self._decide_on_input(Mind(self._state.engines.rulebook, instructions), options)
