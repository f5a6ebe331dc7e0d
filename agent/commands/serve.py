"""`trunkline serve`: the agent in the foreground, until a signal ends it."""

import asyncio
import shutil
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from agent.admin.server import AdminUnavailable
from agent.embedded.process import EmbeddedServerError
from agent.service import Service, ServiceFacts, open_service
from agent.settings import ConfigurationError, Settings, load_settings
from agent.store.database import DatabaseUnavailable, create_if_empty
from agent.tools.tool import ToolProblem
from sip.stack import SipUnavailable


def run_serve(settings: Settings, config: Path | None) -> int:
    """Serve until SIGTERM or SIGINT, then drain. SIGHUP reads the configuration again.

    Returns:
        0 after an orderly end; 2 if it could not start, with one message on stderr.
    """
    try:
        create_if_empty(settings.database)
        uvloop.run(_serve(settings, config))
    except (
        AdminUnavailable,
        DatabaseUnavailable,
        EmbeddedServerError,
        SipUnavailable,
        ToolProblem,
    ) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


async def _serve(settings: Settings, config: Path | None) -> None:
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    # Until there is something to reload: by default it would end the process, children left.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    async with open_service(settings) as service:
        loop.add_signal_handler(signal.SIGHUP, _reload, service, config)
        print(_banner(service.facts), flush=True)
        await told_to_stop.wait()


def _reload(service: Service, config: Path | None) -> None:
    try:
        service.reload(load_settings(config))
    except ConfigurationError as error:
        structlog.get_logger().error("! not reloaded, the old configuration stays", why=str(error))


def _command() -> str:
    """How to start us again from here."""
    if shutil.which("trunkline"):
        return "trunkline"
    program = Path(sys.argv[0])
    if program.name != "trunkline":
        return f"{sys.executable} -m agent.main"
    folder = Path.cwd()
    return str(program.relative_to(folder) if program.is_relative_to(folder) else program)


def _banner(facts: ServiceFacts) -> str:
    """What to dial, which page to open, who answers."""
    build = "the PJSIP wheel" if facts.is_wheel else "this PJSIP build"
    talks = (
        "the embedded Realtime server, offline (no OPENAI_API_KEY)"
        if facts.embedded
        else facts.realtime_url
    )
    lines = [
        "",
        "Trunkline answers the telephone.",
        "",
        f"  dial    sip:agent@{facts.sip_address}   with any softphone,",
        f'          or: {_command()} call sip:agent@{facts.sip_address} --say "When do you open?"',
        f"  open    {facts.admin_url}",
    ]
    if facts.admin_token is not None:
        lines.append(f"  token   {facts.admin_token}   (shown this once; the page asks for it)")
    lines += [
        f"  talks   through {talks}",
        f"  calls   {facts.max_calls} at once ({build})",
        "",
    ]
    return "\n".join(lines)
