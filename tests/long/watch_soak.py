"""Whether a watch stays the same under load, and what it costs when nothing happens: `python -m tests.long.watch_soak --minutes 20`.

The real command with the real models over a bucket whose keys carry their date and a folder that tells. Uploads come without a
pause, some of them copies, some deleted again; then comes a quiet time. Every ten seconds: memory (proportional set size),
open files, threads and processes of the watch and its children, and how many objects wait. Exit code 1 if anything grew by
more than a tenth from the second fifth of the load to the last, if an object was not looked at, or if idling took more than
one percent of a core, a few wakes a second or a hundred listing requests an hour a store. What this machine charges a bare
process for waking as often is told beside it.
"""

# ruff: noqa: T201 - its output is for whoever runs it

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.command import Home
from tests.support.measuring import Sample, metrics, rest, sample, threads_of
from tests.support.media_makers import still
from tests.support.models import installed_models
from tests.support.servers import ADMIN, S3Server, free_ports, running_s3
from tests.support.watching import key_at

EVERY = 10.0  # seconds between two samples
GREW = 1.10
IDLE_CPU = 0.01  # of a core
IDLE_WAKES = 4.0  # a second
IDLE_REQUESTS = 100  # an hour, a store
ROUND = 240.0  # seconds within which a store is asked anew; a rest is measured from one question to another, whole rounds


class Load:
    """Uploads to both stores, with what should be there in the end."""

    def __init__(self, server: S3Server, bucket: str, folder: Path) -> None:
        self.chance = random.Random(7)
        self.client = server.client(ADMIN)
        self.bucket = bucket
        self.folder = folder
        self.number = 0
        self.there: list[tuple[str, str]] = []
        self.recent: list[bytes] = []

    def upload(self) -> None:
        """One more, to one of the two; now and then one that was uploaded before, and now and then one goes."""
        self.number += 1
        chance = self.chance
        if self.recent and chance.random() < 0.2:
            data = chance.choice(self.recent)
        else:
            data = still(chance.choice(["png", "jpeg", "webp"]), 320 + self.number % 400, 300, seed=self.number)
            self.recent = [*self.recent[-50:], data]
        key = key_at(datetime.now(UTC) - timedelta(seconds=chance.random() * 5), self.number)
        if self.number % 2:
            answer = self.client.send("PUT", self.bucket, key, body=data)
            assert answer.status == 200, answer
            self.there.append(("bucket", key))
        else:
            path = self.folder / f"{self.number % 40}/{self.number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.there.append(("folder", f"{self.number % 40}/{self.number}.bin"))
        if len(self.there) > 200 and chance.random() < 0.3:
            store, old = self.there.pop(chance.randrange(len(self.there) - 100))
            if store == "bucket":
                self.client.send("DELETE", self.bucket, old)
            else:
                (self.folder / old).unlink()


def next_question(port: int, name: str) -> float:
    """Wait until a store was asked once more; how many requests there were by then."""
    before = now = metrics(port)[name]
    end = time.monotonic() + ROUND
    while now == before and time.monotonic() < end:
        time.sleep(0.5)
        now = metrics(port)[name]
    time.sleep(2)  # a round may be several requests
    return metrics(port)[name]


