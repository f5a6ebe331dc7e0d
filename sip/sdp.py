"""The few lines of an SDP that we must read or change ourselves. Pure text."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address

_PORT = re.compile("[0-9]{1,5}")

_STATIC_PAYLOADS = {"PCMU": "0", "PCMA": "8"}
"""RFC 3551, table 4."""


@dataclass(frozen=True, slots=True)
class AudioAddress:
    """Where an SDP wants its audio: `ip` is empty when it names a host or holds (0.0.0.0)."""

    ip: str
    port: int


def audio_address(sdp: str) -> AudioAddress | None:
    """Find address and port of the first audio stream; None if there is no live one.

    Source: RFC 8866, 5.7 (c= of the media wins over that of the session) and 5.14.
    """
    session_ip = media_ip = ""
    port = 0
    section = ""
    for line in sdp.splitlines():
        if line.startswith("m="):
            if section == "audio" and port:
                break
            fields = line[2:].split()
            section = fields[0] if fields else "other"
            if section == "audio" and len(fields) > 1:
                number = fields[1].partition("/")[0]
                port = int(number) if _PORT.fullmatch(number) and int(number) < 65536 else 0
                media_ip = ""
        elif line.startswith("c="):
            ip = line.split()[-1].partition("/")[0]
            if not section:
                session_ip = ip
            elif section == "audio":
                media_ip = ip
    if not port:
        return None
    try:
        address = ip_address(media_ip or session_ip)
    except ValueError:
        return AudioAddress("", port)
    return AudioAddress("" if address.is_unspecified else str(address), port)


def names_a_host(sdp: str) -> bool:
    """Tell whether an SDP gives a host's name where everybody gives an address.

    Source: RFC 8866, 5.7 (c=) and RFC 3605, 2.1 (a=rtcp); both allow a name.
    """
    for line in sdp.splitlines():
        if line.startswith(("c=IN ", "a=rtcp:")):
            fields = line.partition(" IN " if line.startswith("a=") else "IN ")[2].split()
            if len(fields) > 1:
                try:
                    ip_address(fields[1].partition("/")[0])
                except ValueError:
                    return True
    return False


def keep_codecs(sdp: str, codecs: Collection[str]) -> str:
    """Leave only these of PCMU and PCMA in our own SDP's audio lines.

    PJSIP's codec list is one for all trunks; a trunk that allows only one of
    the two gets an answer cut down to it.
    """
    dropped = {pt for name, pt in _STATIC_PAYLOADS.items() if name not in codecs}
    if not dropped:
        return sdp
    kept = []
    section = ""
    for line in sdp.splitlines(keepends=True):
        if line.startswith("m="):
            section = line[2:].split()[0]
            if section == "audio":
                head, payloads = line.split()[:3], line.split()[3:]
                left = [pt for pt in payloads if pt not in dropped]
                line = " ".join([*head, *left]) + "\r\n"
        elif section == "audio" and re.match(rf"a=(rtpmap|fmtp):({'|'.join(dropped)}) ", line):
            continue
        kept.append(line)
    return "".join(kept)


def first_codec(sdp: str, codecs: Collection[str]) -> str:
    """Find which of these codecs an offer wants most; PJSIP answers with that one alone.

    Returns:
        "PCMU" or "PCMA"; empty when there is no offer, or none of them in it.
    """
    media = re.search(r"^m=audio \S+ \S+ (.*)$", sdp, re.MULTILINE)
    names = {pt: name for name, pt in _STATIC_PAYLOADS.items() if name in codecs}
    return next((names[pt] for pt in media.group(1).split() if pt in names), "") if media else ""
