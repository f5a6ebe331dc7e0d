"""The engines all sessions share: ears, transcriber, voice and rules, loaded once.

Each heavy engine has one worker thread of its own, so that a long transcript
does not hold up a voice, and neither ever holds up the event loop::

    session -> await engines.transcribe(pcm) -> words
    session -> await engines.say(sentence)   -> pcm

Work that nobody waits for any more is dropped if it has not begun.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from agent.embedded.ears import VoiceDetector
from agent.embedded.mind import Rulebook
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.transcriber import Transcriber
from agent.embedded.voice import Voice


class EngineMissing(Exception):
    """A part of the embedded server is not installed; the text says how to get it."""


class Engines:
    """Everything that is loaded once. Close it when the last session is gone.

    Raises:
        EngineMissing: The extra `embedded` is not, or not fully, installed.
        ValueError: The facts file is not what it should be.
        OSError: The facts file cannot be read.
    """

    def __init__(self, settings: EmbeddedSettings) -> None:
        self.rulebook = Rulebook(settings.facts_file)
        try:
            self.detector = VoiceDetector()
            self._transcriber = Transcriber()
            self._voice = Voice()
        except (ImportError, FileNotFoundError) as error:
            raise EngineMissing(
                f"the embedded Realtime server lacks a part ({error}): "
                "install the extra, pip install 'trunkline[embedded]'"
            ) from error
        self._listening = ThreadPoolExecutor(1, thread_name_prefix="transcriber")
        self._speaking = ThreadPoolExecutor(1, thread_name_prefix="voice")

    async def transcribe(self, pcm: bytes) -> str:
        """Write down one turn: 8 kHz PCM in, words out; "" when nothing was understood."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._listening, self._transcriber.transcribe, pcm)

    async def say(self, sentence: str, speed: float) -> bytes:
        """Speak one sentence: words in, 8 kHz PCM out."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._speaking, self._voice.say, sentence, speed)

    def close(self) -> None:
        """Let running work end, then give the memory back."""
        self._speaking.shutdown(cancel_futures=True)
        self._listening.shutdown(cancel_futures=True)
        self._transcriber.close()
