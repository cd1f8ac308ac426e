"""What a listing that came to its end concludes about what it left out; lists nothing itself."""

from dataclasses import dataclass, replace
from datetime import datetime

from fediwarden.ledger import Doubt, Ledger, Listed
from fediwarden.model import RunId, StoreName


@dataclass(frozen=True, slots=True)
class Concluded:
    """What came of a listing: how many objects are gone, or why none is."""

    gone: int = 0
    doubt: Doubt | None = None  # nothing was concluded
    accepted: Doubt | None = None  # what was doubted, and a person said that it is right


def doubtful(listed: int, accepted: int, missing: int) -> bool:
    """Whether a listing of `listed` objects holds so little, after one of `accepted`, that the `missing` ones may still be there.

    A disk that is not mounted, another server under the same address, or a database that was begun anew shows nothing; one
    that has begun to fill again shows something else. So nothing is believed below half as many as were there, and nothing that
    leaves out nine of ten of those, whatever there is besides.
    """
    return accepted > 0 and missing > 0 and (listed * 2 < accepted or missing * 10 > accepted * 9)


def conclude(
    ledger: Ledger, run: RunId, store: StoreName, listed: int, now: datetime, *, accounted: int = 0, accept: bool = False
) -> Concluded:
    """Mark what this run did not meet in a store as gone, unless the listing is doubtful; then nothing is, and that is remembered.

    However often such a listing repeats it is held to the last one that was believed, until the store lists enough again or a person
    says that it is right (`accept`).

    Args:
        listed: objects that were listed.
        accounted: objects that were seen in the store and left to another one, as those of a pict-rs.

    Raises: CannotWrite.
    """
    known = ledger.watching.listed(store)
    unmet, looked = ledger.missing(run, store)
    there = listed + accounted
    if known is None:  # before listings were remembered: what was ever looked at was listed
        accepted, missing = (there + looked, looked) if looked else (0, 0)
    else:
        accepted = max(0, known.objects - ledger.hidden_since(known.run, store))
        missing = unmet if not there else max(0, looked - accounted)
    if doubtful(there, accepted, missing):
        since = known.doubt.since if known is not None and known.doubt is not None else now
        doubt = Doubt(store, there, accepted, missing, since)
        if not accept:
            before = known or Listed(accepted, run)
            ledger.watching.remember_listed(store, replace(before, doubt=doubt), now)
            return Concluded(doubt=doubt)
        ledger.watching.remember_listed(store, Listed(there, run), now)
        return Concluded(ledger.swept(run, store), accepted=doubt)
    ledger.watching.remember_listed(store, Listed(there, run), now)
    return Concluded(ledger.swept(run, store))
