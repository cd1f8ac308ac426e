"""`clear` and `lapse`: a person's word that bytes pass, given or taken back, or that nobody can look at them; changes no store."""

from dataclasses import replace

import typer

from fediwarden.cli.common import JSON, build, recorded
from fediwarden.cli.facts import is_sha256, means
from fediwarden.cli.output import emit, plain, result
from fediwarden.errors import Exit, Misconfigured
from fediwarden.model import Decision, EngineVersion, Sha256, Step

BEGINNING = 8  # characters of a SHA-256 that are enough to name one of a few debts


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="Put on record that certain bytes pass, such as an upload that the gate refused.")(clear)
    app.command(short_help="End a debt of the gate over bytes that nobody can look at any more.")(lapse)


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


def lapse(
    subject: str = typer.Argument(
        ..., metavar="SHA256", help="The bytes, as `fediwarden list --debts` names them, or how that begins."
    ),
    because: str = typer.Option(..., "--because", help="Why, for the record."),
    json: bool = JSON,
) -> int:
    """End the gate's debt over bytes that nobody can look at any more, such as a file that pict-rs has lost.

    By itself a debt lapses only when pict-rs says that it does not have the bytes; that it cannot read them is no such word.
    The debt counts as lapsed, with your reason; should the bytes turn up again, a scan looks at them as at any others.
    """
    app = build()
    debts = [debt for debt in app.ledger.uploads.debts(EngineVersion("")) if _means(subject, debt.sha256)]
    if not debts:
        raise Misconfigured(
            f"no debt is open over {plain(subject)}", hint="`fediwarden list --debts` names them by their SHA-256"
        )
    if len({debt.sha256 for debt in debts}) > 1:
        raise Misconfigured(
            f"{plain(subject)} begins the SHA-256 of several debts", hint="write more of it; `fediwarden list --debts` names them"
        )
    with recorded(app, "lapse", {"subject": subject, "because": because}) as run:
        app.ledger.uploads.lapse(debts, f"{app.actor}: {because}", app.clock())
        run.counts.update({"debts": len(debts)})
    if json:
        emit({"sha256": debts[0].sha256, "debts": len(debts), "by": app.actor, "because": because})
        return Exit.OK
    result(f"the debt over {debts[0].sha256} is ended, by {plain(app.actor)}; it counts as lapsed")
    return Exit.OK


def _means(subject: str, sha256: str) -> bool:
    """Whether a person who wrote `subject` may mean these bytes: the whole hash, or at least eight characters of how it begins."""
    return len(subject) >= BEGINNING and sha256.startswith(subject.lower())
