"""A month in minutes: `python -m tests.long.watch_month`. The store is a real S3 server, the clock and the models are stand-ins.

Uploads by day and by night, late ones, ones whose clock is wrong, deletions, renames, other bytes under an old key, keys without a
date; outages of an hour and one of three days, days on which nobody watches, clocks that jump both ways, a new engine version, an
object that is handed out on the last day only. In the end every object that lies in the bucket must have been looked at by the
engine version of now, every content once by each version, and listing must have stayed under its bound in every hour. Exit
code 1 if not.
"""

# ruff: noqa: T201 - its output is for whoever runs it

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import structlog
from tests.support.core import Clock, Core
from tests.support.servers import ADMIN, S3Server, running_s3
from tests.support.watching import PLAN, UNSETTLED, Watching, key_at

from fediwarden.backoff import Backoff
from fediwarden.errors import Unreached
from fediwarden.model import Blob, ObjectRef, StoreName
from fediwarden.stores.open import open_reader
from fediwarden.watch.request_budget import BURST
from fediwarden.watch.session import Watched, signal_of
from fediwarden.watch.signals import Signal
from fediwarden.watch.store import SILENT_FIRST, SILENT_MOST

START = datetime.fromisoformat("2026-05-01T00:00:00+00:00")


@dataclass
class Line:
    """The line to the store, which can be cut; and objects that it does not hand out."""

    reader: Any
    cut: bool = False
    poisoned: set[str] = field(default_factory=set)

    @property
    def name(self) -> StoreName:
        return StoreName(self.reader.name)

    @property
    def requests(self) -> int:
        return int(self.reader.requests)

    def close(self) -> None:
        self.reader.close()

    def stat(self, key: str) -> ObjectRef:
        self._ask()
        return cast(ObjectRef, self.reader.stat(key))

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        self._ask()
        return cast(Iterator[Sequence[ObjectRef]], self.reader.list())

    def between(self, after: str, until: str) -> Iterator[Sequence[ObjectRef]]:
        self._ask()
        return cast(Iterator[Sequence[ObjectRef]], self.reader.between(after, until))

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        self._ask()
        if ref.key in self.poisoned:
            raise Unreached("it is never handed out")
        return cast(Blob, self.reader.fetch(ref, limit))

    def _ask(self) -> None:
        if self.cut:
            raise Unreached("no route")


class Month:
    """Everything that happens, an hour at a time."""

    def __init__(self, place: Path, seed: int, server: S3Server, seconds: float) -> None:
        self.chance = random.Random(seed)
        self.server = server
        self.bucket = server.bucket()
        self.client = server.client(ADMIN)
        settings = server.settings(place, self.bucket)
        self.line = Line(open_reader(settings, environment={}))
        self.asking = Line(open_reader(settings, environment={}))
        self.core = Core(clock=Clock(START))
        self.there: dict[str, bytes] = {}
        self.number = 0
        self.counts: Counter[str] = Counter()
        self.true_time = START  # what the uploaders' clock shows; the watch's own may jump
        store: Any = self.line
        self.watching = Watching(store, self.core, replace(PLAN, seconds=seconds), choose=self.choose)
        self.lives = 0
        self.begin()

    def choose(self) -> Signal:
        watched = Watched(self.line, self.asking, f"s3://{self.bucket}")
        return signal_of(watched, self.core.clock)

    def begin(self) -> None:
        """Another life of the watch on the same ledger."""
        self.watching.begin()
        self.watching.watch._asking = self.asking
        self.watching.watch._counted = self.asking.requests
        self.silent = Backoff(SILENT_FIRST, SILENT_MOST)
        self.next_round = self.watching.seconds
        self.lives += 1

    def put(self, key: str, data: bytes) -> None:
        answer = self.client.send("PUT", self.bucket, key, body=data)
        assert answer.status == 200, answer
        self.there[key] = data

    def delete(self, key: str) -> None:
        self.client.send("DELETE", self.bucket, key)
        del self.there[key]

    def upload(self, back: float = 0.0) -> str:
        self.number += 1
        key = key_at(self.true_time - timedelta(minutes=back), self.number)
        self.put(key, self.chance.choice([b"dark", b"dark", b"bad", b"broken"]) + b" %d" % self.number)
        return key

    def happen(self) -> None:
        """What happens in one hour."""
        chance = self.chance
        if chance.random() < 0.55:
            for _ in range(chance.choice([1, 1, 2, 5])):
                self.upload()
                self.counts["uploads"] += 1
        if chance.random() < 0.04:
            self.upload(chance.uniform(1, 55))
            self.counts["late"] += 1
        if chance.random() < 0.02:
            self.upload(chance.uniform(60, 3000))
            self.counts["very late"] += 1
        if chance.random() < 0.03:
            self.upload(-chance.uniform(1, 600))
            self.counts["dated ahead"] += 1
        if len(self.there) > 20:
            key = chance.choice(sorted(self.there))
            if key in self.line.poisoned:
                return
            draw = chance.random()
            if draw < 0.06:
                self.delete(key)
                self.counts["deleted"] += 1
            elif draw < 0.09:
                data = self.there[key]
                self.delete(key)
                self.number += 1
                self.put(key_at(self.true_time, self.number), data)
                self.counts["renamed"] += 1
            elif draw < 0.11:
                self.number += 1
                self.put(key, b"dark, other bytes %d" % self.number)
                self.counts["replaced"] += 1
            elif draw < 0.13:
                self.number += 1
                self.put(f"avatars/{self.number}.png", b"dark %d" % self.number)
                self.counts["without a date"] += 1

    def step(self, seconds: float) -> None:
        """Let the watch do what is due."""
        self.true_time += timedelta(seconds=seconds)
        self.watching.pass_time(seconds=seconds)
        watch = self.watching.watch
        if self.watching.seconds >= self.next_round:
            try:
                watch.round()
                while watch._left:
                    watch.round()
            except Unreached:
                self.next_round = self.watching.seconds + self.silent.failed()
            else:
                self.silent.worked()
                self.next_round = watch._next
        for _ in range(200):
            if not watch.fill():
                break

    def not_looked_at(self) -> list[str]:
        """Objects of the bucket about which the ledger does not say what is true."""
        found = []
        entries = {entry.ref.key: entry for entry in self.core.ledger.entries()}
        for key, data in self.there.items():
            entry = entries.get(key)
            true = entry is not None and entry.sha256 == sha256(data).hexdigest() and entry.engine == self.core.engine
            if not true or entry is None or entry.gone or entry.lacking in UNSETTLED:
                found.append(key)
        found += [key for key, entry in entries.items() if key not in self.there and not entry.gone]
        return found


