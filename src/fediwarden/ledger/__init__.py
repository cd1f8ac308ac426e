"""The ledger: what was seen, decided and done, in one database; importing it opens and loads nothing."""

from fediwarden.ledger.ledger import Ledger
from fediwarden.ledger.legacy import LegacyWord
from fediwarden.ledger.rows import Decided, Entry, History, Totals
from fediwarden.ledger.uploads import GATE, UNWRAPPED, Envelope, LastTen, UploadTotals
from fediwarden.ledger.watching import Doubt, Listed

__all__ = [
    "GATE",
    "UNWRAPPED",
    "Decided",
    "Doubt",
    "Entry",
    "Envelope",
    "History",
    "LastTen",
    "Ledger",
    "LegacyWord",
    "Listed",
    "Totals",
    "UploadTotals",
]
