"""What the ledger promises about vault and stores, its own soundness, and a copy of it while others write; compares nothing."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.ledger import database, migrate
from fediwarden.ledger.queries import queries
from fediwarden.ledger.rows import clean, decoded, deed_of, encoded, iso
from fediwarden.model import DeedEvent, Sha256, StoreName

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

PAGE = 500


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """That something is on record as sealed."""

    sha256: Sha256
    what: str  # "deed", "refused upload", "trace", or "picture" for what a platform was about to delete
    drill: bool = False
    store: StoreName | None = None
    key: str = ""
    restored: bool = False  # a person put it back since; its sealed copy may have been taken out by hand


class Maintenance:
    """Questions of `verify` and `backup`."""

    def __init__(
        self, reading: "Callable[[], AbstractContextManager[Connection]]", engine: "Engine", path: str, *, in_memory: bool
    ) -> None:
        self._reading = reading
        self._engine = engine
        self._path = path
        self._in_memory = in_memory

    def damage(self) -> list[str]:
        """What the database itself finds broken in its file, a line each."""
        with self._reading() as connection:
            lines = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
        return [] if lines == ["ok"] else lines

    def sealed(self) -> Iterator[SealedRecord]:
        """Everything that is on record as sealed: hidden objects, refused uploads, traces, what a platform deleted."""
        after = 0
        while page := self._page("sealed_deeds", after):
            for row in page:
                after = row.seq
                yield SealedRecord(
                    Sha256(row.sha256), "deed", bool(row.drill), StoreName(row.store), decoded(row.key), bool(row.restored)
                )
        after = 0
        while page := self._page("sealed_answers", after):
            for row in page:
                after = row.id
                yield SealedRecord(Sha256(row.sha256), "refused upload", bool(row.drill))
        after = 0
        while page := self._page("sealed_traces", after):
            for row in page:
                after = row.id
                yield SealedRecord(Sha256(row.sealed), "trace")
        after = 0
        while page := self._page("sealed_before_deletion", after):
            for row in page:
                after = row.id
                yield SealedRecord(Sha256(row.sha256), "picture", key=row.target)

    def knows(self, sha256: Sha256) -> bool:
        """Whether a deed, an answer of the gate or a trace is on record that could have sealed this."""
        with self._reading() as connection:
            return connection.execute(queries()["sealed_known"], {"sha256": sha256}).first() is not None

    def restored(self) -> Iterator[DeedEvent]:
        """The newest restoring that was done of each object and bytes, where nothing was hidden there since."""
        return self._deeds("restored")

    def came_back(self, sha256: Sha256) -> bool:
        """Whether a restoring of these bytes was ever done, anywhere."""
        with self._reading() as connection:
            return connection.execute(queries()["came_back"], {"sha256": sha256}).first() is not None

    def words_left(self) -> Iterator[DeedEvent]:
        """The last try to restore bytes that never came back, though a person's word for that restoring lets them pass.

        The first builds of 0.1 gave the word before they tried.
        """
        return self._deeds("words_left")

    def unfinished(self) -> Iterator[DeedEvent]:
        """The last event of every restoring that was begun and did not end."""
        return self._deeds("unfinished_restores")

    def stands(self, event: DeedEvent) -> bool:
        """Whether this is still the last thing that was done to these bytes under this key."""
        facts = {"store": clean(event.store), "key": encoded(event.key), "sha256": event.sha256}
        with self._reading() as connection:
            row = connection.execute(queries()["last_effect"], facts).first()
        return row is not None and (row.act, row.at) == (event.act.value, iso(event.at))

    def copy_to(self, file: Path) -> None:
        """Write the whole ledger as it is at one moment into a new file, whatever others write meanwhile, and check the copy.

        Raises: CannotWrite, Misconfigured (damaged).
        """
        if self._in_memory:
            raise Misconfigured("a ledger in memory cannot be copied")
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise CannotWrite(f"cannot write {file}: {error.strerror}", hint="check the disk, and who owns the folder") from error
        with database.translated_errors(self._path):
            source = self._engine.raw_connection()
            try:
                with database.translated_errors(str(file)):
                    _copy(source.driver_connection, file)
            finally:
                source.close()

    def _page(self, name: str, after: int) -> list[Any]:
        with self._reading() as connection:
            return list(connection.execute(queries()[name], {"after": after, "limit": PAGE}).all())

    def _deeds(self, name: str) -> Iterator[DeedEvent]:
        after = 0
        while page := self._page(name, after):
            for row in page:
                after = row.seq
                yield deed_of(row)


def _copy(source: Any, file: Path) -> None:
    copy = sqlite3.connect(file, isolation_level=None)
    try:
        source.backup(copy)  # in one step: a read transaction of a WAL ledger keeps no writer waiting
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, that can be carried
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        copy.close()
    if found != "ok":
        raise Misconfigured(f"the copy {file} of the ledger is damaged: {found}", hint="run `fediwarden verify`")
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def roll_back(file: Path, kept: Path) -> tuple[str, str]:
    """Take the tables of a ledger back by one version, after copying it to `kept`. Returns the versions before and after.

    What only the newer tables held is in the copy alone then. Nobody else may have the ledger open.
    Raises: Misconfigured (no ledger, or at its first version), CannotWrite.
    """
    path = database.location(file)
    engine = database.connect(path, read_only=False)
    try:
        with database.translated_errors(path):
            found = migrate.current(engine, path)
            before = migrate.before(found)
            if found is None or before is None:
                raise Misconfigured(f"the ledger {path} has no version before this one")
            Maintenance(engine.connect, engine, path, in_memory=False).copy_to(kept)
            with database.writing(engine).begin() as connection:
                migrate.migrate(connection, before)
        return found, before
    finally:
        engine.dispose()


def tables_of(file: Path) -> str:
    """The version of a ledger's tables. Raises: Misconfigured for a file that is none."""
    path = database.location(file)
    engine = database.connect(path, read_only=True)
    try:
        with database.translated_errors(path):
            return migrate.current(engine, path) or ""
    finally:
        engine.dispose()


def knows_tables(version: str) -> bool:
    """Whether this program can open (and bring up to date) a ledger with tables of that version."""
    return version in {revision.revision for revision in migrate.scripts().walk_revisions()}
