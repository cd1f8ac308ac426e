"""`verify`, `backup` and `rollback`: that everything agrees, a copy of what must not be lost, and the way back to the version before."""

from datetime import UTC
from pathlib import Path

import typer

from fediwarden.app import App, acting_alone
from fediwarden.cli.common import JSON, agreed, build, recorded
from fediwarden.cli.output import emit, plain, result, say, size
from fediwarden.errors import CannotWrite, Exit, Misconfigured
from fediwarden.ledger.database import MEMORY, location
from fediwarden.ledger.maintenance import roll_back
from fediwarden.maintenance import backup as backups
from fediwarden.maintenance.verify import Disagreement, Verify, worst
from fediwarden.model import StoreName


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="Hold ledger, vault and stores against one another.")(verify)
    app.command(short_help="Copy ledger, vault and configuration, or bring them back.")(backup)
    app.command(short_help="Take the ledger back to the version before.")(rollback)


def verify(
    store: list[str] = typer.Option([], "--store", metavar="NAME", help="Ask this store only; may be given more than once."),
    local: bool = typer.Option(False, "--local", help="Ask no store: only the ledger against the vault."),
    mend: bool = typer.Option(
        False, "--mend", help="Seal again what the vault lost and a quarantine place still has; take away what crashes left."
    ),
    json: bool = JSON,
) -> int:
    """Hold ledger, vault and stores against one another; list what does not agree, and what can be done about it.

    Reads everything that is sealed and every hidden copy, and needs no private key. It opens the keepers' credentials to read quarantine
    places, and changes nothing without --mend. Exit code 70 where evidence does not agree, 5 where a store gave no answer, 1 where
    a hiding waits to be completed.
    """
    if local and store:
        raise Misconfigured("--local asks no store, and --store asks one", hint="give one of the two")
    app = build()
    asked = [app.store(name).name for name in store]
    if not mend:
        return _verified(app, asked, local=local, mend=False, json=json)
    with acting_alone(Path(app.ledger.path).resolve()), recorded(app, "verify", {"mend": "yes"}):
        return _verified(app, asked, local=local, mend=True, json=json)


def _verified(app: App, asked: list[StoreName], *, local: bool, mend: bool, json: bool) -> int:
    folders = {False: app.configuration.path(app.settings.vault.folder), True: app.configuration.drill_vault}
    seals = mend and app.profile.keep == "preserve"
    vaults = app.vaults() if seals else None
    codes: list[Exit] = []
    mended = 0
    with app.keepers() as hold:
        work = Verify(
            app.ledger,
            folders,
            lambda name: hold(name).keeper,
            app.object_limit,
            stores=() if local else asked or None,
            mend=vaults,
        )
        for found in work.findings():
            mended += found.mended
            codes.append(Exit.OK if found.mended else found.exit)
            if json:
                emit(_finding_json(found))
            else:
                _show(found)
    code = worst(codes)
    wrong = sum(one is not Exit.OK for one in codes)
    sealed, hidden, restored = (work.counts[name] for name in ("sealed", "hidden", "restored"))
    if json:
        emit({"sealed": sealed, "hidden": hidden, "restored": restored, "disagree": wrong, "mended": mended, "agrees": not wrong})
    else:
        result(
            f"{sealed:,} sealed, {hidden:,} hidden and {restored:,} restored were held against the ledger: "
            + (f"{wrong:,} things do not agree" if wrong else "everything agrees")
            + (f", {mended:,} were put right" if mended else "")
        )
    return code


def _finding_json(found: Disagreement) -> dict[str, object]:
    return {
        "where": found.where,
        "what": found.what,
        "words": found.words,
        "hint": found.hint,
        "store": found.store,
        "key": found.key or None,
        "sha256": found.sha256,
        "mended": found.mended,
        "exit": int(found.exit),
    }


def _show(found: Disagreement) -> None:
    mark = "mended" if found.mended else "note" if found.exit is Exit.OK else found.what
    name = f"{found.store}: {found.key}: " if found.store and found.key else f"{found.sha256[:12]}: " if found.sha256 else ""
    result(f"{found.where:<7} {mark:<20} {plain(name + found.words)}")
    if found.hint:
        result(f"{'':<29}-> {plain(found.hint)}")


