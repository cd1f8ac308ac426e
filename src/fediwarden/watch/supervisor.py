"""Keeps the parts of a watch running: one that fails begins anew after a while, and is counted; knows nothing of what they do."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread

import structlog

from fediwarden.backoff import Backoff
from fediwarden.errors import FediwardenError

log = structlog.get_logger("fediwarden")

FIRST, MOST = 1.0, 300.0  # seconds until a part that failed begins anew; doubles
WELL = 600.0  # seconds without a failure after which it is forgotten
END_STEP = 0.02
END_SECONDS = 3.7  # for all parts together to end when they are asked to


@dataclass(frozen=True, slots=True)
class Part:
    """Something that runs until the stop."""

    name: str
    run: Callable[[], object]
    free: Callable[[], bool] = lambda: False  # whether it holds nothing that an end would have to wait for


class Supervisor:
    """Runs parts in threads of their own. Make one, `start` it, and `end` it."""

    def __init__(self, parts: Sequence[Part], stop: Event, restarted: Callable[[str], None]) -> None:
        """`stop` is what the parts end by; `restarted` is told the name of each part that failed."""
        self._stop = stop
        self._restarted = restarted
        self._parts = parts
        self._threads = [Thread(target=self._keep, args=(part,), name=part.name, daemon=True) for part in parts]

    def start(self) -> None:
        """Start every part."""
        for thread in self._threads:
            thread.start()

    @property
    def complete(self) -> bool:
        """Whether every part runs or waits to run again."""
        return all(thread.is_alive() for thread in self._threads)

    def end(self) -> list[str]:
        """Ask every part to end, and wait a little for those that hold something; returns the names of those that did not."""
        self._stop.set()
        deadline = time.monotonic() + END_SECONDS
        late = self._late()
        while late and time.monotonic() < deadline:
            time.sleep(END_STEP)
            late = self._late()
        return late

    def _late(self) -> list[str]:
        return [
            thread.name for thread, part in zip(self._threads, self._parts, strict=True) if thread.is_alive() and not part.free()
        ]

    def _keep(self, part: Part) -> None:
        again = Backoff(FIRST, MOST)
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                part.run()
            except FediwardenError as error:
                log.error("part failed", part=part.name, problem=str(error), hint=error.hint)  # noqa: TRY400 - foreseen: one line says all
            except Exception:  # the unknown: this part begins anew, the others go on
                log.exception("part failed", part=part.name)
            else:
                if self._stop.is_set():
                    return
                log.error("part ended by itself", part=part.name)
            if self._stop.is_set():
                return
            if time.monotonic() - began > WELL:
                again.worked()
            self._restarted(part.name)
            self._stop.wait(again.failed())
