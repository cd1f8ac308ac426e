"""Other names of objects, who asked for a trace, and what was done on platforms, in the ledger's tables; knows no platform."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fediwarden.ledger.queries import queries
from fediwarden.ledger.rows import clean, counts_of, decoded, dumps, encoded, iso, moment
from fediwarden.model import DeedState, Name, NameKind, ObjectRef, PlatformDeed, RunId, Sha256, StoreName, TraceRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Platforms:
    """Facts that platforms told, and facts about what was asked of and done on them."""

    def __init__(
        self,
        reading: "Callable[[], AbstractContextManager[Connection]]",
        writing: "Callable[[], AbstractContextManager[Connection]]",
    ) -> None:
        self._reading = reading
        self._writing = writing

    def add_names(self, run: RunId, refs: Sequence[ObjectRef]) -> None:
        """Put the names of these objects on record. (`Ledger.settle` does it for what is listed.)"""
        with self._writing() as connection:
            add_names(connection, run, refs)

    def names_of(self, store: StoreName, key: str) -> tuple[Name, ...]:
        """Every name that an object was ever known by."""
        with self._reading() as connection:
            rows = connection.execute(queries()["names_of"], {"store": clean(store), "key": encoded(key)}).all()
        return tuple(Name(NameKind(row.kind), row.name) for row in rows)

    def named(self, text: str) -> list[tuple[StoreName, str]]:
        """Store and key of the objects that this name meant."""
        with self._reading() as connection:
            rows = connection.execute(queries()["named"], {"name": clean(text)}).all()
        return list(dict.fromkeys((StoreName(row.store), decoded(row.key)) for row in rows))

    def holding(self, sha256: Sha256) -> list[tuple[StoreName, str]]:
        """Store and key of objects that hold, or held when last looked at, these bytes; a thousand at most."""
        with self._reading() as connection:
            rows = connection.execute(queries()["holding"], {"sha256": sha256}).all()
        return [(StoreName(row.store), decoded(row.key)) for row in rows]

    def traced(self, run: RunId, record: TraceRecord) -> None:
        """Put on record that somebody asked, before the answer is shown."""
        facts = {
            "run": run,
            "at": iso(record.at),
            "actor": clean(record.actor),
            "reason": clean(record.reason),
            "subject": clean(record.subject),
            "sha256": record.sha256,
            "sealed": record.sealed,
            "counts": dumps(dict(record.counts)),
            "problem": clean(record.problem),
        }
        with self._writing() as connection:
            connection.execute(queries()["add_trace"], facts)

    def traces(self, sha256: Sha256) -> list[TraceRecord]:
        """Who asked about these bytes, oldest first."""
        with self._reading() as connection:
            return [
                TraceRecord(
                    moment(row.at),
                    row.actor,
                    row.reason,
                    row.subject,
                    row.sha256,
                    row.sealed,
                    counts_of(row.counts),
                    row.problem,
                )
                for row in connection.execute(queries()["traces_of"], {"sha256": sha256})
            ]

    def did(self, run: RunId, deed: PlatformDeed) -> None:
        """One more line of what is done on a platform: begun before it is asked for, then done or failed."""
        facts = {
            "run": run,
            "at": iso(deed.at),
            "actor": clean(deed.actor),
            "platform": clean(deed.platform),
            "sha256": deed.sha256,
            "act": clean(deed.act),
            "target": clean(deed.target),
            "state": deed.state.value,
            "problem": clean(deed.problem),
        }
        with self._writing() as connection:
            connection.execute(queries()["add_platform_deed"], facts)

    def deeds(self, sha256: Sha256) -> list[PlatformDeed]:
        """What was done on platforms about these bytes, oldest first."""
        with self._reading() as connection:
            return [
                PlatformDeed(
                    moment(row.at), row.actor, row.platform, row.act, row.target, DeedState(row.state), row.sha256, row.problem
                )
                for row in connection.execute(queries()["platform_deeds_of"], {"sha256": sha256})
            ]


def add_names(connection: "Connection", run: RunId, refs: Sequence[ObjectRef]) -> None:
    """Rows for the names of these objects; what is on record already stays."""
    rows = [
        {"store": clean(ref.store), "key": encoded(ref.key), "kind": name.kind.value, "name": clean(name.text), "run": run}
        for ref in refs
        for name in ref.names
    ]
    if rows:
        connection.execute(queries()["add_name"], rows)
