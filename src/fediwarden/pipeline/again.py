"""What needs no look: estimating a first pass, and deciding again what was looked at. Opens no picture."""

from collections.abc import Callable
from dataclasses import dataclass

from fediwarden.ledger import Ledger
from fediwarden.model import (
    RunId,
    StoreName,
)
from fediwarden.pipeline.tally import Tally
from fediwarden.policy import Policy, decide
from fediwarden.stores.interface import Reader


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a first pass over a store would take."""

    store: StoreName
    objects: int
    bytes: int
    listing_requests: int
    requests: int  # for the whole pass: the listing and one fetch an object


def estimate(reader: Reader, stop: Callable[[], bool] = lambda: False) -> Estimate:
    """List a store and add up; fetches nothing. Raises: Unreached, Refused."""
    objects = size = 0
    before = reader.requests
    for page in reader.list():
        objects += len(page)
        size += sum(ref.size for ref in page)
        if stop():
            break
    listing = reader.requests - before
    return Estimate(reader.name, objects, size, listing, listing + (objects if reader.requests else 0))


def rejudge(ledger: Ledger, run: RunId, policy: Policy, progress: Callable[[int], None] = lambda _: None) -> Tally:
    """Decide everything again whose decision another policy made, from the findings in the ledger; opens no picture."""
    tally = Tally()
    for page in ledger.stale(policy.digest):
        looks = [(entry, entry.look) for entry in page if entry.look is not None]
        decided = [(entry, look, decision) for entry, look in looks if (decision := decide(look, policy)) is not None]
        for _, look, decision in decided:
            tally.add(look, decision)
        tally.listed += len(decided)
        ledger.decide(run, [(entry, decision) for entry, _, decision in decided])
        progress(tally.listed)
    return tally
