"""`trunkline call`: a caller made of this program's own parts, on real SIP and RTP.

Speaks text (the embedded voice) or a WAV file, listens, writes down what it
heard (the embedded ears) and when. For each sentence it waits until the agent
has finished, so that turn latency is measured as a caller would feel it.
"""

import asyncio
import json
import re
import socket
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agent.audio.voice import VoiceTrack
from agent.audio.wav import read_wav
from sip.probe import CallRefused, Probe, open_probe
from sip.stack import SipUnavailable

_QUIET_MS = 1200
"""An agent that has been silent for so long has finished its turn."""

_REPLY_TIMEOUT_S = 15
_URI = re.compile(r"sips?:(?:[^@\s]+@)?(\[[0-9a-fA-F:]+\]|[^:;\s\[\]]+)(?::(\d+))?(?:;\S+)?")


@dataclass(frozen=True)
class Utterance:
    """A stretch of speech: who, when (ms since the answer), and the words."""

    speaker: str
    from_ms: int
    until_ms: int
    text: str


@dataclass
class Report:
    """What a test call found out."""

    uri: str
    status: int = 0
    reason: str = ""
    ringing_delay_ms: int | None = None
    answer_delay_ms: int | None = None
    first_heard_ms: int | None = None
    turn_latency_ms: list[int | None] = field(default_factory=list)
    utterances: list[Utterance] = field(default_factory=list)
    duration_ms: int | None = None
    ended_by: str = ""


class _Unusable(Exception):
    """What was asked for cannot be done; the text says why."""


def run_call(uri: str, *, say: list[str], wav: Path | None, as_json: bool, timeout_s: float) -> int:
    """Place the call and print what happened.

    Returns:
        0 if it was answered, 1 if not, 2 if it could not be tried.
    """
    try:
        uri, source_ip = _target(uri)
        speeches = _speeches(say, wav)
        report = asyncio.run(_call(uri, source_ip, speeches, timeout_s))
    except (_Unusable, SipUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(report), indent=2) if as_json else _in_words(report))
    return 0 if report.answer_delay_ms is not None else 1


def _target(uri: str) -> tuple[str, str]:
    if not uri.startswith(("sip:", "sips:")):
        uri = f"sip:{uri}"
    match = _URI.fullmatch(uri)
    if match is None:
        raise _Unusable(f"URI: found {uri!r}, accepted: sip:USER@HOST[:PORT][;transport=tcp]")
    host, port = match[1].strip("[]"), int(match[2] or 5060)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as route:
            route.connect(address)
            return uri, str(route.getsockname()[0])
    except OSError as error:
        raise _Unusable(f"URI: {host} cannot be reached: {error.strerror or error}") from None


def _speeches(say: list[str], wav: Path | None) -> list[tuple[str, bytes]]:
    if wav is not None:
        try:
            return [(f"({wav.name})", read_wav(wav))]
        except ValueError as error:
            raise _Unusable(str(error)) from None
    if not say:
        return []
    try:
        from agent.embedded.voice import Voice

        voice = Voice()
    except ImportError:
        raise _Unusable("--say needs the embedded voice; run make install, or use --wav") from None
    return [(text, voice.synthesise(text)) for text in say]


async def _call(
    uri: str, source_ip: str, speeches: list[tuple[str, bytes]], timeout_s: float
) -> Report:
    report = Report(uri)
    try:
        async with open_probe(
            uri, source_ip=source_ip, caller="test", answer_timeout_s=timeout_s
        ) as probe:
            report.status, report.reason = probe.status, probe.reason
            report.answer_delay_ms = probe.answer_delay_ms
            report.ringing_delay_ms = probe.ringing_delay_ms
            said = []
            try:
                async with asyncio.timeout(timeout_s):
                    said = await _converse(probe, speeches, report)
            except TimeoutError:
                report.reason = f"ended by --timeout after {timeout_s:g} s"
            report.duration_ms = probe.now_ms
            probe.hang_up()
            report.ended_by = (await probe.closed()).by
            report.utterances = said + _write_down(probe.heard.voice, probe)
            report.utterances.sort(key=lambda utterance: utterance.from_ms)
    except CallRefused as refusal:
        report.status, report.reason = refusal.status, refusal.reason
    return report


async def _converse(
    probe: Probe, speeches: list[tuple[str, bytes]], report: Report
) -> list[Utterance]:
    """Hear the greeting, then say each sentence and hear the answer."""
    said = []
    report.first_heard_ms = await probe.wait_until_heard(0, _REPLY_TIMEOUT_S)
    await probe.wait_until_quiet(_QUIET_MS, _REPLY_TIMEOUT_S * 2)
    for text, pcm in speeches:
        from_ms = probe.now_ms
        probe.say(pcm)
        await probe.wait_until_said()
        until_ms = probe.last_spoken_ms
        if until_ms is None:
            break
        said.append(Utterance("caller", from_ms, until_ms, text))
        heard_ms = await probe.wait_until_heard(until_ms, _REPLY_TIMEOUT_S)
        report.turn_latency_ms.append(None if heard_ms is None else heard_ms - until_ms)
        await probe.wait_until_quiet(_QUIET_MS, _REPLY_TIMEOUT_S * 2)
    return said


def _write_down(voice: VoiceTrack, probe: Probe) -> list[Utterance]:
    """The agent's turns as words; without ears, as times alone."""
    try:
        from agent.embedded.transcriber import Transcriber

        transcriber = Transcriber()
    except ImportError:
        transcriber = None
    turns: list[tuple[int, int]] = []
    for from_ms, until_ms in voice.runs:
        if turns and from_ms - turns[-1][1] < _QUIET_MS:
            turns[-1] = (turns[-1][0], until_ms)
        else:
            turns.append((from_ms, until_ms))
    written = []
    for from_ms, until_ms in turns:
        pcm = b"".join(
            frame for at_ms, frame in probe.heard.frames if from_ms - 200 <= at_ms < until_ms + 200
        )
        text = transcriber.transcribe(pcm) if transcriber else "(speech)"
        written.append(Utterance("agent", from_ms, until_ms, text))
    if transcriber:
        transcriber.close()
    return written


def _in_words(report: Report) -> str:
    if report.answer_delay_ms is None:
        status = f"{report.status} " if report.status else ""
        return f"not answered: {status}{report.reason}"
    ringing = (
        "" if report.ringing_delay_ms is None else f", rang after {report.ringing_delay_ms} ms"
    )
    lines = [f"answered after {report.answer_delay_ms} ms{ringing}"]
    lines += [
        f"  {utterance.from_ms / 1000:6.2f} s  {utterance.speaker:<6}  {utterance.text}"
        for utterance in report.utterances
    ]
    for number, latency_ms in enumerate(report.turn_latency_ms, 1):
        what = "no answer was heard" if latency_ms is None else f"{latency_ms} ms"
        lines.append(f"turn {number}: latency {what}")
    duration_s = (report.duration_ms or 0) / 1000
    by = "the caller" if report.ended_by == "caller" else "the agent"
    lines.append(f"ended by {by} after {duration_s:.1f} s: {report.reason}")
    return "\n".join(lines)
