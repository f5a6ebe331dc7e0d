"""`trunkline check`: is everything there that a call needs? One line per finding."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.commands.check_chat import try_chat
from agent.commands.check_realtime import try_sessions
from agent.profiles import profiles_of
from agent.settings import Settings
from agent.store.database import DatabaseUnavailable, open_database
from agent.tools.look import look_at_tools
from sip.build import build_facts


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what, whether it is as it should be, and what to do if not."""

    subject: str
    ok: bool
    text: str


async def run_check(settings: Settings) -> int:
    """Look at everything and print it.

    Returns:
        0 if calls can be taken, 1 if anything is wrong.
    """
    failed = 0
    async for finding in _look(settings):
        print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject:<10} {finding.text}")
        failed += not finding.ok
    return 1 if failed else 0


async def _look(settings: Settings) -> AsyncIterator[Finding]:
    voices = {name: profile.voice for name, profile in profiles_of(settings).items()}
    for agent in settings.answering_agents:
        is_reachable = bool(settings.tools.transfer.targets)
        offered = [tool for tool in agent.tools if tool != "transfer" or is_reachable]
        text = f"{agent.name} answers with voice {voices[agent.name]}, tools: {', '.join(offered)}"
        if offered != list(agent.tools):
            text += "; transfer is not offered, there are no [[tools.transfer.targets]]"
        yield Finding("agent", True, text)
    async for tool in look_at_tools(settings.tools):
        yield Finding("tool", tool.is_usable, f"{tool.name}: {tool.text}")
    yield _pjsip(settings)
    yield _port("sip", settings.sip.listen, socket.SOCK_DGRAM)
    yield _rtp_range(settings)
    yield _port("admin", settings.admin.listen, socket.SOCK_STREAM)
    yield await _database(settings)
    yield _prices(settings)
    async for ok, text in try_sessions(settings):
        yield Finding("realtime", ok, text)
    if settings.provider == "embedded" and settings.embedded.chat_url:
        yield Finding("mind", *await try_chat(settings.embedded))
    for trunk in settings.trunks:
        if trunk.allow:
            yield Finding("trunk", True, f"{trunk.name}: calls from {', '.join(trunk.allow)}")
        else:
            yield Finding(
                "trunk", False, f'{trunk.name}: nobody may call; fill in allow = ["ADDRESS/BITS"]'
            )


def _pjsip(settings: Settings) -> Finding:
    build = build_facts()
    host = settings.sip.listen.rpartition(":")[0].strip("[]")
    text = f"PJSIP {build.version} carries {build.max_calls} calls at once"
    if not build.may_listen_on(host):
        return Finding(
            "pjsip",
            False,
            f"{text}; this is the public wheel, which strangers can stop with a few dozen"
            f' packets: it must not listen on {host}; use sip.listen = "127.0.0.1:5060"',
        )
    if settings.sip.max_calls > build.max_calls:
        return Finding(
            "pjsip", False, f"{text}, sip.max_calls asks for {settings.sip.max_calls}: lower it"
        )
    return Finding("pjsip", True, text)


def _port(subject: str, address: str, kind: socket.SocketKind) -> Finding:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except OSError as error:
        return Finding(
            subject,
            False,
            f"{address} cannot be used: {error.strerror}; is Trunkline running already?"
            f" Otherwise set {subject}.listen to a free address",
        )
    return Finding(subject, True, f"{address} is free")


def _rtp_range(settings: Settings) -> Finding:
    low, high = (int(part) for part in settings.sip.rtp_ports.split("-"))
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if ephemeral.exists():
        first, last = (int(part) for part in ephemeral.read_text().split())
        if low <= last and high >= first:
            return Finding(
                "rtp",
                False,
                f"ports {low}-{high} overlap the kernel's own {first}-{last}, so other programs"
                " may take them; set sip.rtp_ports below that",
            )
    return Finding("rtp", True, f"ports {low}-{high}, room for {(high - low + 1) // 2} calls")


def _prices(settings: Settings) -> Finding:
    today, prices = datetime.now(UTC).date(), settings.price_list
    unpriced = [model for model in settings.billed_models if prices.price_of(model, today) is None]
    if not unpriced:
        return Finding("prices", True, f"known for {', '.join(settings.billed_models)}")
    names = ", ".join(unpriced)
    if settings.limits.budget.is_set:
        text = f"none for {names}, so limits.budget cannot be kept; add a [[prices]] table for it"
        return Finding("prices", False, text)
    return Finding("prices", True, f"none for {names}: the cost of calls stays unknown")


async def _database(settings: Settings) -> Finding:
    try:
        async with open_database(settings.database) as database:
            return Finding("database", True, f"{database.name} is there and up to date")
    except DatabaseUnavailable as error:
        return Finding("database", False, str(error))
