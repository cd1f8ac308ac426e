"""The cheapest way each store offers to tell what is new; each says whether it bridges an absence by itself. Looks at no picture.

A position is what a signal has to know to go on from where it was: text that lasts in the ledger. Positions come from the times
that the stores tell, not from this machine's clock, and questions reach back behind them by an overlap.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Protocol

import structlog

from fediwarden.errors import Gone, Unreached
from fediwarden.model import ObjectRef
from fediwarden.platforms.pictrs.hashes import key_time
from fediwarden.stores.interface import PAGE, NewestFirst, Ordered, Reader

log = structlog.get_logger("fediwarden")

AHEAD = timedelta(days=400)  # a key dated later than this is nobody's clock; the sweep finds it
DATED_SINCE = timedelta(days=60)  # a store where nothing dated came in for so long is listed whole
ENOUGH = 3  # items in a row at the end of a page that came in before the position
STEP = 2000  # milliseconds that changes are gathered, and between two wakings while nothing happens
UNREADABLE = "\ufffd"
BURST = 4000  # changes at once, from which on the system's own queue (16,384) may have run over without a word
TOLD_BOUND = 50_000  # paths that a folder told of and nobody asked for yet; more than these are left to the sweep


class Signal(Protocol):
    """Tells what came into one store."""

    @property
    def kind(self) -> str:
        """One word for people: "newest", "dated keys", "events", "listing"."""
        ...

    @property
    def goes_on(self) -> bool:
        """Whether a question goes on from the position. The first one, without any, may go back for weeks, and only that one."""
        ...

    def bridges(self, position: str) -> bool:
        """Whether `news` finds everything since this position, however old it is; else a start needs a sweep."""
        ...

    @property
    def told(self) -> "ToldPaths | None":
        """Where a store tells by itself: what to wait on; None for one that has to be asked."""
        ...

    def news(self, position: str) -> Iterator[Sequence[ObjectRef]]:
        """What came in since the position and some of what came before. Raises: Unreached, Refused."""
        ...

    def advance(self, position: str, page: Sequence[ObjectRef]) -> str:
        """The position once this page was met."""
        ...

    def stop(self) -> None:
        """Ask what runs by itself to end, and wake who waits for it."""
        ...

    def close(self) -> None:
        """Wait until it has ended."""
        ...


def newer(position: str, times: Sequence[datetime | None], now: datetime) -> str:
    """The latest of these times as a position, never ahead of `now`: a clock that ran ahead must not hide what comes after."""
    known = [time for time in times if time is not None]
    if position:
        known.append(datetime.fromisoformat(position))
    return min(max(known), now).isoformat() if known else position


def reached_back(position: str, overlap: timedelta, now: datetime) -> datetime:
    """Since when to ask. A position of a time when clocks ran ahead is not waited for."""
    return min(datetime.fromisoformat(position), now) - overlap


class Newest:
    """pict-rs' newest first, until all of a page came in before the position. One request while nothing happens."""

    kind = "newest"
    told = None
    goes_on = True

    def __init__(self, reader: NewestFirst, overlap: timedelta, clock: Callable[[], datetime]) -> None:
        self._reader = reader
        self._overlap = overlap
        self._clock = clock

    def bridges(self, position: str) -> bool:
        """As `Signal.bridges`."""
        return bool(position)

    def news(self, position: str) -> Iterator[Sequence[ObjectRef]]:
        """As `Signal.news`. Without a position: the first page, for a sweep follows."""
        since = reached_back(position, self._overlap, self._clock()) if position else None
        for page in self._reader.newest():
            yield page
            # several: one that took long to come in carries an early date among those that came in with it
            last = page[-ENOUGH:]
            if since is None or all(ref.modified is not None and ref.modified < since for ref in last):
                return

    def advance(self, position: str, page: Sequence[ObjectRef]) -> str:
        """As `Signal.advance`."""
        return newer(position, [ref.modified for ref in page], self._clock())

    def stop(self) -> None:
        """Nothing runs by itself."""

    def close(self) -> None:
        """Nothing runs by itself."""


