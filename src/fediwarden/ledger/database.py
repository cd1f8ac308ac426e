"""Opens the database file, and turns what goes wrong with it into the program's own errors; knows no table."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fediwarden.errors import CannotWrite, FediwardenError, Misconfigured

if TYPE_CHECKING:
    from sqlalchemy import Engine

MEMORY = ":memory:"
PATIENCE = 60.0  # seconds to wait for another writer; the longest wait measured with eight writers was one second


def location(url: str | Path) -> str:
    """The file (or MEMORY) that `url` names: a path, `sqlite:///path` or `:memory:`. Raises: Misconfigured."""
    text = str(url)
    if text in (MEMORY, "sqlite://", "sqlite:///:memory:"):
        return MEMORY
    if text.startswith("sqlite:///"):
        return str(Path(text.removeprefix("sqlite:///")).absolute())
    if "://" in text:
        scheme = text.partition("://")[0]
        raise Misconfigured(
            f'this program keeps no ledger at "{scheme}" addresses', hint="set the ledger to a file, or to sqlite:///PATH"
        )
    return str(Path(text).absolute())


def prepare(path: str) -> None:
    """Make the folder and an empty file that only its owner may read. Raises: CannotWrite."""
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise CannotWrite(f"cannot make the ledger {path}: {error.strerror}", hint=_hint(error.errno or 0)) from error


def connect(path: str, *, read_only: bool) -> "Engine":
    """An engine whose transactions begin as IMMEDIATE when opened by `writing(engine)`, and as plain reads otherwise.

    A deferred transaction that reads and then writes fails at once when another process writes in between, whatever the
    time-out is; measured, it lost 9 of 10 transactions with eight writers. An immediate one waits its turn.
    """
    from sqlalchemy import Connection, create_engine, event
    from sqlalchemy.pool import QueuePool, StaticPool

    def open_one() -> sqlite3.Connection:
        if path == MEMORY:
            return sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False)
        address = "file:" + quote(os.fsencode(path))
        mode = "?mode=ro" if read_only else "?mode=rw"
        connection = sqlite3.connect(address + mode, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            if not read_only:
                _into_wal(connection)
                connection.execute("PRAGMA synchronous = FULL")
            else:
                _probe(connection)
        except sqlite3.OperationalError:
            connection.close()
            # a WAL ledger in a folder that cannot be written to has no place for its shared memory; when nobody can be
            # writing either, reading the file as it lies is right
            if not read_only or _size(path + "-wal") > 0 or _size(path) < 0:
                raise
            return sqlite3.connect(address + "?immutable=1", uri=True, isolation_level=None, check_same_thread=False)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    if path == MEMORY:
        engine = create_engine("sqlite://", creator=open_one, poolclass=StaticPool)
    else:
        engine = create_engine("sqlite://", creator=open_one, poolclass=QueuePool, pool_size=4, max_overflow=-1)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def writing(engine: "Engine") -> "Engine":
    """The same engine and pool, for transactions that write."""
    return engine.execution_options(immediate=True)


def _size(path: str) -> int:
    """In bytes; -1 for what is not there, or not for this user to see."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _probe(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def _into_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, which lasts; several processes that open a new ledger at once take turns."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def translated_errors(path: str) -> Iterator[None]:
    """Raise CannotWrite or Misconfigured, in one clear line, for what a database may answer."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise _translated(path, error.orig) from error
        raise
    except sqlite3.Error as error:
        raise _translated(path, error) from error


def _translated(path: str, error: sqlite3.Error) -> FediwardenError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL:
            return CannotWrite(f"cannot write the ledger {path}: the disk is full", hint="free some space, then run this again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return CannotWrite(
                f"cannot write the ledger {path}: it is read-only",
                hint="check who owns the file and its folder, and how it is mounted",
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR:
            return _unreadable(path) or CannotWrite(
                f"cannot write the ledger {path}: {error}",
                hint="check the disk and the space left on it, and that this user may write the file and its folder",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return CannotWrite(
                f"cannot write the ledger {path}: another program kept it locked for {PATIENCE:.0f} seconds",
                hint="see which program has the file open (fuser), then run this again",
            )
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return Misconfigured(
                f"{path} is not a ledger, or is damaged: {error}",
                hint="check the setting `ledger`; put a backup in its place if the file is the right one",
            )
        case _:
            return FediwardenError(f"the ledger {path} answered: {error}", hint="this is an error of ours; please report it")


def _unreadable(path: str) -> Misconfigured | None:
    """What keeps this user from reading the file, if anything does."""
    try:
        Path(path).open("rb").close()
    except FileNotFoundError:
        return Misconfigured(f"there is no ledger {path}", hint="run `fediwarden scan` first, or check the setting `ledger`")
    except OSError as error:
        return Misconfigured(
            f"cannot read the ledger {path}: {error.strerror}", hint="check the setting `ledger`, and who owns the file"
        )
    return None


def _hint(errno: int) -> str:
    if errno == ENOSPC:
        return "free some space, then run this again"
    return "check who owns the folder, and how it is mounted"
