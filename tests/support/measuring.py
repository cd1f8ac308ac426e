"""What a running command and its children take of the machine, and what it says of itself."""

import os
import re
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import family

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """A command and its children at one moment."""

    at: float
    memory_mb: float
    files: int
    threads: int
    processes: int
    cpu: float  # seconds so far, of those that have ended too
    waiting: float


def cpu_of(pid: int) -> float:
    """Seconds of processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def metrics(port: int) -> dict[str, float]:
    """Every metric with its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def sample(pid: int, port: int, began: float) -> Sample:
    """All of it now."""
    memory, files, threads, cpu, processes = 0.0, 0, 0, 0.0, 0
    for one in family(pid):
        with suppress(OSError):  # it ended meanwhile
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.MULTILINE)
            memory += int(found[1]) / 1000 if found else 0
            files += sum(1 for _ in Path(f"/proc/{one}/fd").iterdir())
            threads += sum(1 for _ in Path(f"/proc/{one}/task").iterdir())
            cpu += cpu_of(one)
            processes += 1
    waiting = sum(value for name, value in metrics(port).items() if name.startswith("fediwarden_queue"))
    return Sample(time.monotonic() - began, memory, files, threads, processes, cpu, waiting)