class DatedKeys:
    """Keys that begin with their date (pict-rs from 0.5.7): the stretch behind the position. One request while nothing happens."""

    kind = "dated keys"
    told = None
    goes_on = True

    def __init__(self, reader: Ordered, prefix: str, overlap: timedelta, clock: Callable[[], datetime]) -> None:
        self._reader = reader
        self._prefix = prefix
        self._overlap = overlap
        self._clock = clock

    def bridges(self, position: str) -> bool:
        """As `Signal.bridges`."""
        return bool(position)

    def news(self, position: str) -> Iterator[Sequence[ObjectRef]]:
        """As `Signal.news`. Without a position: of the last DATED_SINCE."""
        now = self._clock()
        since = reached_back(position, self._overlap, now) if position else now - DATED_SINCE
        yield from self._reader.between(self._prefix + first_key(since), self._prefix + first_key(now + AHEAD))

    def advance(self, position: str, page: Sequence[ObjectRef]) -> str:
        """As `Signal.advance`."""
        return newer(position, [key_time(ref.key.removeprefix(self._prefix)) for ref in page], self._clock())

    def stop(self) -> None:
        """Nothing runs by itself."""

    def close(self) -> None:
        """Nothing runs by itself."""


class Listing:
    """Everything, every time: for stores that offer nothing better. How often is a matter of what a listing costs."""

    kind = "listing"
    told = None
    goes_on = False

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def bridges(self, position: str) -> bool:
        """As `Signal.bridges`."""
        return True

    def news(self, position: str) -> Iterator[Sequence[ObjectRef]]:
        """As `Signal.news`."""
        yield from self._reader.list()

    def advance(self, position: str, page: Sequence[ObjectRef]) -> str:
        """There is no position."""
        return position

    def stop(self) -> None:
        """Nothing runs by itself."""

    def close(self) -> None:
        """Nothing runs by itself."""


class Elsewhere:
    """Nothing: what comes into this store is told by another one, such as pict-rs in front of it. Sweeps find the rest."""

    told = None
    goes_on = False

    def __init__(self, through: str) -> None:
        self.kind = f"through {through}"

    def bridges(self, position: str) -> bool:
        """As `Signal.bridges`."""
        return True

    def news(self, position: str) -> Iterator[Sequence[ObjectRef]]:
        """As `Signal.news`."""
        return iter(())

    def advance(self, position: str, page: Sequence[ObjectRef]) -> str:
        """There is no position."""
        return position

    def stop(self) -> None:
        """Nothing runs by itself."""

    def close(self) -> None:
        """Nothing runs by itself."""


class ToldPaths:
    """Paths that were told, once each, until somebody takes them; bounded."""

    def __init__(self) -> None:
        self.ready = Event()  # set once everything that happens is told
        self._changed = Condition()
        self._paths: dict[str, None] = {}
        self._lost = False

    def tell(self, path: str) -> None:
        """One path more."""
        with self._changed:
            if len(self._paths) < TOLD_BOUND:
                self._paths[path] = None
            else:
                self._lost = True
            self._changed.notify_all()

    def lose(self) -> None:
        """Some may have been missed."""
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    def wait(self, seconds: float, stop: Event) -> None:
        """Until there is something to take, at most so long."""
        with self._changed:
            if not self._paths and not self._lost and not stop.is_set():
                self._changed.wait(seconds)

    def take(self) -> list[str]:
        """All of them, oldest first."""
        with self._changed:
            paths, self._paths = list(self._paths), {}
            return paths

    def take_lost(self) -> bool:
        """Whether some were missed since this was asked last."""
        with self._changed:
            lost, self._lost = self._lost, False
            return lost