def main() -> int:
    """Thirty days."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument(
        "--seconds", type=int, default=60, help="between two rounds, as the setting; 300 takes a fifth of the time"
    )
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    began = time.monotonic()
    failed: list[str] = []
    hourly: list[int] = []
    opened: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder, running_s3(Path(folder) / "s3") as server:
        month = Month(Path(folder), options.seed, server, options.seconds)
        chance, core = month.chance, month.core
        for _ in range(30):
            month.upload(back=60 * 24)
        poisoned = month.upload(back=60)
        month.line.poisoned.add(poisoned)
        hours = options.days * 24
        away = outage = 0
        jump = timedelta()
        plan = (
            {hours // 5: "3 days of outage", hours // 2: "3 days away", hours * 2 // 3: "another engine version"}
            if options.days > 9
            else {}
        )
        for hour in range(hours):
            month.happen()
            what = plan.get(hour, "")
            if what == "3 days of outage":
                outage = 72
            elif what == "3 days away":
                away = 72
            elif what == "another engine version":
                opened.update((name, core.engine) for name in core.opener.opened)
                core.opener.opened.clear()
                core.engine = "2"
                month.begin()
            elif not away and not outage:
                draw = chance.random()
                if draw < 0.02:
                    outage = 1
                    month.counts["outages of an hour"] += 1
                elif draw < 0.05:
                    month.begin()
                elif draw < 0.06:
                    jump = timedelta(hours=chance.choice([-48, -3, 3, 48]))
                    core.clock.now += jump
                    month.counts["clock jumps"] += 1
            if hour == hours - 24:
                month.line.poisoned.clear()
            month.line.cut = month.asking.cut = outage > 0
            before = month.asking.requests
            if away:
                month.true_time += timedelta(hours=1)
                month.watching.pass_time(hours=1)
                away -= 1
                if not away:
                    month.begin()
            else:
                for _ in range(3600 // options.seconds):
                    month.step(options.seconds)
            hourly.append(month.asking.requests - before)
            outage -= outage > 0
            if jump and chance.random() < 0.3:
                core.clock.now -= jump
                jump = timedelta()
        month.line.cut = month.asking.cut = False
        for _ in range(25 * 3600 // options.seconds):
            month.step(options.seconds)
        opened.update((name, core.engine) for name in core.opener.opened)
        left = month.not_looked_at()
        twice = [one for one, count in opened.items() if count > 1]
        failed += [f"not as it is: {key}" for key in left[:10]] + [f"looked at twice: {one}" for one in twice[:10]]
        bound = PLAN.requests_per_hour * (1 + BURST)
        if max(hourly[1:]) > bound:
            failed.append(f"{max(hourly[1:])} listing requests in an hour")
        failed += core.ledger.verify()
        facts = {
            "days": options.days,
            "seconds": round(time.monotonic() - began),
            "objects_in_the_end": len(month.there),
            "looks": sum(opened.values()),
            "lives": month.lives,
            "happened": dict(month.counts),
            "listing_requests_an_hour": {"mean": round(sum(hourly) / len(hourly), 1), "most": max(hourly[1:])},
            "failed": failed,
        }
        print(json.dumps(facts))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
