"""Processes of tests: what can be known of one from outside (Linux only), and that a test which fails leaves none."""

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import AnyStr

_STARTED: "list[subprocess.Popen[str] | subprocess.Popen[bytes]]" = []


def started(process: "subprocess.Popen[AnyStr]") -> "subprocess.Popen[AnyStr]":
    """A process that is ended with the test, however that ends."""
    _STARTED.append(process)
    return process


def end_started() -> None:
    """End what was started, and close its pipes."""
    while _STARTED:
        with _STARTED.pop() as process:
            process.kill()


def family(pid: int) -> list[int]:
    """A process and everything below it."""
    below = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                below += family(int(child))
    return below
