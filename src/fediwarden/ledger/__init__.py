"""The ledger: what was seen, decided and done, in one database; importing it opens and loads nothing."""

from fediwarden.ledger.ledger import Ledger
from fediwarden.ledger.legacy import LegacyWord
from fediwarden.ledger.rows import Decided, Entry, History, Totals
from fediwarden.ledger.uploads import GATE, UploadTotals

__all__ = ["GATE", "Decided", "Entry", "History", "Ledger", "LegacyWord", "Totals", "UploadTotals"]
