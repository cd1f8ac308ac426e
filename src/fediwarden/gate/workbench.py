"""Where uploads wait to be looked at: bounded, the same bytes once, uploads before debts; answers nobody and records nothing."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from statistics import median
from threading import Condition, Thread

import structlog

from fediwarden.errors import FediwardenError, Unreached
from fediwarden.model import Blob, Look, Sha256

log = structlog.get_logger("fediwarden")

REMEMBERED = 101  # durations of which the median is taken
FIRST_GUESS = 0.3  # seconds a new picture takes, while nothing was measured yet


@dataclass(eq=False)
class Job:
    """Bytes that are looked at once, however many uploads brought them.

    `waiting` are uploads that still want the answer. `passed` says that one of them was let through meanwhile, so that what is found is
    about an object that exists.
    """

    blob: Blob
    began: float
    face: str = ""  # which protocol brought it first
    future: "Future[Look]" = field(default_factory=Future)
    waiting: int = 0
    passed: bool = False
    fetched: bool = False  # it came from its store, and not from an upload
    told: bool = False  # somebody who waited was refused as late, which is on record
    begun: bool = False
    decided: bool = False  # what it means is settled: nobody is let through as late any more
    debt: bool = False  # in the lane of debts
    outcome: object = None  # what `finished` made of it


class Workbench:
    """Threads that look, and what waits for them. Every method may be called from any thread."""

    def __init__(
        self,
        look: Callable[[Blob], Look],
        finished: Callable[[Job, Look | FediwardenError], None],
        *,
        workers: int,
        queue: int,
        in_flight: int,
    ) -> None:
        """
        Args:
            look: turns bytes into a look; may raise Unreached.
            finished: called in the thread that looked, before anybody who waits is told; it records what nobody waits for.
            workers: how many look at the same time.
            queue: uploads that may wait.
            in_flight: bytes that may be held at once, from the first byte of an upload until it was looked at.
        """
        self._look = look
        self._finished = finished
        self._queue = queue
        self._room = in_flight
        self._changed = Condition()
        self._uploads: deque[Job] = deque()
        self._debts: deque[Job] = deque()
        self._jobs: dict[Sha256, Job] = {}
        self._taken = 0
        self._ending = False
        self._durations: deque[float] = deque(maxlen=REMEMBERED)
        self._threads = [Thread(target=self._work, name=f"gate-{number}", daemon=True) for number in range(workers)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def end(self, seconds: float) -> None:
        """Take nothing more; what is being looked at may finish, for so long."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def usual(self) -> float:
        """Seconds that a new picture takes, as a median of late."""
        with self._changed:
            return median(self._durations) if self._durations else FIRST_GUESS

    @property
    def waiting(self) -> int:
        """Uploads and debts that wait or are looked at."""
        with self._changed:
            return len(self._jobs)

    @property
    def held(self) -> int:
        """Bytes in memory."""
        with self._changed:
            return self._taken

    def busy_with(self, sha256: Sha256) -> bool:
        """Whether these bytes wait already, or are being looked at."""
        with self._changed:
            return sha256 in self._jobs

    def take(self, size: int) -> bool:
        """Room for so many bytes more; False where there is none. What is larger than all of it is held alone."""
        with self._changed:
            if self._taken and self._taken + size > self._room:
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Give room back."""
        with self._changed:
            self._taken -= size

    def join(self, sha256: Sha256) -> Job | None:
        """The job that looks at these bytes already; the caller now waits for it."""
        with self._changed:
            job = self._jobs.get(sha256)
            if job is not None and not job.future.done():
                job.waiting += 1
                if job.debt and not job.begun:  # somebody wants it now
                    self._debts.remove(job)
                    self._uploads.append(job)
                    job.debt = False
                return job
        return None

    def put(self, blob: Blob, began: float, *, debt: bool = False, face: str = "") -> Job | None:
        """A job for bytes whose room was taken; None where too many wait. The room is given back when it was looked at.

        A debt waits behind every upload, and nobody waits for it.
        """
        with self._changed:
            if self._ending or (not debt and len(self._uploads) >= self._queue) or blob.sha256 in self._jobs:
                return None
            job = Job(blob, began, face, waiting=0 if debt else 1, passed=debt, fetched=debt, debt=debt)
            self._jobs[blob.sha256] = job
            (self._debts if debt else self._uploads).append(job)
            self._changed.notify()
        return job

    def let_through(self, job: Job) -> bool:
        """The deadline has come, and the upload passes unscanned: False where the look is there after all, to be waited for."""
        with self._changed:
            if job.decided or job.future.done():
                return False
            job.passed = True
            self._left(job)
            return True

    def decide(self, job: Job) -> bool:
        """What was seen is about to be settled: whether some upload of these bytes was let through meanwhile."""
        with self._changed:
            job.decided = True
            return job.passed

    def leave(self, job: Job) -> None:
        """Somebody does not wait any longer. What nobody wants, and nobody has begun, is dropped."""
        with self._changed:
            self._left(job)
            if job.waiting == 0 and not job.passed and not job.begun:
                self._uploads.remove(job)
                self._drop(job)
                job.future.cancel()

    def _left(self, job: Job) -> None:
        job.waiting -= 1
        if job.waiting == 0 and job.passed and not job.begun and not job.debt:
            self._uploads.remove(job)
            self._debts.append(job)
            job.debt = True

    def _drop(self, job: Job) -> None:
        del self._jobs[job.blob.sha256]
        self._taken -= job.blob.ref.size

    def _next(self) -> Job | None:
        with self._changed:
            while not self._ending:
                if self._uploads or self._debts:
                    job = (self._uploads or self._debts).popleft()
                    job.begun = True
                    return job
                self._changed.wait()
        return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            outcome = self._outcome(job.blob)
            with self._changed:
                if isinstance(outcome, Look) and not job.debt:
                    self._durations.append(time.monotonic() - job.began)
            try:
                self._finished(job, outcome)
            except Exception:  # the unknown: whoever waits is told that it did not work
                log.exception("what was looked at for the gate could not be finished", sha256=job.blob.sha256)
                outcome = Unreached("an error of ours after the look")
            with self._changed:
                self._drop(job)
            if isinstance(outcome, Look):
                job.future.set_result(outcome)
            else:
                job.future.set_exception(outcome)

    def _outcome(self, blob: Blob) -> Look | FediwardenError:
        try:
            return self._look(blob)
        except FediwardenError as error:
            return error
        except Exception as error:  # the unknown: this upload is not looked at, the others go on
            log.exception("look failed at the gate", sha256=blob.sha256)
            return Unreached(f"an error of ours while looking ({type(error).__name__})")
