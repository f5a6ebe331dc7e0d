"""The line of `trunkline check` about the language model behind `embedded.chat_url`.

The model is asked one thing, as a caller would: a URL that answers is not yet
a model that speaks.
"""

import time
from contextlib import aclosing
from urllib.parse import urlsplit

from agent.embedded.settings import EmbeddedSettings


async def try_chat(settings: EmbeddedSettings) -> tuple[bool, str]:
    """Ask the model to say something.

    Args:
        settings: With a `chat_url`.

    Returns:
        Whether it spoke, and what to tell whoever checks.
    """
    host = urlsplit(settings.chat_url).netloc.rpartition("@")[2]
    name = f"the language model {settings.chat_model} at {host}"
    try:
        # These need the embedded server's engines, which not every machine has.
        from agent.embedded.chat import ChatModel
        from agent.embedded.chat_request import Question
        from agent.embedded.chat_stream import ChatFailed
    except ImportError as error:
        return False, f"{name} cannot be asked: {error}; run make install"
    began_s = time.monotonic()
    model = ChatModel(settings)
    try:
        asked = Question([{"role": "user", "content": "Say yes."}])
        async with aclosing(model.answer(asked)) as answer:
            spoke = await anext(answer, None)
    except ChatFailed as failed:
        return False, f"{name} does not answer: {failed}"
    finally:
        await model.close()
    if spoke is None:
        return False, f"{name} said nothing that can be spoken; is it a model for conversation?"
    return True, f"{name} speaks after {time.monotonic() - began_s:.1f} s"
