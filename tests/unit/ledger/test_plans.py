"""How SQLite goes about the ledger's queries: none reads a whole table that grows with the store, unless it counts the store."""

import re
import sqlite3
from pathlib import Path

from fediwarden.ledger import Ledger
from fediwarden.ledger.queries import queries

# what grows with the store or its uploads, and the short names that queries give it
GROWS = {"objects", "looks", "findings", "decisions", "answers", "debts", "names", "o", "l", "f", "d"}
COUNTED = {  # once for a command, or a minute, or one object that a person asks about
    "totals",
    "totals_debts",
    "totals_further",
    "totals_hidden",
    "oldest_lacking",
    "dangling",
    "answers_about",
    "envelopes",
    "hidden_because",
    "unopened_debts",
    "unwrapped",
}


def test_no_query_reads_a_whole_table_for_a_page_or_an_object(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    Ledger.open(path).close()
    scans: dict[str, list[str]] = {}
    with sqlite3.connect(path) as connection:
        for name, query in queries().items():
            plain = re.sub(r"\(?__\[POSTCOMPILE_\w+\]\)?", "('a', 'b')", str(query))
            values = dict.fromkeys(re.findall(r"(?<![:\w]):(\w+)", plain), "a")
            steps = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {plain}", values)]
            whole = [step for step in steps if re.match(r"SCAN (\w+)$", step) and step.split()[1] in GROWS]
            if whole:
                scans[name] = whole

    assert set(scans) <= COUNTED, scans
