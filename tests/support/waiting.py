"""Waiting for what happens in another thread or process."""

import time
from collections.abc import Callable

STEP = 0.02


def until(true: Callable[[], object], seconds: float = 40.0) -> None:
    """Wait until this is so; AssertionError where it does not come in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it did not come within {seconds:g} s"
        time.sleep(STEP)
