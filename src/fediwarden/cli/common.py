"""What every command group needs: the application, a run in the ledger, and asking a person; decides nothing."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import typer

from fediwarden.app import App
from fediwarden.cli.output import say
from fediwarden.config import environment
from fediwarden.errors import CannotWrite, FediwardenError
from fediwarden.model import RunId

JSON = typer.Option(False, "--json", help="Print results as JSON, one object a line.")


def build() -> App:
    """The application from this process's environment, its log open."""
    app = App(environment())
    app.tell = say
    app.open_log()
    return app


@dataclass
class Run:
    """One command as the ledger knows it."""

    id: RunId
    counts: dict[str, int] = field(default_factory=dict)


@contextmanager
def recorded(app: App, command: str, arguments: Mapping[str, str]) -> Iterator[Run]:
    """Note in the ledger that a command ran, by whom, with what, and how it ended."""
    run = Run(app.ledger.begin(command, {"by": app.actor, **arguments}, app.clock()))
    try:
        yield run
    except KeyboardInterrupt:
        app.ledger.end(run.id, "interrupted", run.counts, app.clock())
        raise
    except CannotWrite:
        raise
    except FediwardenError as error:
        app.ledger.end(run.id, f"failed: {error}", run.counts, app.clock())
        raise
    app.ledger.end(run.id, "finished", run.counts, app.clock())


def agreed(question: str) -> bool:
    """Ask a person; without a terminal nobody agrees."""
    if not sys.stdin.isatty():
        say("nobody is at the terminal to ask; add --yes to go on without asking")
        return False
    return typer.confirm(question, default=False, err=True)
