"""What a running command and its children take of the machine, and what it says of itself."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import family

TICK = os.sysconf("SC_CLK_TCK")
WOKE = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """A command and its children at one moment."""

    at: float
    memory_mb: float
    files: int
    threads: float
    processes: int
    cpu: float  # seconds so far, of those that have ended too
    wakes: int  # how often a thread has slept so far
    waiting: float


def cpu_of(pid: int) -> float:
    """Seconds of processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def threads_of(pid: int) -> int:
    """Threads of a process and its children now."""
    threads = 0
    for one in family(pid):
        with suppress(OSError):  # it ended meanwhile
            threads += sum(1 for _ in Path(f"/proc/{one}/task").iterdir())
    return threads


def wakes_of(pid: int) -> int:
    """How often the threads of a process have gone to sleep by themselves so far."""
    found = (WOKE.search((task / "status").read_text()) for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int(one[1]) for one in found if one)


@contextmanager
def sleeper(wakes_a_second: float) -> Iterator[int]:
    """A bare Python that wakes so often and does nothing; its process.

    A virtual machine may charge milliseconds for each waking, which no program can help: what a program at rest is charged
    means something only beside this one.
    """
    command = [sys.executable, "-c", f"import time\nwhile True:\n    time.sleep({1 / max(wakes_a_second, 0.01)})"]
    with subprocess.Popen(command) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def metrics(port: int) -> dict[str, float]:
    """Every metric with its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def sample(pid: int, port: int, began: float) -> Sample:
    """All of it now."""
    memory, files, cpu, wakes, processes = 0.0, 0, 0.0, 0, 0
    for one in family(pid):
        with suppress(OSError):  # it ended meanwhile
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.MULTILINE)
            memory += int(found[1]) / 1000 if found else 0
            files += sum(1 for _ in Path(f"/proc/{one}/fd").iterdir())
            cpu += cpu_of(one)
            wakes += wakes_of(one)
            processes += 1
    waiting = sum(value for name, value in metrics(port).items() if name.startswith("fediwarden_queue"))
    return Sample(time.monotonic() - began, memory, files, threads_of(pid), processes, cpu, wakes, waiting)


@dataclass(frozen=True)
class Rest:
    """What a quiet time took."""

    start: Sample
    end: Sample
    cpu: float  # share of a core
    bare_cpu: float  # the same, of a bare process that wakes as often
    wakes: float  # a second


def rest(pid: int, port: int, began: float, seconds: float) -> Rest:
    """Watch it rest for so long, after 30 seconds in which it is seen how often it wakes."""
    before = sample(pid, port, began)
    time.sleep(30)
    start = sample(pid, port, began)
    with sleeper((start.wakes - before.wakes) / (start.at - before.at)) as bare:
        time.sleep(2)
        charged, start = cpu_of(bare), sample(pid, port, began)
        time.sleep(seconds)
        charged, end = cpu_of(bare) - charged, sample(pid, port, began)
    lasted = end.at - start.at
    return Rest(start, end, (end.cpu - start.cpu) / lasted, charged / lasted, (end.wakes - start.wakes) / lasted)
