"""The command `fediwarden`: arguments in, exit code out. Every foreseen failure becomes one line and a hint; it decides nothing."""

import signal
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

import typer

from fediwarden import __version__
from fediwarden.cli import (
    apply,
    bench,
    calibrate,
    drill,
    gate,
    legacy,
    lemmy,
    maintenance,
    models,
    scan,
    setup,
    status,
    trace,
    vault,
    verdicts,
    watch,
)
from fediwarden.cli.output import say, tell
from fediwarden.errors import Exit, FediwardenError

HELP = """Guards the media storage of fediverse servers against child sexual abuse material.

It finds what is probably such material, takes it out of public reach without destroying evidence, and can put
everything back. A first hour:

\b
    fediwarden init                     write a commented configuration, choose a jurisdiction profile
    fediwarden models install           fetch the models (hash-pinned), once
    fediwarden vault init               make the vault's keys
    fediwarden scan /srv/pictrs/files   look at everything; changes nothing
    fediwarden status                   how many objects are not scanned, what is suspected
    fediwarden apply                    hide what is suspected: sealed first, reversible
    fediwarden restore KEY              put one back, byte for byte

A flag is a lead, not a fact. Exit codes are the same for every command: 0 all well, 1 something suspected,
2 wrong usage, 3 something not scanned, 4 configuration, 5 store unreachable, 6 allowance used up, 70 an error of
ours, 74 cannot write, 130 interrupted.
"""

app = typer.Typer(
    name="fediwarden",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (setup, scan, status, apply, calibrate, bench, maintenance, legacy, gate, watch, verdicts, trace):
    group.register(app)
app.add_typer(vault.app, name="vault", short_help="The sealed evidence: make its keys, list, verify, open.")
app.add_typer(lemmy.app, name="lemmy", short_help="The rights a trace needs in Lemmy's database; acting in Lemmy.")
app.add_typer(models.app, name="models", short_help="The models: fetch, build, list, verify by hash.")
app.add_typer(drill.app, name="drill", short_help="Prove a deployment with a harmless picture.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fediwarden {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", callback=_version, is_eager=True),
) -> None:
    """The options before the command's name; they are handled by their callbacks."""


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point: runs one command and leaves with its promised exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, TextIOWrapper):  # a name that this terminal cannot show must not end a command half way
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(code_of(sys.argv[1:] if arguments is None else arguments))


def code_of(arguments: Sequence[str]) -> int:
    """Run one command; the exit code of `docs/exit-codes.md`."""
    try:
        code = app(args=list(arguments), standalone_mode=False, prog_name="fediwarden")
    except FediwardenError as error:
        tell(error)
        return error.exit
    except (KeyboardInterrupt, typer.Abort):
        code = Exit.INTERRUPTED
    except SystemExit:  # so typer ends where nobody reads the output any more (`fediwarden list | head`); that is no failure
        return Exit.OK
    except typer.TyperException as error:
        show = getattr(error, "show", None)  # typer's complaints about arguments can show themselves with the usage line
        show() if show else say(f"fediwarden: {error}")
        return Exit.USAGE
    except Exception as error:  # noqa: BLE001 - the last resort: the promised code and the traceback a report needs
        traceback.print_exc()
        say(
            f"fediwarden: an error of ours ({type(error).__name__}); nothing that was recorded is lost. Please report it with the lines above"
        )
        return Exit.INTERNAL
    if code == Exit.INTERRUPTED:  # typer makes this number of Ctrl-C
        say("interrupted; what was finished is recorded, the same command goes on from here")
    return code if isinstance(code, int) else Exit.OK


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run()
