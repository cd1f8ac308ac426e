"""One object's way, from a store's listing to the ledger; changes nothing in any store and never imports `actions`.

    Reader.list() -> ledger.settle() -> Reader.fetch() -> Looker.look() -> policy.decide() -> ledger.record()

Four kinds of threads share the way: one lists, a few fetch, a few look (the cage and the models do their work outside the
interpreter lock), and the caller's thread writes to the ledger and reports progress. Every queue between them is bounded, and
so are the bytes in flight; a store of a million objects takes no more memory than one of a thousand.
"""

from fediwarden.pipeline.again import Estimate, estimate, rejudge
from fediwarden.pipeline.bounds import DOWN_AFTER, Bytes, Health, InFlight
from fediwarden.pipeline.listing import Concluded, conclude, doubtful
from fediwarden.pipeline.looker import Looker, ObjectReport, OpenedObject, Opener
from fediwarden.pipeline.proving import Spread, unreadable
from fediwarden.pipeline.scan import Scan
from fediwarden.pipeline.tally import Pace, Tally

__all__ = [
    "DOWN_AFTER",
    "Bytes",
    "Concluded",
    "Estimate",
    "Health",
    "InFlight",
    "Looker",
    "ObjectReport",
    "OpenedObject",
    "Opener",
    "Pace",
    "Scan",
    "Spread",
    "Tally",
    "conclude",
    "doubtful",
    "estimate",
    "rejudge",
    "unreadable",
]
