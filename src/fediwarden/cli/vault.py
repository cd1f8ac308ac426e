"""`vault ...`: making the vault's keys, listing and checking what is sealed; opens nothing but on demand."""

import sys
from pathlib import Path

import typer

from fediwarden.cli.common import JSON, build
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
