"""The table of issue 2's numbers, measured side by side in one run, as ratios; writes nothing but what it prints.

    python -m bench.run --work FOLDER --peer PYTHON_WITH_TORCH [--rounds 3]

Every rate is the median of some rounds, taken in turn (peer, models, bare, folder, S3, and again), and every ratio the median
of the rounds' ratios, so that a machine whose speed drifts drifts for all of them. Prints a Markdown table and, last, one JSON object.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.pictures import make
from tests.support.servers import READ_ONLY, running_s3

PICTURES = 200
ROOT = Path(__file__).parent.parent


def fediwarden(home: Path, *arguments: str, extra: Mapping[str, str] | None = None, codes: tuple[int, ...] = (0, 1, 3)) -> str:
    """Run the command as an administrator does; its standard output."""
    environment = {**os.environ, "FEDIWARDEN_HOME": str(home), **(extra or {})}
    done = subprocess.run(
        [sys.executable, "-m", "fediwarden.cli.main", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in codes:
        raise SystemExit(f"fediwarden {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def new_home(work: Path) -> Path:
    """A home with the models and nothing else, so that nothing is settled."""
    home = Path(tempfile.mkdtemp(prefix="home-", dir=work))
    (home / "models").symlink_to(work / "models")
    return home


def scan(work: Path, target: str, extra: Mapping[str, str] | None = None) -> float:
    """Images a second of a whole scan, as its own closing line says."""
    home = new_home(work)
    told = json.loads(fediwarden(home, "scan", target, "--json", extra=extra).splitlines()[-1])
    if told["seen"] != PICTURES:
        raise SystemExit(f"the scan saw {told['seen']} of {PICTURES}")
    shutil.rmtree(home)
    return PICTURES / float(told["seconds"])


def rate_of(command: list[str]) -> float:
    """The rate that a measuring program prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return float(json.loads(done.stdout.splitlines()[-1])["images_per_second"])


def first_decision(work: Path, picture: Path) -> float:
    """Seconds from the start of the command to the decision on one file."""
    home = new_home(work)
    started = time.perf_counter()
    fediwarden(home, "check", str(picture))
    return time.perf_counter() - started


def tree_memory(pid: int) -> int:
    """Proportional set size in bytes of a process and all its descendants."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
            todo += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except (OSError, StopIteration):
            continue  # it ended meanwhile
    return total


def watched(home: Path, *arguments: str) -> tuple[dict[str, float], int]:
    """A command's JSON and the most memory that it and its children held together."""
    environment = {**os.environ, "FEDIWARDEN_HOME": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-m", "fediwarden.cli.main", *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    most = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.05):
            most = max(most, tree_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    over.set()
    watcher.join()
    return json.loads(out.splitlines()[-1]), most


def settling(work: Path, count: int) -> tuple[float, int]:
    """Objects a second and the most memory while `count` unchanged objects of a folder are settled."""
    folder = work / f"many-{count}"
    if not folder.is_dir():
        old = time.time() - 3600
        for number in range(count):
            path = folder / f"{number % 256:02x}" / f"{number:06}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"benign text, no picture\n")
            os.utime(path, (old, old))
    home = new_home(work)
    fediwarden(home, "scan", str(folder), "--json")
    told, most = watched(home, "scan", str(folder), "--json")
    if told["skipped"] != count:
        raise SystemExit(f"{told['skipped']} of {count} were settled")
    shutil.rmtree(home)
    return count / told["seconds"], most


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".work" / "bench")
    parser.add_argument("--peer", default="", help="a Python that has torch, pillow and numpy; without it the peer is left out")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    pictures = make(work / "pictures", PICTURES)
    fediwarden(work, "models", "install")
    bare = [sys.executable, "-m", "bench.bare", str(pictures), "--models", str(work / "models")]
    with ExitStack() as stack:
        server = stack.enter_context(running_s3(Path(tempfile.mkdtemp(prefix="s3-", dir=work))))
        bucket = server.bucket()
        for path in sorted(pictures.glob("*.jpg")):
            server.put(bucket, path.name, path.read_bytes())
        keys = {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": READ_ONLY.access_key_id,
            "AWS_SECRET_ACCESS_KEY": READ_ONLY.secret_access_key,
        }
        ways: dict[str, Callable[[], float]] = {
            "models": lambda: rate_of([*bare, "--models-alone"]),
            "bare": lambda: rate_of(bare),
            "folder": lambda: scan(work, str(pictures)),
            "s3": lambda: scan(work, f"s3://{bucket}", keys),
        }
        if arguments.peer:
            ways = {"peer": lambda: rate_of([arguments.peer, "-m", "bench.peer", str(pictures)]), **ways}
        rounds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                rounds[name].append(way())
    rates = {name: statistics.median(values) for name, values in rounds.items()}
    few, few_memory = settling(work, 10_000)
    many, many_memory = settling(work, 100_000)
    start = statistics.median(first_decision(work, pictures / "00000.jpg") for _ in range(3))
    report(rates, rounds, few, few_memory, many, many_memory, start)


def report(
    rates: Mapping[str, float],
    rounds: Mapping[str, list[float]],
    few: float,
    few_memory: int,
    many: float,
    many_memory: int,
    start: float,
) -> None:
    """Print the table."""
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| what | figure | ratio | asked for |\n| --- | --- | --- | --- |")
    names = {
        "peer": "fedi-safety's path (PyTorch fp32, encoder twice)",
        "models": "ceiling: the two models alone, bare processes",
        "bare": "ceiling: decode, preparation and the two models, bare processes",
        "folder": "whole scan, folder",
        "s3": "whole scan, S3 server on the same cores",
    }

    def of(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(rounds[one], rounds[other], strict=True))

    for name, rate in rates.items():
        ratio = asked = ""
        if name == "bare":
            ratio = f"{of(name, 'models'):.2f} of the models alone"
        if name == "folder":
            ratio, asked = f"{of(name, 'bare'):.2f} of bare, {of(name, 'models'):.2f} of the models alone", "0.85 of bare"
            if "peer" in rates:
                ratio += f", {of(name, 'peer'):.0f} x peer"
                asked += ", 65 x peer"
        if name == "s3":
            ratio, asked = f"{of(name, 'bare'):.2f} of bare", "0.65 of bare"
        spread = f"{min(rounds[name]):.2f} to {max(rounds[name]):.2f}"
        print(f"| {names[name]} | {rate:.2f} images/s ({spread}) | {ratio} | {asked} |")
    print(f"| settling 10,000 unchanged objects | {few:,.0f}/s, {few_memory / 1e6:.0f} MB in all processes | | |")
    print(
        f"| settling 100,000 unchanged objects | {many:,.0f}/s, {many_memory / 1e6:.0f} MB | {many_memory / few_memory:.2f} x the memory of 10,000 | 20,000/s, under 1.20, under 800 MB |"
    )
    print(f"| start to first decision, one file | {start:.1f} s | | under 5 s |")
    figures = {
        **rates,
        "settle_10k": few,
        "settle_100k": many,
        "memory_10k": few_memory,
        "memory_100k": many_memory,
        "first_decision": start,
    }
    print("\n" + json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
