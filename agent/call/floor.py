"""Who has the floor: what `Interruption` decides about the caller's sounds, done to both legs."""

from agent.call.bridge import Bridge
from agent.call.conversation import Conversation
from agent.call.diary import Diary
from agent.call.events import AgentInterrupted, AgentLost, CallEvent
from agent.call.interruption import Interruption, Reaction
from agent.call.ports import AgentLeg, AgentProfile

_KEYS_PAUSE_MS = 1500
"""Keys that follow each other this fast belong together."""

_MOST_KEYS = 64


class Floor:
    """The caller's way of taking the floor, by voice or by key."""

    def __init__(
        self,
        profile: AgentProfile,
        agent: AgentLeg,
        bridge: Bridge,
        conversation: Conversation,
        diary: Diary,
    ) -> None:
        """Serve one conversation."""
        self._is_pausing = profile.interruption.guard == "pause"
        self._yields = profile.yields
        self._agent = agent
        self._bridge = bridge
        self._conversation = conversation
        self._diary = diary
        self._interruption = Interruption(
            profile.interruption, bridge.caller_track, bridge.agent_track
        )
        self._keys = ""
        self._key_ms = 0
        self.is_in_doubt = False

    def receive(self, event: CallEvent, now_ms: int) -> bool:
        """Take one event, before the conversation does: what it means depends on who spoke.

        Returns:
            Whether it ends a turn that the agent owes an answer.
        """
        if isinstance(event, AgentInterrupted) and self._conversation.agent_is_speaking:
            self._stop(self._agent.flush(), now_ms)
        if isinstance(event, AgentLost):
            self.is_in_doubt = False
            self._bridge.duck(is_ducked=False)
        reaction = self._interruption.receive(event, now_ms, is_busy=self._agent_has_floor)
        self._react(reaction, now_ms)
        return reaction.answer

    def look(self, now_ms: int) -> bool:
        """Look again, every frame; returns as `receive`."""
        reaction = self._interruption.check(now_ms, is_busy=self._agent_has_floor)
        self._react(reaction, now_ms)
        is_dialled = bool(self._keys) and now_ms - self._key_ms >= _KEYS_PAUSE_MS
        if is_dialled:
            keys, self._keys = self._keys, ""
            self._agent.note(f"The caller pressed these keys on the telephone: {keys}")
            self._agent.answer()
        return reaction.answer or is_dialled

    def press(self, digit: str, now_ms: int) -> None:
        """The caller pressed a key that no tool waits for."""
        self._keys = (self._keys + digit)[-_MOST_KEYS:]
        self._key_ms = now_ms
        is_busy = self._conversation.agent_is_busy
        self._react(self._interruption.press(is_busy=is_busy), now_ms)

    @property
    def _agent_has_floor(self) -> bool:
        """A far end that is not guarded drops by itself what was not heard yet."""
        if self._interruption.is_guarding:
            return self._conversation.agent_is_busy
        return self._conversation.agent_is_speaking

    def _react(self, reaction: Reaction, now_ms: int) -> None:
        if reaction.flush and self._yields:
            self._stop(self._agent.flush(), now_ms)
        if reaction.stop:
            self._stop(self._agent.interrupt(), now_ms)
        elif reaction.doubts is not None:
            self._doubt(now_ms, is_in_doubt=reaction.doubts)
        if reaction.ignored:
            self._diary.note("sound_ignored", why=reaction.ignored)
        if reaction.answer and self._interruption.is_guarding:
            self._agent.answer()

    def _doubt(self, now_ms: int, *, is_in_doubt: bool) -> None:
        self.is_in_doubt = is_in_doubt
        if self._is_pausing:
            self._agent.hold(is_in_doubt)
            self._conversation.hold(now_ms, is_held=is_in_doubt)
        else:
            self._bridge.duck(is_ducked=is_in_doubt)

    def _stop(self, flushed_ms: int, now_ms: int) -> None:
        self.is_in_doubt = False
        self._bridge.duck(is_ducked=False)
        self._diary.note("barge_in", flushed_ms=flushed_ms)
        for record in self._conversation.cut(now_ms):
            self._diary.tell(record)
