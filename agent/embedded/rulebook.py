"""What callers may mean and how it is answered: `rules.yaml`, read once for all conversations.

    words -> Rulebook.understand() -> Meaning, most likely first
    name of a reply -> Rulebook.text() -> words to say

Pure once loaded. What callers and agent say is data; what was said before is
the mind's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hassil import Intents, recognize_best

from agent.embedded.facts import Facts, load_facts
from agent.embedded.words import mentions, plain_words

PLEASANTRIES = frozenset({"who", "how_are_you", "thanks", "can_do", "greeting", "yes", "no"})
"""Intents that ask for nothing."""

_SLOTS = ("place", "whom", "what", "name")


@dataclass(frozen=True, slots=True)
class Meaning:
    """One thing a caller may have meant.

    Attributes:
        intent: As `rules.yaml` names it.
        slots: What the sentence's template caught.
        exact: The whole turn was such a sentence; else a clue was in it.
    """

    intent: str
    slots: Mapping[str, str]
    exact: bool


class Rulebook:
    """Rules and facts, shared by all conversations.

    Args:
        facts_file: YAML in the form of `facts.yaml`; the bakery when None.

    Attributes:
        facts: What the business knows.
        together: Intents of questions that are answered side by side.

    Raises:
        ValueError: The facts are not YAML of that form; the message says where.
        OSError: The file cannot be read.
    """

    def __init__(self, facts_file: Path | None = None) -> None:
        package = resources.files("agent.embedded")
        rules = yaml.safe_load(package.joinpath("rules.yaml").read_text("utf-8"))
        known = load_facts(facts_file or package.joinpath("facts.yaml"))
        self._replies: Mapping[str, Any] = rules["replies"]
        self.facts = Facts(known, self._replies)
        self._direct: Mapping[str, list[str]] = rules["direct"]
        self._fillers = sorted((plain_words(w) for w in rules["fillers"]), key=len, reverse=True)
        self._words: dict[str, list[str]] = {
            name: [plain_words(word) for word in intent["words"]]
            for name, intent in rules["intents"].items()
        }
        self.together = frozenset(n for n, i in rules["intents"].items() if i.get("together"))
        self._intents = _compiled({n: i["sentences"] for n, i in rules["intents"].items()})
        self._names = _compiled({"name": rules["name_sentences"]})
        # The first match compiles the templates (100 ms), which no caller should wait for.
        self.understand("what are your opening hours on the first saturday")
        self.name_in("my name is nobody")

    def text(self, reply: str, **values: str) -> str:
        """Put a reply of `rules.yaml` into words."""
        return str(self._replies[reply]).format(**{"name": self.facts.name, **values})

    def abilities(self, *, has_weather: bool) -> str:
        """What the receptionist can do, as a list to be spoken."""
        weather = [self.text("ability_weather")] if has_weather else []
        return ", ".join([*self._replies["abilities"], *weather, self.text("ability_message")])

    def direct(self, instructions: str) -> str:
        """The reply an operator asks for without giving the words; "" for none known."""
        plain = plain_words(instructions)
        for reply, clues in self._direct.items():
            if any(clue in plain for clue in clues):
                return reply
        return ""

    def understand(self, text: str) -> list[Meaning]:
        """Find what a caller may have meant, most likely first; [] when nothing fits."""
        words = plain_words(text)
        bare = self.without_fillers(words)
        for candidate in dict.fromkeys((words, bare)):
            if candidate and (found := recognize_best(candidate, self._intents)):
                slots = {name: str(entity.value) for name, entity in found.entities.items()}
                exact = Meaning(found.intent.name, slots, exact=True)
                others = [m for m in self._by_words(words) if m.intent != exact.intent]
                # "No thanks, goodbye" is a goodbye, however well "no thanks" fits.
                if exact.intent in PLEASANTRIES and others and others[0].intent == "goodbye":
                    return [others[0], exact, *others[1:]]
                return [exact, *others]
        return self._by_words(words)

    def _by_words(self, words: str) -> list[Meaning]:
        return [
            Meaning(intent, {}, exact=False)
            for intent, clues in self._words.items()
            if any(mentions(words, clue) for clue in clues)
        ]

    def without_fillers(self, words: str) -> str:
        """Take greetings, hesitations and politeness off the front."""
        for _ in range(6):
            for filler in self._fillers:
                if words.startswith(f"{filler} "):
                    words = words[len(filler) + 1 :]
                    break
            else:
                break
        return words

    def name_in(self, text: str) -> str:
        """The name a caller gives, without "my name is" around it; "" if there is none."""
        words = self.without_fillers(plain_words(text))
        found = recognize_best(words, self._names)
        name = str(found.entities["name"].value) if found else words
        return " ".join(part.capitalize() for part in name.split()[:4])


def _compiled(sentences: Mapping[str, Sequence[str]]) -> Intents:
    return Intents.from_dict(
        {
            "language": "en",
            "intents": {n: {"data": [{"sentences": list(s)}]} for n, s in sentences.items()},
            "lists": {slot: {"wildcard": True} for slot in _SLOTS},
        }
    )
