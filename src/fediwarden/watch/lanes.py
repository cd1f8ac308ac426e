"""Who may look next: new arrivals before the back-catalogue, so many at a time; opens nothing itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Condition, Event

from fediwarden.errors import Unreached
from fediwarden.model import Blob
from fediwarden.pipeline import Looker, OpenedObject, Opener

PATIENCE = 0.2  # seconds a thread waits before it asks again whether everything ends


class Turns:
    """Places to look from, shared by every store's scans."""

    def __init__(self, places: int, stop: Event) -> None:
        self._free = places
        self._stop = stop
        self._changed = Condition()
        self.waiting = {True: 0, False: 0}  # arrivals, back-catalogue

    @contextmanager
    def taken(self, *, arrival: bool) -> Iterator[None]:
        """Hold a place. Raises: Unreached when everything ends meanwhile."""
        with self._changed:
            self.waiting[arrival] += 1
            try:
                while not self._free or (not arrival and self.waiting[True]):
                    if self._stop.is_set():
                        raise Unreached("the watch was stopped before it was looked at")
                    self._changed.wait(PATIENCE)
                self._free -= 1
            finally:
                self.waiting[arrival] -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()


class _Queued:
    """An opener that waits for its turn."""

    def __init__(self, opener: Opener, turns: Turns, *, arrival: bool) -> None:
        self._opener = opener
        self._turns = turns
        self._arrival = arrival

    @contextmanager
    def look(self, blob: Blob) -> Iterator[OpenedObject]:
        with self._turns.taken(arrival=self._arrival), self._opener.look(blob) as peek:
            yield peek


def queued(looker: Looker, turns: Turns, *, arrival: bool) -> Looker:
    """The same looker, whose looks wait for their turn."""
    return replace(looker, cage=_Queued(looker.cage, turns, arrival=arrival))
