"""`vault ...`: making the vault's keys, listing and checking what is sealed; opens nothing but on demand."""

import sys
from pathlib import Path

import typer

from fediwarden.cli.common import JSON, agreed, build, recorded
from fediwarden.cli.output import emit, plain, result, say, size
from fediwarden.errors import Exit, Misconfigured
from fediwarden.model import Sha256
from fediwarden.vault import make_identities, write_recipients

app = typer.Typer(
    name="vault",
    help="The sealed evidence: age-encrypted bytes that this machine can write and not read.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(short_help="Make two key pairs, or take public keys that exist.")
def init(
    recipient: list[str] = typer.Option(
        [],
        "--recipient",
        metavar="AGE1...",
        help="A public age key that exists already; give two or more. None makes two new pairs.",
    ),
    json: bool = JSON,
) -> int:
    """Make two key pairs, or take existing public keys, so that evidence can be sealed.

    The two private halves belong to two people and on no server: move them away at once. Whoever holds one can open
    everything that is sealed; when all are lost, nothing that only the vault holds can ever be restored.
    """
    built = build()
    built.make_home()
    file = built.configuration.path(built.settings.vault.recipients)
    if file.exists():
        raise Misconfigured(
            f"{file} exists already; what is sealed was sealed to those keys",
            hint="edit it to add another key; keep the old ones",
        )
    if len(recipient) == 1:
        raise Misconfigured(
            "one public key is not enough", hint="give --recipient twice or more, so that one lost key loses nothing"
        )
    made = [] if recipient else make_identities(built.configuration.home / "vault-keys")
    write_recipients(file, recipient or [identity.public for identity in made])
    if json:
        emit(
            {
                "recipients": str(file),
                "public": recipient or [identity.public for identity in made],
                "private": [str(identity.path) for identity in made],
            }
        )
        return Exit.OK
    result(f"wrote {file}; everything hidden from now on is sealed to {len(recipient or made)} public keys first")
    for identity in made:
        result(f"  private key: {identity.path}")
    if made:
        say("MOVE the private keys away from this machine now: one to each of two people you trust, on a USB stick or in a")
        say("password manager, then delete them here. `fediwarden doctor` reminds you while one is left.")
    return Exit.OK


@app.command(name="list", short_help="What is sealed: hash, size, when, which object, which rule.")
def list_sealed(
    drill: bool = typer.Option(False, "--drill", help="The drill pictures' vault instead."), json: bool = JSON
) -> int:
    """What is sealed, by manifest: hash, size, when, from which store and key, by which rule. Opens nothing."""
    built = build()
    for manifest in built.vault(drill=drill).sealed():
        if json:
            emit(
                {
                    "sha256": manifest.sha256,
                    "size": manifest.size,
                    "sealed_at": manifest.at,
                    "store": manifest.store,
                    "key": manifest.key,
                    "because": dict(manifest.because),
                }
            )
        else:
            result(
                f"{manifest.sha256}  {size(manifest.size):>9}  {manifest.at:%Y-%m-%d %H:%M}  {plain(manifest.store)}  {plain(manifest.key)}  {plain(manifest.because.get('rule', ''))}"
            )
    return Exit.OK


@app.command(short_help="Check sealed files against their manifests, and the record.")
def verify(json: bool = JSON) -> int:
    """Check every sealed file against its manifest, and the chained record of deeds. Exit code 70 if something was altered."""
    built = build()
    bad: list[str] = []
    count = 0
    for drill in (False, True):
        vault = built.vault(drill=drill)
        for manifest in vault.sealed():
            count += 1
            if not vault.check(manifest.sha256):
                bad.append(manifest.sha256)
    chain = built.ledger.verify()
    if json:
        emit({"sealed": count, "altered": bad, "record": chain})
    else:
        result(
            f"{count:,} sealed, {len(bad):,} altered or missing; the record of deeds {'is whole' if not chain else 'IS BROKEN'}"
        )
        for line in (*bad, *chain):
            result(f"  {plain(line)}")
    return Exit.INTERNAL if bad or chain else Exit.OK


@app.command(name="open", short_help="Write one sealed object to standard output, on record.")
def open_sealed(
    sha256: str = typer.Argument(..., help="The hash, as `vault list` shows it."),
    identity: list[Path] = typer.Option(..., "--identity", metavar="FILE", help="One of the vault's private keys."),
    because: str = typer.Option(..., "--because", help="Why it is opened; goes on record."),
    drill: bool = typer.Option(False, "--drill", help="From the drill pictures' vault."),
) -> int:
    """Write one sealed object to standard output, for handing it to the police. On record; never to a terminal."""
    built = build()
    if sys.stdout.isatty():
        raise Misconfigured(
            "a terminal is no place for evidence", hint="send it into the program that needs it, such as: ... | age -r KEY > file"
        )
    run = built.ledger.begin("vault open", {"sha256": sha256, "because": because, "by": built.actor}, built.clock())
    data = built.vault(drill=drill).open(Sha256(sha256), identity)
    built.ledger.end(run, "opened", {}, built.clock())
    sys.stdout.buffer.write(data)
    return Exit.OK


@app.command(short_help="Name forms of pict-rs 0.6 that were taken for pictures, and end their debts.")
def envelopes(
    lapse: bool = typer.Option(False, "--lapse", help="End their debts: nothing in pict-rs has these bytes."),
    because: str = typer.Option("", "--because", help="Why they are ended; goes on record. Needed with --lapse."),
    yes: bool = typer.Option(False, "--yes", "-y", help="End them without asking."),
    json: bool = JSON,
) -> int:
    """Name what an earlier version of the gate took for pictures of pict-rs 0.6: whole forms, sealed or let through as debts.

    The object itself lies in pict-rs under its own hash, and a complete scan since has looked at it. Only then is a debt ended.
    """
    built = build()
    if lapse and not because:
        raise Misconfigured("why are these debts ended?", hint="say it with --because; it goes on record")
    found = built.ledger.uploads.envelopes()
    ended = [one for one in found if one.debt is not None and not one.present] if lapse else []
    if ended and not yes and not agreed(f"End {len(ended):,} debts that no look can pay?"):
        raise Misconfigured("no debt was ended")
    if ended:
        with recorded(built, "vault envelopes", {"because": because}) as run:
            numbers = [one.debt for one in ended if one.debt is not None]
            built.ledger.uploads.lapse(numbers, f"a form was taken for the picture: {because}", built.clock())
            run.counts["lapsed"] = len(ended)
    opened = built.ledger.uploads.unwrapped()
    for one in found:
        unwrapped = one.sha256 in opened
        if json:
            facts = {"sha256": one.sha256, "size": one.size, "at": one.at, "claimed": one.claimed, "sealed": one.sealed}
            facts |= {"drill": one.drill, "unwrapped": unwrapped, "debt": one.debt, "listed": one.present}
            emit({**facts, "lapsed": one in ended} if lapse else facts)
            continue
        words = [f"sealed{' as a drill' if one.drill else ''}{', unwrapped' if unwrapped else ''}"] if one.sealed else []
        if one.debt is not None:
            words.append("its debt is ended now" if one in ended else "a debt")
        result(
            f"{one.sha256}  {size(one.size):>9}  {one.at:%Y-%m-%d %H:%M}  {plain(one.claimed)}  ({'; '.join(words) or 'passed or refused'})"
        )
    left = [one for one in found if one.debt is not None and one not in ended]
    if not found:
        say("none: nothing on record looks like a form around a picture")
    if [one for one in left if one.present]:
        say("a debt can be ended once a complete scan of pict-rs has looked at what lies there: `fediwarden scan` first")
    elif left:
        say('`fediwarden vault envelopes --lapse --because "..."` ends the debts')
    if [one for one in found if one.sealed and one.sha256 not in opened]:
        say("`fediwarden vault unwrap --identity FILE` takes sealed pictures out of their forms")
    return Exit.OK


@app.command(short_help="Take sealed pictures out of the forms that they were sealed in.")
def unwrap(
    sha256: list[str] = typer.Argument(
        None, metavar="[SHA256]...", help="Envelopes; all that `vault envelopes` names unless given."
    ),
    identity: list[Path] = typer.Option(..., "--identity", metavar="FILE", help="One of the vault's private keys."),
    because: str = typer.Option(..., "--because", help="Why they are opened; goes on record."),
    drill: bool = typer.Option(False, "--drill", help="In the drill pictures' vault."),
    json: bool = JSON,
) -> int:
    """Take the picture out of sealed forms, in memory, and seal it by itself under its own hash. The envelopes stay as they are."""
    from fediwarden.gate.envelopes import manifests
    from fediwarden.gate.envelopes import unwrap as take_out

    built = build()
    vault = built.vault(drill=drill)
    named = [one.sha256 for one in built.ledger.uploads.envelopes() if one.sealed and one.drill == drill]
    wanted = [Sha256(one.lower()) for one in sha256 or named]
    failed = 0
    with recorded(built, "vault unwrap", {"because": because, "sha256": " ".join(sha256 or ())}) as run:
        sealed = manifests(vault)
        for envelope in wanted:
            one = take_out(
                built.ledger, run.id, vault, sealed.get(envelope), envelope, identity, built.clock(), because=because, drill=drill
            )
            failed += bool(one.problem)
            run.counts = {"unwrapped": run.counts.get("unwrapped", 0) + (not one.problem), "failed": failed}
            if json:
                facts = {"envelope": one.envelope, "sha256": one.sha256, "size": one.size, "content_type": one.claimed}
                emit({**facts, "problem": one.problem})
            elif one.problem:
                result(f"{one.envelope}  NOT UNWRAPPED: {plain(one.problem)}")
            else:
                result(f"{one.envelope}  holds {one.sha256}, {size(one.size)}, {plain(one.claimed)}; sealed by itself")
    if not wanted:
        say("none: no sealed envelope is on record; `fediwarden vault envelopes`")
    return Exit.NOT_SCANNED if failed else Exit.OK
