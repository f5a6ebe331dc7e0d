"""Who may open a session: the server's own key, or a client secret made with it.

    POST client_secrets -> Access.mint(session)   -> ek_..., for a browser or a phone
    any other request   -> Access.admit(key, now) -> the session of the secret, or none

A secret opens any number of sessions until it expires; a session already open
outlives it. Secrets are kept in memory only and are never logged. Nothing here
reads a clock or a socket.
"""

import copy
import secrets
from collections import OrderedDict

from pydantic import SecretStr

from agent.embedded.protocol import JsonObject, Refused, new_id, only_known
from agent.embedded.replies import HttpError

_PREFIX = "ek_"
_DEFAULT_LIFE_S = 600
_LEAST_LIFE_S, _MOST_LIFE_S = 10, 7200
# A session object is 200 KiB at most; the oldest secrets give way.
_MOST_SECRETS = 200


class Access:
    """The key of one server and the secrets it has given out.

    Args:
        api_key: What clients must send; anyone may speak when absent.
    """

    def __init__(self, api_key: SecretStr | None) -> None:
        self._api_key = api_key
        self._secrets: OrderedDict[str, tuple[float, JsonObject]] = OrderedDict()

    def admit(self, key: str, now_s: float) -> JsonObject | None:
        """Let a client in.

        Args:
            key: What came as bearer; "" for none.
            now_s: Unix seconds.

        Returns:
            A copy of the session object its secret was made for; None with the
            server's own key, or where none is asked for.

        Raises:
            HttpError: 401, the key is wrong or the secret has expired.
        """
        if key.startswith(_PREFIX):
            expires_at, session = self._secrets.get(key, (0.0, {}))
            if now_s < expires_at:
                return copy.deepcopy(session)
            self._secrets.pop(key, None)
            raise HttpError(401, "invalid_api_key", "This client secret is unknown or has expired.")
        self.demand_key(key)
        return None

    def demand_key(self, key: str) -> None:
        """Let in nobody but who has the server's own key.

        Raises:
            HttpError: 401, it is another one.
        """
        if self._api_key is None and not key.startswith(_PREFIX):
            return
        wanted = self._api_key.get_secret_value() if self._api_key else ""
        if not wanted or not secrets.compare_digest(key.encode(), wanted.encode()):
            raise HttpError(401, "invalid_api_key", "Incorrect API key provided.")

    def mint(self, session: JsonObject, life_s: int, now_s: float) -> tuple[str, int]:
        """Make a secret for a session.

        Args:
            session: The whole session object, as `session.created` will show it.
            life_s: As `life_of` read it.
            now_s: Unix seconds.

        Returns:
            `ek_...`, and when it expires, in Unix seconds.
        """
        for old in [key for key, (expires_at, _) in self._secrets.items() if expires_at <= now_s]:
            del self._secrets[old]
        while len(self._secrets) >= _MOST_SECRETS:
            self._secrets.popitem(last=False)
        value = new_id(_PREFIX, 32)
        expires_at = int(now_s) + life_s
        self._secrets[value] = (expires_at, copy.deepcopy(session))
        return value, expires_at


def life_of(expires_after: object) -> int:
    """Read `expires_after` of a request for a secret: seconds, 600 when absent.

    Raises:
        Refused: It is not `{"anchor": "created_at", "seconds": 10 to 7200}`.
    """
    if expires_after is None:
        return _DEFAULT_LIFE_S
    if not isinstance(expires_after, dict):
        raise Refused("invalid_value", "Expected an object.", "expires_after")
    only_known(expires_after, frozenset({"anchor", "seconds"}), "expires_after")
    if expires_after.get("anchor", "created_at") != "created_at":
        raise Refused("invalid_value", "Expected 'created_at'.", "expires_after.anchor")
    seconds = expires_after.get("seconds", _DEFAULT_LIFE_S)
    is_number = isinstance(seconds, int) and not isinstance(seconds, bool)
    if not is_number or not _LEAST_LIFE_S <= seconds <= _MOST_LIFE_S:
        raise Refused("invalid_value", "Expected 10 to 7200.", "expires_after.seconds")
    return int(seconds)


def bearer(authorization: str) -> str:
    """Take the key out of an Authorization header; "" when there is none."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
