"""A message or an order being taken: whose it is, what it says, which number, is that right.

    MessageForm.hear() -> what to say; `awaiting` -> what is asked for next, or how it ended

Pure; the mind decides whether what was said is an answer at all.
"""

from typing import Literal

from agent.embedded.rulebook import Rulebook
from agent.embedded.voice import spoken_digits
from agent.embedded.words import digits_in

Field = Literal["name", "text", "number", "confirm", "done"]

# As many as a telephone number has at least.
_WHOLE_NUMBER_DIGITS = 7
_MOST_NUMBER_QUESTIONS = 2


class MessageForm:
    """One message.

    Args:
        rulebook: For the words.
        is_order: The text is an order.

    Attributes:
        awaiting: What was asked for last.
    """

    def __init__(self, rulebook: Rulebook, *, is_order: bool) -> None:
        self._rules = rulebook
        self._is_order = is_order
        self._forget()

    def _forget(self) -> None:
        self.awaiting: Field = "name"
        self._name = self._text = self._digits = ""
        self._asked_more = 0

    def begin(self) -> str:
        """The first question."""
        return self._rules.text("order" if self._is_order else "ask_name")

    def hear(self, text: str, meant: set[str]) -> str:
        """Take the caller's next words.

        Args:
            text: As transcribed.
            meant: The intents in them.

        Returns:
            What to say next.
        """
        match self.awaiting:
            case "name":
                self._name = self._rules.name_in(text)
                self.awaiting = "text"
                question = "order_text" if self._is_order else "ask_text"
                return self._rules.text(question, name=self._name)
            case "text":
                self._text = text.strip().rstrip(".!?")
                self.awaiting = "number"
                return self._rules.text("ask_number")
            case "number":
                return self._take_number(text, meant)
            case _:
                return self._take_confirmation(meant)

    def _take_number(self, text: str, meant: set[str]) -> str:
        digits = digits_in(text)
        is_refused = not digits and ("no" in meant or bool(self._digits))
        is_whole = len(digits) >= _WHOLE_NUMBER_DIGITS
        self._digits = digits if is_whole else self._digits + digits
        lacks_digits = len(self._digits) < _WHOLE_NUMBER_DIGITS
        if lacks_digits and not is_refused and self._asked_more < _MOST_NUMBER_QUESTIONS:
            self._asked_more += 1
            if self._digits:
                return self._rules.text("number_more", digits=spoken_digits(self._digits))
            return self._rules.text("ask_number")
        return self._read_back()

    def _take_confirmation(self, meant: set[str]) -> str:
        if "no" in meant:
            self._forget()
            return self._rules.text("ask_name_again")
        if "yes" in meant or "thanks" in meant:
            self.awaiting = "done"
            return self._rules.text("message_done")
        return self._read_back()

    def _read_back(self) -> str:
        self.awaiting = "confirm"
        digits = spoken_digits(self._digits)
        call_back = (
            self._rules.text("call_back", digits=digits)
            if digits
            else self._rules.text("no_call_back")
        )
        return self._rules.text("read_back", name=self._name, text=self._text, call_back=call_back)
