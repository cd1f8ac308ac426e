"""`gate`: the check on every upload; and its secret and address. Judges nothing itself."""

import os
import sys

import typer

from fediwarden.app import App
from fediwarden.cli.common import JSON, build, recorded
from fediwarden.cli.output import emit, result, say
from fediwarden.cli.reach import given
from fediwarden.config import environment
from fediwarden.errors import Exit, FediwardenError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(short_help="Check every upload before pict-rs publishes it.")(gate)


def gate(
    new_secret: bool = typer.Option(False, "--new-secret", help="Add a secret to the file of secrets, and leave."),
    url: bool = typer.Option(False, "--url", help="Print the address for pict-rs, with its secret, and leave."),
    json: bool = JSON,
) -> int:
    """Answer pict-rs about every upload before it is published: the service of docs/gate.md. Runs until it is stopped.

    It listens on this machine only (`gate.listen`), and whoever asks must know a secret. What it refuses is sealed first;
    what it cannot look at in time passes as a debt or is refused, as the settings say, and is on record either way.
    SIGTERM and Ctrl-C finish what is in hand within five seconds; SIGHUP starts it anew without losing a request.
    Exit code 0 when it was told to stop, 130 on Ctrl-C.
    """
    from fediwarden.gate import secrets, serve

    app = build()
    if new_secret:
        app.make_home()
        secrets.add(app.gate_secrets)
        say(f"added a secret to {app.gate_secrets}; `fediwarden gate --url` prints the address for pict-rs")
        return Exit.OK
    known = secrets.read(app.gate_secrets)
    listen = app.settings.gate.listen
    if url:
        asked = given(app.settings.gate)
        address = f"http://{asked.place}/validate/{known.first}"
        if json:
            emit({"url": address, "setting": "PICTRS__MEDIA__EXTERNAL_VALIDATION", "doubt": asked.doubt})
        else:
            result(address)
            if asked.doubt:
                say(f"WARNING: {asked.doubt} (docs/gate.md)")
        return Exit.OK
    with serve.listening(listen, os.environ) as bound:
        if not serve.is_local(bound):
            say(f"WARNING: {listen} can be reached from other machines; who learns the secret can try what passes (docs/gate.md)")
        with (
            app.looking() as looker,
            recorded(app, "gate", {"listen": listen}) as run,
            app.gate(run.id, looker) as judging,
        ):
            from fediwarden.gate.protocols import application

            say(f"the gate listens on {listen}, answers within {app.settings.gate.deadline_seconds:g} s")
            ended = serve.serve(application(judging, known), judging, bound, _fit)
            run.counts = {f"{'passed' if passed else 'refused'} {why.value}": n for (passed, why), n in judging.counts.by.items()}
        if ended.again:
            say("starting anew; requests wait meanwhile")
            app.ledger.close()
            serve.start_anew(bound, [sys.executable, "-m", "fediwarden.cli.main", *sys.argv[1:]], os.environ)
    return Exit.INTERRUPTED if ended.interrupted else Exit.OK


def _fit() -> bool:
    """Whether the configuration as it is now lets a gate begin; says what is wrong where not."""
    try:
        App(environment()).check_gate()
    except FediwardenError as error:
        say(f"not started anew, the gate goes on as it was: {error}")
        return False
    return True