def backup(
    folder: Path = typer.Argument(
        ..., metavar="FOLDER", help="Where backups are kept; another disk, or a folder that is carried away."
    ),
    restore: bool = typer.Option(
        False, "--restore", help="Bring the newest back (or FOLDER itself, a dated one) into an empty home."
    ),
    check: bool = typer.Option(False, "--check", help="Read the newest whole and hold it against its hashes; writes nothing."),
    keep: int = typer.Option(
        7, "--keep", min=0, metavar="N", help="How many backups stay; 0 keeps all. Sealed evidence always stays."
    ),
    json: bool = JSON,
) -> int:
    """Copy ledger, vault, policy and configuration into FOLDER while everything runs, or bring such a copy back.

    Sealed evidence is copied once; the rest anew each time, into a folder named after the moment. Never in a backup: private keys,
    files of credentials, models. With --restore, FEDIWARDEN_HOME must be empty (models may be there); what was copied is held
    against its hashes first, and the ledger is brought up to this version.
    """
    if restore and check:
        raise Misconfigured("--restore checks by itself", hint="give one of the two")
    app = build()
    if restore:
        return _restored(app, folder, json=json)
    if check:
        return _checked(folder, json=json)
    made = backups.make(app.configuration, folder, app.clock(), keep)
    code = Exit.INTERNAL if made.problems else Exit.CONFIGURATION if made.left_out else Exit.OK
    if json:
        emit(
            {
                "folder": str(made.folder),
                "files": made.files,
                "sealed": made.sealed,
                "added": made.added,
                "bytes": made.bytes,
                "removed": made.removed,
                "left_out": made.left_out,
                "problems": made.problems,
            }
        )
        return code
    result(f"wrote {plain(str(made.folder))}: {made.files:,} files of ledger and configuration")
    result(f"sealed evidence: {made.sealed:,} files, {made.added:,} of them new ({size(made.bytes)})")
    if made.removed:
        result(f"{made.removed:,} older backups were taken away")
    for path in made.left_out:
        say(f"left out: {plain(path)} holds a private key, which belongs on no machine that scans")
    for problem in made.problems:
        say(plain(problem))
    return code


def _checked(folder: Path, *, json: bool) -> int:
    dated = backups.find(folder)
    problems = backups.check(dated)
    if json:
        emit({"folder": str(dated), "problems": problems})
    else:
        result(f"{plain(str(dated))}: " + (f"{len(problems):,} files are not what was written" if problems else "whole"))
        for problem in problems:
            result(f"  {plain(problem)}")
    return Exit.INTERNAL if problems else Exit.OK


def _restored(app: App, folder: Path, *, json: bool) -> int:
    done = backups.restore(folder, app.environment)
    if json:
        emit(
            {
                "home": str(app.configuration.home),
                "made_at": done.made_at,
                "files": done.files,
                "sealed": done.sealed,
                "upgraded": done.upgraded or None,
                "notes": done.notes,
            }
        )
        return Exit.OK
    result(f"brought back into {plain(str(app.configuration.home))}, as it was at {done.made_at}")
    result(f"{done.files:,} files of ledger and configuration, {done.sealed:,} of sealed evidence")
    if done.upgraded:
        result(f"the ledger's tables were brought from {done.upgraded}")
    for note in done.notes:
        result(plain(note))
    result("next: put the files of credentials back, `fediwarden models install`, `fediwarden doctor`, `fediwarden verify`")
    return Exit.OK


def rollback(
    yes: bool = typer.Option(False, "--yes", "-y", help="Without asking."),
    json: bool = JSON,
) -> int:
    """Take the ledger's tables back by one version, so that the version of this program before this one can open it.

    Run it with the newer program, before the older one is installed, and stop gate and watch first. A copy of the ledger as it is
    stays beside it; what only the newer tables held is in that copy alone.
    """
    app = build()
    path = location(app.configuration.path(app.settings.ledger.url))
    if path == MEMORY or not Path(path).is_file():
        raise Misconfigured(f"there is no ledger {path}", hint="check the setting `ledger`")
    file = Path(path)
    kept = file.with_name(f"{file.name}.before-rollback-{app.clock().astimezone(UTC):%Y%m%dT%H%M%SZ}")
    if not yes and not agreed(f"Take the tables of {plain(path)} back by one version? A copy stays at {plain(kept.name)}."):
        return Exit.USAGE
    with acting_alone(file.resolve()):
        try:
            found, before = roll_back(file, kept)
        except CannotWrite as error:
            raise CannotWrite(str(error), hint="stop gate, watch and scans first; then run this again") from error
    if json:
        emit({"from": found, "to": before, "copy": str(kept)})
    else:
        result(f"the ledger's tables went from {found} to {before}; as it was it lies in {plain(str(kept))}")
        result("install the version before now; any command of this version would bring the tables up again")
    return Exit.OK
