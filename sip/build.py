"""Which PJSIP this is, and where it may be let out.

The public wheel carries four calls and can be stopped from outside with a few
dozen packets; it is for this machine alone. Our own build carries hundreds.
"""

from dataclasses import dataclass
from ipaddress import ip_address

import pjsua2 as pj

from sip.pjsip import WHEEL_CALLS, load_library


@dataclass(frozen=True, slots=True)
class Build:
    """A PJSIP library as it really is, not as it was asked to be."""

    version: str
    max_calls: int

    @property
    def is_wheel(self) -> bool:
        """Whether this is the public wheel with its few calls."""
        return self.max_calls <= WHEEL_CALLS

    def may_listen_on(self, host: str) -> bool:
        """Whether strangers can be let near this build at that address."""
        return not self.is_wheel or _is_loopback(host)


def build_facts() -> Build:
    """Start the library just far enough to ask it. Not beside a running endpoint."""
    library = load_library()
    library.pj_log_set_level(0)
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    try:
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.logConfig.level = config.logConfig.consoleLevel = 0
        endpoint.libInit(config)
        return Build(endpoint.libVersion().full, int(library.pjsua_call_get_max_count()))
    finally:
        endpoint.libDestroy()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
