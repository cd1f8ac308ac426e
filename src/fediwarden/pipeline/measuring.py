"""How fast this machine looks: the cage, the embedded default and image towers on benign pictures; records and decides nothing."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fediwarden.model import Blob, ObjectRef, StoreName

TRIED = 2  # calls a worker makes before the clock starts


@dataclass(frozen=True, slots=True)
class Rate:
    """What one measurement came to."""

    images: int
    seconds: float
    memory: int  # bytes of this process and its children, the most that was seen

    @property
    def per_second(self) -> float:
        """Images a second."""
        return self.images / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Speeds:
    """Seconds a picture takes on the whole machine, part by part."""

    embedded: float  # opened in the cage and seen by the embedded default
    further: float  # seen by CLIP besides; 0 where there is none

    def hours(self, objects: int, share: float) -> float:
        """How long so many objects take when this share of them is shown to CLIP."""
        return objects * (self.embedded + share * self.further) / 3600


def measure(work: Callable[[int], object], workers: int, seconds: float) -> Rate:
    """Call `work` with rising numbers from so many threads for about so long; a call under way is waited for.

    Whatever `work` raises ends the measurement and is passed on.
    """
    turn = threading.Lock()
    count = 0
    stop = threading.Event()
    most = [memory()]

    def watch() -> None:
        while not stop.wait(0.1):
            most[0] = max(most[0], memory())

    def worker(until: float) -> None:
        nonlocal count
        while time.monotonic() < until and not stop.is_set():
            with turn:
                number = count
                count += 1
            work(number)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(-workers * TRIED, 0)))
        watcher = threading.Thread(target=watch, name="memory", daemon=True)
        watcher.start()
        started = time.monotonic()
        try:
            futures = [pool.submit(worker, started + seconds) for _ in range(workers)]
            for future in futures:
                future.result()
        finally:
            spent = time.monotonic() - started
            stop.set()
    watcher.join()
    return Rate(count, spent, max(most[0], memory()))


def memory() -> int:
    """Bytes that this process and all its descendants hold together (proportional set size); 0 where nobody tells."""
    total, todo = 0, ["self"]
    while todo:
        one = Path("/proc") / todo.pop()
        try:
            lines = (one / "smaps_rollup").read_text().splitlines()
            total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for task in (one / "task").iterdir():
                todo += (task / "children").read_text().split()
        except (OSError, StopIteration, ValueError):
            continue  # it ended meanwhile, or this is no Linux
    return total


def blobs(pictures: Iterable[bytes]) -> list[Blob]:
    """Pictures as objects of no store."""
    return [Blob.of(ObjectRef(StoreName("bench"), f"{number}.jpg", len(data), ""), data) for number, data in enumerate(pictures)]
