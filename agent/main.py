"""`trunkline`: the command and its subcommands."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from agent import __version__
from agent.logs import configure_logs
from agent.settings import ConfigurationError, Settings, load_settings

app = typer.Typer(
    name="trunkline",
    help="A self-hosted voice agent that answers the telephone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
calls_app = typer.Typer(help="The call log on the terminal.", no_args_is_help=True)
tokens_app = typer.Typer(help="Tokens for the admin API.", no_args_is_help=True)
db_app = typer.Typer(help="The database.", no_args_is_help=True)
app.add_typer(calls_app, name="calls")
app.add_typer(tokens_app, name="tokens")
app.add_typer(db_app, name="db")

ConfigOption = Annotated[
    Path | None, typer.Option("-c", "--config", help="The configuration file.", metavar="FILE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _settings(config: Path | None) -> Settings:
    """Read the configuration or leave with 2 and one message."""
    try:
        settings = load_settings(config)
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    configure_logs(settings.log.level)
    return settings


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trunkline {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A self-hosted voice agent that answers the telephone."""
    del version


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Answer the telephone: SIP, Realtime, journal, admin API and page, in the foreground."""
    from agent.commands.serve import run_serve

    raise typer.Exit(run_serve(_settings(config), config))


@app.command()
def check(config: ConfigOption = None) -> None:
    """Validate the configuration and its surroundings; exit 1 on any failure."""
    from agent.commands.check import run_check

    raise typer.Exit(asyncio.run(run_check(_settings(config))))


@app.command()
def call(
    uri: Annotated[str, typer.Argument(help="Whom to call, such as sip:agent@127.0.0.1")],
    say: Annotated[
        list[str] | None,
        typer.Option(help="What to say; several are said in turn, after each answer."),
    ] = None,
    wav: Annotated[Path | None, typer.Option(help="A WAV file to play instead.")] = None,
    as_json: JsonOption = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Longest the call may last, in seconds.", min=1)
    ] = 60,
) -> None:
    """Place a test call: speak, listen, print what was heard and when."""
    from agent.commands.call import run_call

    configure_logs("warning")
    raise typer.Exit(run_call(uri, say=say or [], wav=wav, as_json=as_json, timeout_s=timeout_s))


@app.command()
def realtime(
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT to listen on; port 0 takes a free one.")
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(help="YAML with what the receptionist knows.")
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option(help="YAML with what to hear, answer and break instead.", metavar="FILE"),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Append every event both ways to it, as JSON lines.", metavar="FILE"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run the embedded Realtime server alone."""
    from agent.commands.realtime import run_realtime

    settings = _settings(config).embedded
    raise typer.Exit(run_realtime(settings, listen=listen, facts=facts, script=script, trace=trace))


@calls_app.command("list")
def calls_list(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(help="How many calls, newest first.", min=1, max=200)] = 20,
    as_json: JsonOption = False,
) -> None:
    """List calls, newest first."""
    from agent.commands import calls

    raise typer.Exit(asyncio.run(calls.list_calls(_settings(config), limit=limit, as_json=as_json)))


@calls_app.command("show")
def calls_show(
    call_id: Annotated[str, typer.Argument(help="The call's id, as in `trunkline calls list`.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one call: its transcript, its tools, what happened."""
    from agent.commands import calls

    raise typer.Exit(asyncio.run(calls.show_call(_settings(config), call_id, as_json=as_json)))


@tokens_app.command("create")
def tokens_create(
    role: Annotated[str, typer.Option(help="viewer, reviewer, operator or admin.")],
    name: Annotated[str, typer.Option(help="Whom it is for.")],
    config: ConfigOption = None,
) -> None:
    """Create an API token and print it, this once."""
    from agent.commands import tokens

    raise typer.Exit(asyncio.run(tokens.create_token(_settings(config), role=role, name=name)))


@db_app.command("upgrade")
def db_upgrade(config: ConfigOption = None) -> None:
    """Bring the database to the newest revision."""
    from agent.commands import db

    raise typer.Exit(asyncio.run(db.upgrade(_settings(config))))


def main(*arguments: Any) -> None:
    """Entry point of the `trunkline` command."""
    app(list(arguments) or None, prog_name="trunkline")


if __name__ == "__main__":
    main()
