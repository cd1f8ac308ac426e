"""What can be known of a process from outside; Linux only."""

from contextlib import suppress
from pathlib import Path


def family(pid: int) -> list[int]:
    """A process and everything below it."""
    below = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                below += family(int(child))
    return below
