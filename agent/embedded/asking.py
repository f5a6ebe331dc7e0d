"""One session's questions to the language model, and what the caller hears when it fails.

    session, response object, items -> Question -> ChatModel -> parts of the answer
                                        failure -> one apology, then ChatFailed

Words a client demands exactly need no model: a greeting is said at once and as
it was written, with every model and with none that answers.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import structlog

from agent.embedded.chat import ChatModel
from agent.embedded.chat_request import as_heard, question
from agent.embedded.chat_stream import ChatFailed, Part
from agent.embedded.mind import Step
from agent.embedded.offers import Tool
from agent.embedded.protocol import JsonObject
from agent.embedded.state import State

log = structlog.get_logger()

_EXACTLY = re.compile(
    r"\bexactly (?:these|the following|this)\b[^\"“]*[\"“](.+)[\"”]", re.DOTALL | re.IGNORECASE
)


def exact_words(instructions: str) -> str:
    """Find the words that are demanded exactly; "" when the wording is free.

    Args:
        instructions: For example `Greet the caller with exactly these words: "Hello."`.
    """
    demanded = _EXACTLY.search(instructions)
    return " ".join(demanded.group(1).split()) if demanded else ""


class Asking:
    """Asks for one session.

    Args:
        state: The session.
        heard: What the caller heard of items that were cut short, by item id.
    """

    def __init__(self, state: State, heard: Mapping[str, str]) -> None:
        self._state = state
        self._heard = heard
        self._sorry_after: str | None = ""

    async def answer(
        self, chat: ChatModel, options: JsonObject, tools: Mapping[str, Tool]
    ) -> AsyncGenerator[Step | Part, None]:
        """Let the language model make one response.

        Args:
            chat: The model.
            options: The `response` object; what it names replaces the session's.
            tools: What may be called.

        Raises:
            ChatFailed: It did not answer. A caller was told so, once until there are new words.
            OutOfTokens: As `ChatModel.answer`.
        """
        conversation = self._state.conversation
        items = conversation.items
        if options.get("input") is not None:
            given = (
                conversation.find(item["id"]) if item["type"] == "item_reference" else item
                for item in options["input"]
            )
            items = [item for item in given if item is not None]
        asked = question({**self._state.config, **options}, as_heard(items, self._heard), tools)
        last_said = next((i["id"] for i in reversed(items) if i.get("role") == "user"), None)
        try:
            async with aclosing(chat.answer(asked)) as answer:
                async for part in answer:
                    yield part
        except ChatFailed as error:
            log.warning("! the language model did not answer", reason=str(error), code=error.code)
            # A client that asks again after a failure shall not have it said again.
            if asked.is_spoken and self._sorry_after != last_said:
                self._sorry_after = last_said
                for step in self._state.mind.trouble():
                    yield step
            raise