class FolderEvents:
    """What the file system tells of a folder (watchfiles). It tells nothing of what happened while nobody listened.

    Where it cannot be listened to any more, such as with more folders than the system watches, the folder is listed instead.
    """

    goes_on = False

    def __init__(self, reader: Reader, root: Path) -> None:
        """Starts listening."""
        self._reader = reader
        self._root = root
        self._stop = Event()
        self._told = ToldPaths()
        self._folder = _identity(root)
        self._thread = Thread(target=self._listen, name=f"events-{reader.name}", daemon=True)
        self._thread.start()

    @staticmethod
    def possible() -> bool:
        """Whether the library for it is installed."""
        return find_spec("watchfiles") is not None

    @property
    def kind(self) -> str:
        """As `Signal.kind`."""
        return "events" if self._thread.is_alive() else "listing"

    @property
    def told(self) -> ToldPaths | None:
        """As `Signal.told`."""
        return self._told if self._thread.is_alive() else None

    def bridges(self, position: str) -> bool:
        """As `Signal.bridges`."""
        return False

    def news(self, position: str) -> Iterator[Sequence[ObjectRef]]:
        """As `Signal.news`: the files among what was told. Raises: Unreached where another folder, or none, is there now."""
        if _identity(self._root) != self._folder:
            raise Unreached(f"{self._root} is not the folder any more that was listened to", hint="is it mounted?")
        if not self._thread.is_alive():
            yield from self._reader.list()
            return
        paths = self._told.take()
        for start in range(0, len(paths), PAGE):
            yield [ref for path in paths[start : start + PAGE] if (ref := self._file(path)) is not None]

    def _file(self, path: str) -> ObjectRef | None:
        try:
            return self._reader.stat(path)
        except Gone:
            if UNREADABLE in path:
                self._told.lose()  # a name that is not UTF-8 cannot be told, only listed
            return None  # a folder, or deleted since
        except Unreached as error:
            log.warning("file not reached", store=self._reader.name, key=path, problem=str(error))
            self._told.lose()  # a sweep will meet it
            return None

    def advance(self, position: str, page: Sequence[ObjectRef]) -> str:
        """There is no position."""
        return position

    def stop(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._told.lose()

    def close(self) -> None:
        """As `Signal.close`."""
        self.stop()
        self._thread.join(STEP / 1000 + 0.5)

    def _listen(self) -> None:
        import watchfiles

        root = os.fsencode(self._root)
        try:
            for changes in watchfiles.watch(
                self._root, watch_filter=None, stop_event=self._stop, step=STEP, rust_timeout=1, yield_on_timeout=True
            ):
                self._told.ready.set()  # also where it only says that nothing happened yet
                if len(changes) >= BURST:
                    self._told.lose()
                for change, path in changes:
                    if change is not watchfiles.Change.deleted:
                        self._tell(root, os.fsencode(path))
        except (OSError, RuntimeError) as error:  # no such folder, or more folders than the system watches
            log.warning(
                "folder events ended; the folder is listed instead",
                store=self._reader.name,
                problem=str(error),
                hint="raise fs.inotify.max_user_watches",
            )
        finally:
            self._told.ready.set()
            self._told.lose()

    def _tell(self, root: bytes, path: bytes) -> None:
        if not path.startswith(root + b"/"):
            return
        key = os.fsdecode(path[len(root) + 1 :])
        self._told.tell(key)
        whole = Path(os.fsdecode(path))
        try:
            if whole.is_dir() and not whole.is_symlink():  # made with files in it, before anybody listened there
                for folder, _, files in os.walk(whole):
                    for name in files:
                        self._told.tell(os.path.relpath(str(Path(folder) / name), os.fsdecode(root)))
        except OSError:
            self._told.lose()


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which folder this is; None where there is none."""
    try:
        info = folder.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def first_key(moment: datetime) -> str:
    """What sorts just before every key that pict-rs makes at that moment or later."""
    digits = f"{max(0, int(moment.astimezone(UTC).timestamp() * 1000)):012x}"
    return "/".join(digits[at : at + 2] for at in range(0, 12, 2))


def dated(reader: Ordered, prefix: str, now: datetime) -> bool:
    """Whether what came into a store lately carries its date in its key; asks with one request."""
    for page in reader.between(prefix + first_key(now - DATED_SINCE), prefix + first_key(now + AHEAD)):
        return sum(key_time(ref.key.removeprefix(prefix)) is not None for ref in page) > len(page) / 2
    return False
