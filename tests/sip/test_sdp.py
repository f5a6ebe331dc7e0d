"""What we read and change in SDP."""

import pytest

from sip.sdp import AudioAddress, audio_address, first_codec, keep_codecs, names_a_host

HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\n"


@pytest.mark.parametrize(
    ("sdp", "expected"),
    [
        pytest.param(
            HEAD + "c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n",
            AudioAddress("192.0.2.1", 4000),
            id="address of the session",
        ),
        pytest.param(
            HEAD + "c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\n",
            AudioAddress("192.0.2.2", 4000),
            id="address of the stream wins",
        ),
        pytest.param(
            HEAD + "c=IN IP4 192.0.2.1\r\nm=video 5000 RTP/AVP 96\r\nc=IN IP4 192.0.2.3\r\n"
            "m=audio 4000/2 RTP/AVP 0\r\n",
            AudioAddress("192.0.2.1", 4000),
            id="video before it is passed over",
        ),
        pytest.param(
            "c=IN IP4 192.0.2.1\nm=audio 0 RTP/AVP 0\nm=audio 4002 RTP/AVP 0\n",
            AudioAddress("192.0.2.1", 4002),
            id="refused stream is passed over",
        ),
        pytest.param(
            "c=IN IP4 0.0.0.0\nm=audio 4000 RTP/AVP 0\n", AudioAddress("", 4000), id="hold"
        ),
        pytest.param(
            "c=IN IP4 media.example\nm=audio 4000 RTP/AVP 0\n", AudioAddress("", 4000), id="a name"
        ),
        pytest.param(
            "c=IN IP6 2001:db8:0::1\nm=audio 4000 RTP/AVP 0\n",
            AudioAddress("2001:db8::1", 4000),
            id="IPv6",
        ),
        pytest.param("", None, id="late offer"),
        pytest.param("m=audio\nm=\nc=\n", None, id="cut short"),
        pytest.param("m=audio 99999999 RTP/AVP 0\n", None, id="no such port"),
        pytest.param("m=audio ² RTP/AVP 0\n", None, id="a digit that is no number"),
    ],
)
def test_audio_address(sdp: str, expected: AudioAddress | None) -> None:
    """The first live audio stream's address is found; nonsense has none."""
    assert audio_address(sdp) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("c=IN IP4 192.0.2.1", False, id="address"),
        pytest.param("c=IN IP4 233.252.0.1/127", False, id="address with TTL"),
        pytest.param("c=IN IP6 2001:db8::1", False, id="IPv6"),
        pytest.param("c=IN IP4 slow.example", True, id="name"),
        pytest.param("a=rtcp:4001", False, id="RTCP port alone"),
        pytest.param("a=rtcp:4001 IN IP4 192.0.2.1", False, id="RTCP address"),
        pytest.param("a=rtcp:4001 IN IP4 slow.example", True, id="RTCP name"),
        pytest.param("c=IN", False, id="cut short"),
    ],
)
def test_names_a_host(line: str, expected: bool) -> None:
    """Only what a resolver would have to be asked for is a name."""
    assert names_a_host(f"{HEAD}m=audio 4000 RTP/AVP 0\r\n{line}\r\n") is expected


OURS = (
    "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 8 0 120\r\n"
    "a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:120 telephone-event/8000\r\n"
    "m=video 0 RTP/AVP 8\r\na=rtpmap:8 x/1\r\n"
)


@pytest.mark.parametrize(
    ("codecs", "gone"),
    [
        pytest.param(("PCMU", "PCMA"), (), id="both"),
        pytest.param(("PCMU",), ("a=rtpmap:8 PCMA/8000\r\n",), id="PCMU only"),
        pytest.param(("PCMA",), ("a=rtpmap:0 PCMU/8000\r\n",), id="PCMA only"),
    ],
)
def test_keep_codecs(codecs: tuple[str, ...], gone: tuple[str, ...]) -> None:
    """Only the trunk's codecs stay in the audio line; other streams are left alone."""
    expected = OURS
    for line in gone:
        payload = line[len("a=rtpmap:")]
        expected = expected.replace(line, "").replace(
            "8 0 120", "8 0 120".replace(f"{payload} ", "", 1)
        )
    assert keep_codecs(OURS, codecs) == expected


@pytest.mark.parametrize(
    ("sdp", "codecs", "codec"),
    [
        pytest.param("m=audio 4000 RTP/AVP 8 0 101", ("PCMU", "PCMA"), "PCMA", id="A-law first"),
        pytest.param("m=audio 4000 RTP/AVP 9 0 8", ("PCMU", "PCMA"), "PCMU", id="G.722 before"),
        pytest.param("m=audio 4000 RTP/AVP 8 0", ("PCMU",), "PCMU", id="the trunk allows one"),
        pytest.param("m=audio 4000 RTP/AVP 9", ("PCMU", "PCMA"), "", id="neither"),
        pytest.param("", ("PCMU", "PCMA"), "", id="no offer"),
    ],
)
def test_first_codec(sdp: str, codecs: tuple[str, ...], codec: str) -> None:
    """The line will have what the caller wants most of what its trunk allows."""
    assert first_codec(f"v=0\r\n{sdp}\r\n", codecs) == codec
