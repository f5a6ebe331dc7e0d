"""Everything plugged together: one process that answers calls.

    open_service: database -> journal -> Realtime (embedded or far away)
                  -> tools -> admin -> SIP, last, because it lets callers in

Left in reverse: first no new calls, then the running ones are given time, then
their log is written, then the doors close.
"""

import asyncio
import contextlib
import gc
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import structlog

from agent.admin.app import create_app
from agent.admin.server import open_admin
from agent.browser import BrowserKeys
from agent.call.handler import Call
from agent.call.ports import AgentConnector, AgentProfile, Journal
from agent.call.purse import Purse
from agent.call.records import Ending
from agent.embedded.process import open_embedded_server
from agent.profiles import addresses_of, for_call, profiles_of, regions_of
from agent.providers import connectors_of, fallbacks_of
from agent.realtime.settings import RealtimeSettings
from agent.realtime.warmth import open_client
from agent.settings import Settings
from agent.store.calls import CallLog
from agent.store.database import Database, open_database
from agent.store.journal import SqlJournal, open_journal
from agent.store.kept_secret import kept_secret
from agent.store.spending import SqlSpending
from agent.store.tokens import open_tokens
from agent.tools.toolbox import Toolbox, open_toolbox
from sip.endpoint import SipEndpoint, open_endpoint
from sip.leg import SipLeg

_SWITCH_INTERVAL_S = 0.0005
"""How long another thread may hold the interpreter while a frame is due; at the
default 5 ms the 20 ms tick stretched to 107 ms under load, at this to 20.7."""

_END_TIMEOUT_S = 5
_SAFETY_KEY_FILE = "trunkline.safety-key"


@dataclass(frozen=True)
class ServiceFacts:
    """What a person at the terminal wants to know once it runs."""

    sip_address: str
    admin_url: str
    admin_token: str | None
    """Only when it was made in this very start."""
    realtime_url: str
    embedded: bool
    max_calls: int
    is_wheel: bool


class Switchboard:
    """Who is on the line, and whether anybody else may come in."""

    def __init__(
        self,
        profiles: Mapping[str, AgentProfile],
        connectors: Sequence[AgentConnector],
        toolbox: Toolbox,
        journal: Journal,
        settings: Settings,
        purse: Purse,
    ) -> None:
        """Take what every call needs."""
        self.profiles = profiles
        """Who answers, by name; the first answers what names nobody. New calls see a change."""
        self._connectors = connectors
        self._toolbox = toolbox
        self._journal = journal
        self._limits = settings.limits
        self._recovery = settings.recovery
        self._fallback_of = fallbacks_of(settings)
        self._regions = regions_of(settings)
        self._is_embedded = settings.provider == "embedded"
        self._purse = purse
        self._calls: dict[str, tuple[Call, asyncio.Task[Ending]]] = {}
        self.is_accepting = False

    @property
    def call_count(self) -> int:
        """Calls that ring, talk or are being cleaned up after."""
        return len(self._calls)

    def take(self, leg: SipLeg) -> None:
        """Start a call for an offered leg."""
        default = next(iter(self.profiles.values()))
        profile = self.profiles.get(leg.agent_name or "", default)
        profile = for_call(profile, leg.offer, self._regions, is_embedded=self._is_embedded)
        # Tools of MCP servers come and go.
        profile = replace(profile, tools=self._toolbox.schemas(profile.tool_names))
        call = Call(
            leg,
            profile,
            self._connectors,
            self._toolbox,
            self._journal,
            self._limits,
            self._purse,
            self._recovery,
            self._fallback_of(leg.offer.trunk),
        )
        task = asyncio.get_running_loop().create_task(call.run(), name=f"call {call.call_id}")
        self._calls[call.call_id] = (call, task)
        task.add_done_callback(lambda _: self._forget(call.call_id))

    def _forget(self, call_id: str) -> None:
        del self._calls[call_id]
        if not self._calls:
            # Frames are late when the collector runs in mid-call; between calls nobody hears it.
            gc.collect()

    async def drain(self, timeout_s: float) -> None:
        """Take no more calls, give the running ones time, then end them."""
        self.is_accepting = False
        if not self._calls:
            return
        log = structlog.get_logger()
        log.info("= draining", calls=len(self._calls), timeout_s=timeout_s)
        await asyncio.wait([task for _, task in self._calls.values()], timeout=timeout_s or 0.01)
        for call, _ in list(self._calls.values()):
            call.end(Ending("trunkline", "shutting down"))
        if self._calls:
            tasks = [task for _, task in self._calls.values()]
            _, pending = await asyncio.wait(tasks, timeout=_END_TIMEOUT_S)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)


