"""Sealed forms that an earlier gate took for pictures: the picture in one is sealed by itself, the form stays; asks no pict-rs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fediwarden.errors import BadEvidence
from fediwarden.gate.forms import Misread, unwrapped
from fediwarden.ledger import GATE, UNWRAPPED, Ledger
from fediwarden.model import Answer, AnswerReason, ObjectRef, RunId, Sha256
from fediwarden.platforms.pictrs.hashes import Hash, formats_of
from fediwarden.vault import Manifest, Vault


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """What came of one envelope."""

    envelope: Sha256
    sha256: Sha256 | None = None  # of the picture
    size: int = 0
    claimed: str = ""
    problem: str = ""


def manifests(vault: Vault) -> Mapping[Sha256, Manifest]:
    """What is sealed, by hash. Raises: BadEvidence."""
    return {manifest.sha256: manifest for manifest in vault.sealed()}


def unwrap(
    ledger: Ledger,
    run: RunId,
    vault: Vault,
    manifest: Manifest | None,
    envelope: Sha256,
    identities: Sequence[Path],
    at: datetime,
    *,
    because: str,
    drill: bool,
) -> Unwrapped:
    """Seal the picture in an envelope under its own hash, and put on record where it came from. Twice is the same as once.

    Raises: Misconfigured where no key fits, CannotWrite.
    """
    if manifest is None:
        return Unwrapped(envelope, problem="nothing is sealed under this hash")
    try:
        kind, data = unwrapped(vault.open(envelope, identities), manifest.because.get("content-type", ""))
    except (BadEvidence, Misread) as error:
        return Unwrapped(envelope, problem=str(error))
    name = Hash.of(data, formats_of(kind)[0])
    why = {**manifest.because, "content-type": kind, "unwrapped from": envelope, "unwrapped because": because}
    vault.seal(data, name.sha256, store=GATE, key=name.hex, at=manifest.at, because=why)
    if envelope not in ledger.uploads.unwrapped():
        ref = ObjectRef(GATE, name.hex, len(data), "")
        answer = Answer(
            ref, at, UNWRAPPED, False, AnswerReason.LOOKED, name.sha256, kind, original=envelope, sealed=True, drill=drill
        )
        ledger.record(run, (), (answer,))
    return Unwrapped(envelope, name.sha256, len(data), kind)
