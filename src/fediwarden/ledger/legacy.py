"""What earlier tools said about names, in the ledger's tables: history, never a decision and never a reason not to look."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from fediwarden.ledger.queries import queries
from fediwarden.ledger.rows import Columns, clean, encoded
from fediwarden.model import RunId, StoreName

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE = 5000


@dataclass(frozen=True, slots=True)
class LegacyWord:
    """What one earlier tool said about a name. `suspected` is None where it met the name and never looked."""

    tool: str
    suspected: bool | None
    at: str = ""  # as that tool wrote it


class Legacy:
    """The table of earlier tools' words."""

    def __init__(
        self,
        reading: "Callable[[], AbstractContextManager[Connection]]",
        writing: "Callable[[], AbstractContextManager[Connection]]",
    ) -> None:
        self._reading = reading
        self._writing = writing

    def add(self, run: RunId, store: StoreName, words: Iterable[tuple[str, LegacyWord]]) -> None:
        """Put what was said about these keys on record, page by page; what is there already stays as it is."""
        source = iter(words)
        while page := list(islice(source, PAGE)):
            rows: list[Columns] = [
                {
                    "store": clean(store),
                    "key": encoded(key),
                    "tool": clean(word.tool),
                    "suspected": None if word.suspected is None else int(word.suspected),
                    "at": clean(word.at),
                    "run": run,
                }
                for key, word in page
            ]
            with self._writing() as connection:
                connection.execute(queries()["add_legacy"], rows)

    def of(self, store: StoreName, key: str) -> list[LegacyWord]:
        """What earlier tools said about this key."""
        with self._reading() as connection:
            rows = connection.execute(queries()["legacy_of"], {"store": clean(store), "key": encoded(key)}).all()
        return [LegacyWord(row.tool, None if row.suspected is None else bool(row.suspected), row.at) for row in rows]

    def expect(self, run: RunId, store: StoreName, keys: Iterable[str]) -> int:
        """Note objects that a listing has still to meet: they count as never looked at until one does, or does not.

        What the ledger knows already is left as it is. Returns how many were new.
        """
        new = 0
        source = iter(keys)
        while page := list(dict.fromkeys(encoded(key) for key in islice(source, 900))):
            with self._writing() as connection:
                facts = {"store": clean(store), "keys": page}
                known = {row.key for row in connection.execute(queries()["objects_of_page"], facts)}
                number = int(connection.execute(queries()["last_ids"]).one().objects)
                rows: list[Columns] = [
                    {"id": number + place, "store": clean(store), "key": key, "run": run}
                    for place, key in enumerate((key for key in page if key not in known), start=1)
                ]
                if rows:
                    connection.execute(queries()["add_unmet"], rows)
                new += len(rows)
        return new