def not_looked_at(home: Home, there: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Which of these objects nobody has looked at."""
    with home.ledger() as ledger:
        seen = {(str(entry.ref.store), entry.ref.key) for entry in ledger.entries() if entry.sha256 and not entry.gone}
    return [one for one in there if one not in seen]


def grew(samples: list[Sample], name: str) -> float:
    """From the second fifth to the last, by the median; of a load that is shorter than five samples, nothing."""
    fifth = len(samples) // 5
    if not fifth:
        return 1.0
    first = statistics.median(getattr(one, name) for one in samples[fifth : 2 * fifth])
    last = statistics.median(getattr(one, name) for one in samples[-fifth:])
    return last / first if first else 1.0


def main() -> int:
    """Load, rest, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of load")
    parser.add_argument("--idle", type=float, default=5.0, help="minutes of rest")
    parser.add_argument("--rate", type=float, default=3.0, help="uploads a second")
    options = parser.parse_args()
    samples: list[Sample] = []
    most_threads = 0
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as place, running_s3(Path(place) / "s3") as server:
        home = Home(Path(place) / "home")
        port, bucket, folder = free_ports(1)[0], server.bucket(), Path(place) / "media"
        folder.mkdir()
        home.run("init", "--profile", "other")
        (home.folder / "models").symlink_to(installed_models())
        home.settings = {"FEDIWARDEN_WATCH__METRICS": f"127.0.0.1:{port}"}
        reader, _ = server.credentials(Path(place))
        home.add_store("bucket", url=f"s3://{bucket}", endpoint=server.endpoint, credentials=reader)
        home.add_store("folder", url=folder)
        load = Load(server, bucket, folder)
        for _ in range(20):
            load.upload()
        process = home.start("watch")
        began = time.monotonic()
        try:
            while not any(event["event"] == "object looked" for event in home.events()):
                time.sleep(0.5)
                assert process.poll() is None, process.communicate()[1].decode()[-2000:]
            end, next_sample, count = began + options.minutes * 60, began, 0
            threads: list[int] = []
            while time.monotonic() < end:
                due = began + count / options.rate
                time.sleep(max(0.0, due - time.monotonic()))
                load.upload()
                count += 1
                threads.append(threads_of(process.pid))
                if time.monotonic() >= next_sample:
                    next_sample += EVERY
                    # those that fetch come and go with each round: a moment has 17 or 28, ten seconds have a mean
                    samples.append(replace(sample(process.pid, port, began), threads=statistics.mean(threads)))
                    most_threads = max(most_threads, *threads)
                    threads.clear()
                    if len(samples) % 12 == 1:
                        print(json.dumps(vars(samples[-1])), flush=True)
            rested = time.monotonic()
            while not_looked_at(home, load.there) and time.monotonic() < rested + 300:
                time.sleep(2)
            caught_up = time.monotonic() - rested
            left = not_looked_at(home, load.there)
            if left:
                failed.append(f"{len(left)} objects were not looked at: {left[:5]}")
            time.sleep(60)
            name = 'fediwarden_store_requests_total{store="bucket"}'
            asked, asked_at = next_question(port, name), time.monotonic()
            idle = rest(process.pid, port, began, options.idle * 60)
            asked_now = metrics(port)
            requests, hours = next_question(port, name) - asked, (time.monotonic() - asked_at) / 3600
            stopping = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, words = process.communicate(timeout=30)
            stopped = time.monotonic() - stopping
        finally:
            process.kill()
        if process.returncode != 0 or b"Traceback" in words or stopped > 5:
            failed.append(f"it ended with {process.returncode} after {stopped:.1f} s: {words[-2000:]!r}")
        growth = {what: round(grew(samples, what), 3) for what in ("memory_mb", "files", "threads", "processes")}
        failed += [f"{what} grew {ratio} times" for what, ratio in growth.items() if ratio > GREW]
        if idle.cpu > IDLE_CPU or idle.wakes > IDLE_WAKES:
            failed.append(
                f"idling takes {idle.cpu:.2%} of a core (bare: {idle.bare_cpu:.2%}) and {idle.wakes:.1f} wakes a second"
            )
        if requests / hours > IDLE_REQUESTS:
            failed.append(f"idling takes {requests / hours:.0f} requests an hour")
        lag = [asked_now[f'fediwarden_arrival_lag_seconds_bucket{{le="{most}"}}'] for most in ("15.0", "60.0", "120.0", "+Inf")]
        facts = {
            "uploads": load.number,
            "minutes": options.minutes,
            "memory_mb": [round(one.memory_mb) for one in samples[:: max(1, len(samples) // 10)]],
            "files_most": max(one.files for one in samples),
            "threads_most": most_threads,
            "waiting_most": max(one.waiting for one in samples),
            "grew": growth,
            "caught_up_s": round(caught_up, 1),
            "lag_within_15_60_120_all": lag,
            "idle_cpu_of_a_core": round(idle.cpu, 5),
            "idle_cpu_of_bare": round(idle.bare_cpu, 5),
            "idle_wakes_a_second": round(idle.wakes, 2),
            "idle_requests_an_hour": round(requests / hours),
            "stopped_s": round(stopped, 2),
            "failed": failed,
        }
        print(json.dumps(facts))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