class Service:
    """The running whole, as the command that started it sees it."""

    def __init__(self, facts: ServiceFacts, settings: Settings, switchboard: Switchboard) -> None:
        """Made by `open_service`."""
        self.facts = facts
        self._settings = settings
        self._switchboard = switchboard

    def reload(self, settings: Settings) -> None:
        """Let new calls be answered by the agents configured now; running calls go on as they are.

        Everything else is bound to doors that are open; what differs there is logged.
        """
        self._switchboard.profiles = profiles_of(settings)
        later = [
            name
            for name in Settings.model_fields
            if name != "agents" and getattr(settings, name) != getattr(self._settings, name)
        ]
        structlog.get_logger().info(
            "= reloaded", agents=len(settings.answering_agents), needs_restart=later
        )


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Service]:
    """Open every door, in order; entered, calls are answered.

    Raises:
        DatabaseUnavailable, SipUnavailable, AdminUnavailable, EmbeddedServerError, ToolProblem:
            Each with a text that says what to do.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings.database))
        journal = await stack.enter_async_context(open_journal(database))
        tokens, first_token = await open_tokens(database, settings.admin.token)
        realtime = settings.realtime.model_copy(update={"provider": settings.provider})
        embedded = settings.provider == "embedded"
        url = ""
        if settings.uses_embedded:
            url = await stack.enter_async_context(open_embedded_server(settings.embedded))
        if embedded:
            key = settings.embedded.api_key  # never the provider's
            realtime = realtime.model_copy(update={"base_url": url, "api_key": key})
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=not embedded))
        toolbox = await stack.enter_async_context(open_toolbox(settings.tools, client))
        calls_client = await stack.enter_async_context(
            open_client(addresses := addresses_of(settings), warm_every_s=realtime.warm_every_s)
        )
        safety_key = _safety_key(settings, database) if addresses else b""
        switchboard = Switchboard(
            profiles_of(settings),
            connectors_of(realtime, calls_client, safety_key, url),
            toolbox,
            journal,
            settings,
            Purse(settings.limits, settings.price_list, SqlSpending(database, journal.worker)),
        )
        endpoint: SipEndpoint | None = None
        app = create_app(
            CallLog(database),
            tokens,
            is_ready=lambda: switchboard.is_accepting,
            measure=lambda: _measure(switchboard, journal, endpoint),
            keys=BrowserKeys(realtime, calls_client, lambda: switchboard.profiles, toolbox.schemas),
        )
        admin_url = await stack.enter_async_context(open_admin(settings.admin, app))
        endpoint = await stack.enter_async_context(
            open_endpoint(
                settings.sip,
                settings.trunks,
                settings.routes,
                on_call=switchboard.take,
                accepting=lambda: switchboard.is_accepting,
                no_rtp_timeout_s=settings.limits.no_rtp_timeout_s,
            )
        )
        _tune_collector()
        switchboard.is_accepting = True
        try:
            facts = _facts(settings, realtime, endpoint, admin_url, first_token, embedded)
            yield Service(facts, settings, switchboard)
        finally:
            await switchboard.drain(settings.limits.drain_timeout_s)


def _safety_key(settings: Settings, database: Database) -> bytes:
    """The key that hides callers from the provider: configured, or made at the first start."""
    key = settings.realtime.safety_key
    if key is None:
        key, _ = kept_secret(
            database.folder / _SAFETY_KEY_FILE,
            lambda: secrets.token_hex(32),
            what="safety key",
            instead="TRUNKLINE_REALTIME__SAFETY_KEY",
        )
    return key.get_secret_value().encode()


def _measure(
    switchboard: Switchboard, journal: SqlJournal, endpoint: SipEndpoint | None
) -> dict[str, tuple[str, float]]:
    """What this process carries now; most of it is 0 when nobody calls."""
    open_files = _open_files()
    return {
        "calls": ("Calls that ring or talk", switchboard.call_count),
        "pjsip_calls": ("Call slots in use inside PJSIP", endpoint.pj_calls if endpoint else 0),
        "late_ticks": (
            "20 ms ticks that began late since the start",
            endpoint.late_ticks if endpoint else 0,
        ),
        "journal_waiting": ("Records not yet in the database", journal.waiting),
        "journal_dropped": ("Records lost since the start", journal.dropped),
        "udp_sockets": ("Open UDP sockets: SIP, RTP and ICE", _udp_sockets(open_files)),
        "tasks": ("Tasks on the event loop", len(asyncio.all_tasks())),
        "open_files": ("Open file descriptors", len(open_files)),
        "threads": ("Threads of the process", len(list(Path("/proc/self/task").iterdir()))),
    }


def _open_files() -> list[str]:
    """What each open descriptor leads to, a path or `socket:[INODE]` (proc(5))."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one this loop itself has open
            found.append(str(descriptor.readlink()))
    return found


def _udp_sockets(open_files: list[str]) -> int:
    """Count ours among the machine's, by inode (proc(5), /proc/net/udp)."""
    inodes = (
        line.split()[9]
        for table in ("udp", "udp6")
        if (file := Path("/proc/self/net") / table).exists()
        for line in file.read_text().splitlines()[1:]
    )
    held = set(open_files)
    return sum(f"socket:[{inode}]" in held for inode in inodes)


def _tune_collector() -> None:
    """Keep the garbage collector from walking everything that lives as long as we do."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 1_000)


def _facts(
    settings: Settings,
    realtime: RealtimeSettings,
    endpoint: SipEndpoint,
    admin_url: str,
    first_token: str | None,
    embedded: bool,
) -> ServiceFacts:
    host = settings.sip.listen.rpartition(":")[0]
    return ServiceFacts(
        sip_address=host if endpoint.port == 5060 else f"{host}:{endpoint.port}",
        admin_url=admin_url,
        admin_token=first_token,
        realtime_url=realtime.base_url,
        embedded=embedded,
        max_calls=endpoint.max_calls,
        is_wheel=endpoint.is_wheel,
    )
