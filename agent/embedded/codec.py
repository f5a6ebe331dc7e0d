"""Which codec a call has: the first that its offer asks for and this server speaks.

Opus, PCMU or PCMA, chosen before the offer is answered.
"""

import re

from agent.realtime.codec import CodecName

_MEDIA = re.compile(r"^m=audio \d+ \S+ ([\d ]+?)\s*$", re.MULTILINE)
_MAPPING = re.compile(r"^a=rtpmap:(\d+) ([\w-]+/\d+)", re.MULTILINE)
# RFC 3551, 6: these two need no rtpmap.
_STATIC = {"0": "pcmu/8000", "8": "pcma/8000"}
_SPOKEN: dict[str, CodecName] = {"opus/48000": "opus", "pcmu/8000": "pcmu", "pcma/8000": "pcma"}


def first_spoken(sdp: str) -> CodecName | None:
    """Find which codec an offer asks for first, of those spoken here.

    Args:
        sdp: The offer.

    Returns:
        None when it has none of the codecs that are spoken here.
    """
    media = _MEDIA.search(sdp)
    if media is None:
        return None
    named = {**_STATIC, **{number: name.lower() for number, name in _MAPPING.findall(sdp)}}
    offered = (_SPOKEN.get(named.get(number, "")) for number in media.group(1).split())
    return next((name for name in offered if name), None)
