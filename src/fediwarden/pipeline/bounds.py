"""What keeps a run within its bounds: bytes in flight, identical bytes met at once, stores that stopped answering. Looks at nothing."""

from collections import Counter
from threading import Condition, Event, Lock

from fediwarden.model import (
    Blob,
    Look,
    ObjectRef,
    Sha256,
    StoreName,
)

DOWN_AFTER = 20  # failed fetches in a row after which a store counts as down for the rest of the run
PATIENCE = 0.2  # seconds a thread waits before it asks again whether the run was stopped


class Bytes:
    """Lets at most so many bytes of fetched objects exist at once; one object larger than that passes alone."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = capacity
        self._changed = Condition()

    def take(self, size: int, stop: Event) -> int | None:
        """Wait for room; returns what was taken, or None when the run was stopped."""
        wanted = max(0, min(size, self._capacity))
        with self._changed:
            while self._free < wanted:
                if stop.is_set():
                    return None
                self._changed.wait(PATIENCE)
            self._free -= wanted
        return wanted

    def give(self, taken: int) -> None:
        """Give room back."""
        with self._changed:
            self._free += taken
            self._changed.notify_all()


class InFlight:
    """Identical bytes met at the same time are analysed once: the others wait here for the one look."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: dict[Sha256, list[ObjectRef]] = {}
        self._looks: dict[Sha256, Look] = {}

    def claim(self, blob: Blob) -> Look | bool:
        """True: this caller looks. A look: take that one. False: somebody is looking, and will answer for this object too."""
        with self._lock:
            if look := self._looks.get(blob.sha256):
                return look
            if blob.sha256 in self._waiting:
                self._waiting[blob.sha256].append(blob.ref)
                return False
            self._waiting[blob.sha256] = []
            return True

    def answer(self, sha256: Sha256, look: Look) -> list[ObjectRef]:
        """Hand the look to those who wait; it stays known until `forget`, so that no second look begins before it is recorded."""
        with self._lock:
            if look.settles:
                self._looks[sha256] = look
            return self._waiting.pop(sha256, [])

    def forget(self, sha256: Sha256) -> None:
        """The look is in the ledger now; the ledger answers from here on."""
        with self._lock:
            self._looks.pop(sha256, None)


class Health:
    """Counts failed fetches in a row, store by store; a store that fails DOWN_AFTER times is left alone for the run."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failures: dict[StoreName, int] = {}
        self._lost: dict[StoreName, int] = {}
        self._good: dict[StoreName, ObjectRef] = {}
        self._all_lost: Counter[StoreName] = Counter()
        self._fetched: Counter[StoreName] = Counter()

    def answered(self, store: StoreName) -> None:
        """The store gave an answer, whatever it was."""
        with self._lock:
            self._failures[store] = self._lost[store] = 0

    def fetched(self, ref: ObjectRef) -> None:
        """This object was fetched just now."""
        self.answered(ref.store)
        self.good(ref)
        with self._lock:
            self._fetched[ref.store] += 1

    def in_all(self, store: StoreName) -> tuple[int, int]:
        """How many files were lost, and how many objects were fetched, since the run began."""
        with self._lock:
            return self._all_lost[store], self._fetched[store]

    def good(self, ref: ObjectRef) -> None:
        """This object was fetched, now or before; the smallest one is remembered, to ask for it again in doubt."""
        with self._lock:
            if ref.store not in self._good or ref.size < self._good[ref.store].size:
                self._good[ref.store] = ref

    def failed(self, store: StoreName, *, lost: bool = False) -> ObjectRef | None:
        """The store gave none, or has `lost` the file. Returns what to ask for before it counts as down: it may be these objects."""
        with self._lock:
            self._lost[store] = self._lost.get(store, 0) + lost
            self._all_lost[store] += lost
            self._failures[store] = self._failures.get(store, 0) + 1
            return self._good.get(store) if self._failures[store] == DOWN_AFTER else None

    def lost(self, store: StoreName) -> bool:
        """Whether most of what failed in a row were files that the store has lost."""
        with self._lock:
            return self._lost.get(store, 0) * 2 > self._failures.get(store, 0)

    def down(self, store: StoreName) -> bool:
        """Whether to stop asking."""
        with self._lock:
            return self._failures.get(store, 0) >= DOWN_AFTER
