"""`clear`: a person's word that certain bytes pass, given or taken back; changes no store."""

from dataclasses import replace

import typer

from fediwarden.cli.common import JSON, build, recorded
from fediwarden.cli.facts import is_sha256, means
from fediwarden.cli.output import emit, plain, result
from fediwarden.errors import Exit, Misconfigured
from fediwarden.model import Decision, Sha256, Step


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="Put on record that certain bytes pass, such as an upload that the gate refused.")(clear)


def clear(
    subject: str = typer.Argument(..., metavar="SHA256|KEY", help="The bytes, or an object that holds them."),
    because: str = typer.Option(..., "--because", help="Why, for the record."),
    store: str = typer.Option("", "--store", help='The store, where several hold this key; "gate" for what the gate refused.'),
    take_back: bool = typer.Option(
        False, "--take-back", help="Take a word back instead: hidden bytes that a failed restore left free to pass."
    ),
    json: bool = JSON,
) -> int:
    """Put your word on record that these bytes pass. It stands over every later look, by scans and by the gate.

    For what was suspected wrongly and is not hidden: an upload that the gate refused can be sent again then, and an object
    that is owed is no longer. What is hidden already comes back with `fediwarden restore`, which records the same.
    """
    app = build()
    found = means(app, subject, store)
    hashes = {entry.sha256 for entry in found if entry.sha256}
    if is_sha256(subject) and not found:
        hashes = {Sha256(subject.lower())}  # never met: the word waits for them
    if len(hashes) != 1:
        if hashes:
            raise Misconfigured(
                f"{plain(subject)} means {len(hashes)} different contents", hint="say which: give the SHA-256, or --store"
            )
        raise Misconfigured(
            f"no bytes are known by {plain(subject)}",
            hint="give a SHA-256, or a key as `fediwarden list` names it; an object that was never read has none",
        )
    (sha256,) = hashes
    hidden = sorted({(event.store, event.key) for event in app.ledger.hidden() if event.sha256 == sha256})
    said = app.ledger.verdict(sha256)
    if take_back and (not hidden or said is None or said.step is not Step.PASS):
        raise Misconfigured(
            f"no word that lets hidden bytes pass stands on {sha256[:12]}",
            hint="this takes back a word over bytes that are hidden, and nothing else",
        )
    word = Decision(Step.PASS, "cleared by a person", because, by=app.actor)
    if take_back:
        word = replace(word, step=Step.QUARANTINE, rule="word taken back")
    with recorded(app, "clear", {"subject": subject, "because": because, "take back": "yes" if take_back else ""}) as run:
        objects = app.ledger.clear(run.id, sha256, word)
        run.counts.update({"objects": objects})
    if json:
        emit(
            {
                "sha256": sha256,
                "objects": objects,
                "by": app.actor,
                "because": because,
                "hidden": [{"store": where, "key": key} for where, key in hidden],
            }
        )
        return Exit.OK
    if take_back:
        result(f"{sha256} is suspected again, by {plain(app.actor)}: {objects:,} objects hold or held these bytes")
        return Exit.OK
    result(f"{sha256} passes from now on, by {plain(app.actor)}: {objects:,} objects hold or held these bytes")
    for where, key in hidden:
        result(f"still hidden: {plain(where)}: {plain(key)}; `fediwarden restore` puts it back")
    return Exit.OK
