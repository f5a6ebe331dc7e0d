"""Text from strangers, made fit to store, log and show.

SIP headers arrive with lone surrogates, NUL and terminal escapes in them;
SQLite, JSON and PostgreSQL each refuse some of those, and a log line or a
page must never be steered by them. One function, used at every door.
"""

import unicodedata

_REFUSED = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}
_LINE_BREAKS_AND_TABS = "\t\n\r"


def clean(text: str, max_chars: int = 256) -> str:
    """Replace what could break a store or steer a reader, and cap the length.

    Lone surrogates become U+FFFD; control, format (bidi overrides, zero width)
    and unassigned characters are removed; tabs and line breaks become spaces.

    Args:
        text: Anything a peer sent.
        max_chars: Longest result; longer text ends in an ellipsis.

    Returns:
        Text that is valid UTF-8 and one line.
    """
    kept = []
    for char in text[: max_chars * 4]:
        if char in _LINE_BREAKS_AND_TABS:
            kept.append(" ")
        elif "\ud800" <= char <= "\udfff":
            kept.append("\ufffd")
        elif unicodedata.category(char) not in _REFUSED:
            kept.append(char)
    result = "".join(kept).strip()
    if len(result) > max_chars or len(text) > max_chars * 4:
        return result[: max_chars - 1] + "…"
    return result
