"""Whether a store that lists its objects can read them at all: asks for three files at most, and looks at none."""

from collections.abc import Sequence
from datetime import UTC, datetime

from fediwarden.errors import Gone, Lost, Unreached
from fediwarden.model import ObjectRef, StoreName
from fediwarden.stores.interface import Proving

ENOUGH_LOST = 3  # lost files, with none fetched, that speak for the whole store; one or two may be lost by themselves
ENOUGH_OLD = 2  # lost files that were fetched once, where a newer one can be read
LONG_AGO = datetime.min.replace(tzinfo=UTC)
LOST_STORE = "see that the folder or bucket behind it is there, and that it may read it; then run the scan again"


class Spread:
    """The first, the last and one between them of the objects that go by, however many they are."""

    def __init__(self) -> None:
        self._count = 0
        self._first: ObjectRef | None = None
        self._last: ObjectRef | None = None
        self._before: ObjectRef | None = None  # where the count was the power of two before the last one
        self._between: ObjectRef | None = None  # where it was the last power of two

    def add(self, refs: Sequence[ObjectRef]) -> None:
        """These went by."""
        for ref in refs:
            self._count += 1
            self._first = self._first or ref
            self._last = ref
            if self._count.bit_count() == 1:
                self._before, self._between = self._between, ref

    @property
    def refs(self) -> list[ObjectRef]:
        """Up to three of them, each once."""
        between = self._before if self._between is self._last else self._between
        found: list[ObjectRef] = []
        for ref in (self._first, between, self._last):
            if ref is not None and ref not in found:
                found.append(ref)
        return found


def unreadable(reader: Proving, refs: Sequence[ObjectRef], *, fetched: bool) -> Unreached | None:
    """Why a store cannot read what it had; None where it reads the oldest of these, or where none of them is there.

    Args:
        refs: what was fetched once; it is asked for by age, or from the end of the listing where no age is told.
        fetched: whether it handed out something new meanwhile. New files that can be read do not speak for the old ones: they arrive in
            the empty folder under a disk that is not mounted.
    """
    problem: Unreached | None = None
    lost = 0
    from_the_end = refs[::-1]
    for ref in sorted(from_the_end, key=lambda ref: ref.modified or LONG_AGO):
        try:
            reader.prove(ref)
        except Gone:
            continue  # deleted since it was listed
        except Unreached as error:
            lost += isinstance(error, Lost)
            problem = error if problem is None or isinstance(problem, Lost) else problem
            continue
        fetched = True
        break
    if fetched:
        return lost_the_old(reader.name) if lost >= ENOUGH_OLD else None
    if problem is None or isinstance(problem, Lost):
        return problem and reads_nothing(reader.name)
    return Unreached(f"{reader.name} lists its objects and hands none of them out: {problem}", hint=problem.hint)


def lost_the_old(store: StoreName) -> Lost:
    """What is said of a store that hands out what is new, and has lost what it had."""
    return Lost(f"{store}: pict-rs reads new files, and not those that it had before", hint=LOST_STORE)


def reads_nothing(store: StoreName) -> Unreached:
    """What is said of a store whose files are all lost."""
    return Unreached(f"{store}: pict-rs lists its objects and cannot read their files", hint=LOST_STORE)


def all_lost(listed: int, lost: int, fetched: int) -> bool:
    """Whether a run that met so many lost files, of so many objects, and fetched so many, says that the store can read none."""
    return not fetched and lost > 0 and lost >= min(ENOUGH_LOST, listed)
