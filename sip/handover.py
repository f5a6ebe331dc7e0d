"""A transfer by REFER: what the far end tells of it, and what that means.

    REFER -> 202 -> NOTIFY 100 -> NOTIFY 180 -> NOTIFY 200: somebody took the caller
          -> 4xx-6xx, or NOTIFY 4xx-6xx: nobody did

Decides only; told statuses and whether they are the last. Source: RFC 3515, 2.4.
"""

from agent.call.clean import clean


class Handover:
    """One transfer that was asked for."""

    def __init__(self) -> None:
        self.is_over = False
        self.problem = ""
        """Why nobody took the caller; empty while that is open, and after success."""
        self._is_accepted = False

    @property
    def is_likely(self) -> bool:
        """The far end tries, or has done it: when it hangs up now, it has the other call."""
        return self._is_accepted and not self.problem

    def told(self, status: int, reason: str, *, is_last: bool) -> None:
        """Take one status of the transfer."""
        if self.is_over:
            return
        if status < 300:
            self._is_accepted = True
            # Some ends stop telling with a provisional status: nothing more will come.
            self.is_over = status >= 200 or is_last
            if status < 200 and is_last:
                self.problem = f"the far end stopped telling after {status}"
        else:
            self.is_over = True
            self.problem = f"{status} {clean(reason, 64)}".strip()
