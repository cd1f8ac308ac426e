"""What a watching process asks and remembers: marks between its lives, objects that still need a look, what is new; starts nothing."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fediwarden.ledger.queries import queries
from fediwarden.ledger.rows import clean, dumps, iso, moment, ref_of
from fediwarden.model import EngineVersion, ObjectRef, RunId, StoreName

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE = 500
LISTING = "listing "  # how the names of marks about listings begin
LAST = b"\xff" * 5000  # comes after every key: none is longer


@dataclass(frozen=True, slots=True)
class Doubt:
    """A listing that came to its end, and holds so little that nothing is concluded from it."""

    store: StoreName
    listed: int  # objects in it
    accepted: int  # in the last one that was believed
    missing: int  # objects that it would make gone
    since: datetime  # when the first such listing ended

    @property
    def words(self) -> str:
        """For people, on one line."""
        return (
            f"{self.store} lists {self.listed:,} objects, and listed {self.accepted:,} when that was last believed: "
            f"{self.missing:,} are missing, and nothing is taken for gone"
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """What is remembered of the listings of a store."""

    objects: int  # in the last one that was believed
    run: RunId  # its number
    doubt: Doubt | None = None  # over what was listed since


@dataclass(frozen=True, slots=True)
class Flagged:
    """Quarantine decisions after a certain one, drills left out."""

    objects: int
    last: int  # number of the newest decision of any kind


class Watching:
    """Index and marks for `watch`; nothing here is a fact of the record."""

    def __init__(
        self,
        reading: "Callable[[], AbstractContextManager[Connection]]",
        writing: "Callable[[], AbstractContextManager[Connection]]",
    ) -> None:
        self._reading = reading
        self._writing = writing

    def mark(self, name: str) -> Mapping[str, object]:
        """What was last remembered under a name; empty where nothing was, or where it cannot be read."""
        return self.dated_mark(name)[1]

    def dated_mark(self, name: str) -> tuple[datetime | None, Mapping[str, object]]:
        """The same with when that was; None where nothing was."""
        with self._reading() as connection:
            row = connection.execute(queries()["mark"], {"name": clean(name)}).first()
        if row is None:
            return None, {}
        value = json.loads(row.value)
        return moment(row.at), value if isinstance(value, dict) else {}

    def remember(self, name: str, value: Mapping[str, object], at: datetime) -> None:
        """Put something in the place of what was remembered under a name."""
        with self._writing() as connection:
            connection.execute(queries()["set_mark"], {"name": clean(name), "value": dumps(dict(value)), "at": iso(at)})

    def listed(self, store: StoreName) -> Listed | None:
        """What is remembered of the listings of a store; None where none was believed yet."""
        return _listed(store, self.mark(f"{LISTING}{store}"))

    def remember_listed(self, store: StoreName, listed: Listed, at: datetime) -> None:
        """Put it in the place of what was remembered."""
        doubt = listed.doubt
        facts = {
            "objects": listed.objects,
            "run": listed.run,
            "doubt": doubt
            and {"listed": doubt.listed, "accepted": doubt.accepted, "missing": doubt.missing, "since": iso(doubt.since)},
        }
        self.remember(f"{LISTING}{store}", facts, at)

    def doubt(self, store: StoreName) -> Doubt | None:
        """Why the last listing of a store concluded nothing; None where it did, or there was none."""
        listed = self.listed(store)
        return listed.doubt if listed else None

    def doubts(self) -> list[Doubt]:
        """The doubts about all stores."""
        with self._reading() as connection:
            rows = connection.execute(queries()["marks_between"], {"first": LISTING, "last": LISTING[:-1] + "!"}).all()
        found = (_listed(StoreName(row.name.removeprefix(LISTING)), json.loads(row.value)) for row in rows)
        return [one.doubt for one in found if one is not None and one.doubt is not None]

    def unsettled(self, store: StoreName, engine: EngineVersion, limit: int) -> Iterator[Sequence[ObjectRef]]:
        """Pages of present objects of a store, known from earlier listings, that this engine version has not settled.

        `limit` is as in `Ledger.settle`. Costs the store nothing; what has gone since is told by fetching it. From the last key
        to the first: where keys begin with their date, what came in last comes first.
        """
        before = LAST
        while True:
            facts = {"store": clean(store), "engine": engine, "limit": limit, "before": before, "page": PAGE}
            with self._reading() as connection:
                page = connection.execute(queries()["unsettled"], facts).all()
            if not page:
                return
            before = bytes(page[-1].key)
            yield [ref_of(store, bytes(row.key), row) for row in page]

    def oldest(self, engine: EngineVersion) -> dict[str, datetime]:
        """By the reason why present objects are not scanned: when the oldest of them came in, as its store dates it."""
        with self._reading() as connection:
            rows = connection.execute(queries()["oldest_lacking"], {"engine": engine}).all()
        return {str(row.lacking): moment(row.oldest) for row in rows if row.oldest}

    def flagged(self, after: int) -> Flagged:
        """Objects about which quarantine was decided after that decision, by whichever command."""
        with self._reading() as connection:
            row = connection.execute(queries()["flagged_after"], {"after": after}).one()
        return Flagged(int(row.objects), int(row.last))


def _listed(store: StoreName, mark: object) -> Listed | None:
    """What a mark says; None where it is none of ours."""
    try:
        match mark:
            case {"objects": int(objects), "run": int(run), "doubt": None}:
                return Listed(objects, RunId(run))
            case {"objects": int(objects), "run": int(run), "doubt": {"listed": int(listed), "accepted": int(accepted), **more}}:
                doubt = Doubt(store, listed, accepted, int(str(more["missing"])), moment(str(more["since"])))
                return Listed(objects, RunId(run), doubt)
            case _:
                return None
    except (KeyError, ValueError):
        pass
    return None
