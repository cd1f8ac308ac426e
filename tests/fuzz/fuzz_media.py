"""Throws damaged files of every format at the cage for as long as told: `python -m tests.fuzz.fuzz_media --seconds 600`.

Every object must get a standing. What fails is printed as the name of a seed and the number of a mutation, from which the
same bytes come again (`--seed NAME --number N`); no file is written.
"""

# ruff: noqa: T201 - its output is for whoever runs it

import argparse
import itertools
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.support import media_makers as make
from tests.support.looking import look
from tests.unit.media.test_any_bytes import mutate

from fediwarden.errors import Unreached
from fediwarden.media import Cage, Limits


def main() -> int:
    """0 when every object got a standing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", help="look at one mutation of this seed and print what came of it")
    parser.add_argument("--number", type=int, default=0, help="of the first mutation")
    options = parser.parse_args()
    seeds = make.gallery()
    if options.seed:
        with Cage(Limits()) as cage:
            print(look(cage, mutate(seeds[options.seed], options.number)).report)
        return 0

    counts: Counter[str] = Counter()
    slowest: list[tuple[float, str, int]] = []
    failed: list[tuple[str, int, str]] = []
    lock = threading.Lock()
    numbers = itertools.count(options.number)
    names = sorted(seeds)
    end = time.monotonic() + options.seconds

    def work(cage: Cage) -> None:
        while time.monotonic() < end:
            number = next(numbers)
            name = names[number % len(names)]
            began = time.monotonic()
            try:
                report = look(cage, mutate(seeds[name], number)).report
                outcome = report.reason.value if report.reason else "partly seen" if report.unopened else "seen"
                if "an error of ours" in report.problem:
                    failed.append((name, number, report.problem))
            except Unreached as error:
                outcome = "unreached"
                failed.append((name, number, str(error)))
            except Exception:  # noqa: BLE001 - that is what is searched for
                outcome = "FAILED"
                failed.append((name, number, traceback.format_exc()))
            with lock:
                counts[outcome] += 1
                slowest.append((time.monotonic() - began, name, number))
                slowest.sort(reverse=True)
                del slowest[5:]

    with Cage(Limits(cpu_seconds=20, wall_seconds=60)) as cage, ThreadPoolExecutor(options.threads) as pool:
        for done in [pool.submit(work, cage) for _ in range(options.threads)]:
            done.result()
    print(f"{sum(counts.values())} objects:", ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common()))
    print("slowest:", ", ".join(f"{seconds:.2f} s {name} {number}" for seconds, name, number in slowest))
    for name, number, what in failed[:50]:
        print(f"--seed {name} --number {number}: {what}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
