"""Patience with a store that is slow or busy: bounded tries with back-off; only what may pass is tried again."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

from fediwarden.errors import Unreached

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long one request is tried.

    `tries`: requests in all. `seconds`: no new try begins later than this after the first. Before try n + 1 it waits a
    random time of up to `base` * 2**n seconds, at most `cap` ("full jitter"). A set `stop` ends the waiting at once.
    """

    tries: int = 6
    seconds: float = 60.0
    base: float = 0.25
    cap: float = 10.0
    stop: Event = field(default_factory=Event)
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    sleep: Callable[[float], object] | None = None  # waits on `stop` where none is given

    def run(self, call: Callable[[], T]) -> T:
        """The result of `call`, or the last error it raised once patience is at an end.

        Only Unreached is tried again, and Refused, which is one that will not pass, is not.
        """
        begun = self.clock()
        tried = 0
        while True:
            try:
                return call()
            except Unreached as error:
                tried += 1
                pause = min(self.cap, self.base * 2**tried) * self.jitter()
                late = self.clock() - begun + pause > self.seconds
                if not error.retry or tried >= self.tries or late or self.stop.is_set():
                    raise
            (self.sleep or self.stop.wait)(pause)
            if self.stop.is_set():
                return call()
