"""Which headers let a request in, at OpenAI, Azure or the embedded server.

    key      Authorization: Bearer sk-...   (Azure: api-key)
    secret   Authorization: Bearer ek_...   for one call, see `secrets`

and who it is for: organisation, project, and a hash in place of the caller, so that
the provider can tell callers apart without knowing them.
"""

import hashlib
import hmac

from agent.realtime.settings import RealtimeSettings

_NOBODY = frozenset({"", "anonymous", "unknown", "unavailable", "restricted", "private"})


def key_headers(settings: RealtimeSettings, safety_identifier: str = "") -> dict[str, str]:
    """Headers of a request with the project's key; without one, only who it is for."""
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    headers = {}
    if key:
        is_azure = settings.provider == "azure"
        headers = {"api-key": key} if is_azure else {"Authorization": f"Bearer {key}"}
    if settings.provider != "azure":
        whose = {
            "OpenAI-Organization": settings.organization,
            "OpenAI-Project": settings.project,
            "OpenAI-Safety-Identifier": safety_identifier,
        }
        headers |= {name: value for name, value in whose.items() if value}
    return headers


def secret_headers(secret: str) -> dict[str, str]:
    """Headers of a request with a secret that knows already who it is for."""
    return {"Authorization": f"Bearer {secret}"}


def safety_identifier(caller_number: str, key: bytes) -> str:
    """Stand for a caller at the provider: the same for every call, and no number.

    Args:
        caller_number: As in the From header. Callers who hide theirs are nobody:
            as one person they would all pay for what one of them does.
        key: Secret; without it, every number could be tried.

    Returns:
        64 hexadecimal characters, or "" for nobody or without a key.
    """
    if not key or caller_number.lower() in _NOBODY:
        return ""
    return hmac.new(key, caller_number.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
