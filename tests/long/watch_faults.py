"""Bad minutes for a watch that also hides: `python -m tests.long.watch_faults --seconds 600`.

The real command with the real models, over a bucket behind a proxy that breaks the network, while uploads never pause. One fault
after another, drawn by chance: the S3 server killed and started again, answers that fail, stall, are cut or never come, the watch
killed, its decoders killed, another process that holds the ledger, a full disk under home, SIGHUP. After each one an upload is
followed until it was looked at: that is the recovery time. In the end: every object that lies in the bucket was looked at, and
what the ledger says of it is true of its bytes; every animation (the stand-in for what a policy hides) was sealed and is out of the
bucket, by one deed; the ledger's chain holds. Exit code 1 if not. The full disk needs the right to mount.
"""

# ruff: noqa: T201 - its output is for whoever runs it

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.support.command import POLICY, Home
from tests.support.disks import small_disk
from tests.support.fault_proxy import FaultProxy, bad_days
from tests.support.media_makers import animation, colours, still
from tests.support.models import installed_models
from tests.support.processes import family
from tests.support.servers import S3Server, free_ports, running_s3
from tests.support.watching import key_at

from fediwarden.errors import FediwardenError
from fediwarden.model import Act, DeedState, Sha256, StoreName

STORE = StoreName("bucket")
RECOVERY_MOST = 240.0
LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
time.sleep(60)
"""


class Bad:
    """Everything that runs, and what can be done to it."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place = place
        self.chance = random.Random(int(os.environ.get("FEDIWARDEN_SEED", "5")))
        self.port = free_ports(1)[0]
        self.servers = ExitStack()
        stack.callback(self.servers.close)
        self.server = self.started()
        self.bucket = self.server.bucket()
        self.proxy: FaultProxy = stack.enter_context(bad_days(self.port))
        disk = place / "disk"
        self.own_disk = stack.enter_context(small_disk(disk, "300m"))
        self.disk = disk
        self.home = Home(disk / "home")
        self.home.run("init", "--profile", "other")
        self.home.run("vault", "init")
        (self.home.folder / "models").symlink_to(installed_models())
        (self.home.folder / "policy.toml").write_text(POLICY)
        self.home.settings = {
            "FEDIWARDEN_POLICY__FILE": "policy.toml",
            "FEDIWARDEN_WATCH__SECONDS": "3",
            "FEDIWARDEN_WATCH__REQUESTS_PER_HOUR": "20000",
            "FEDIWARDEN_WATCH__ACT": "allowance",
            "FEDIWARDEN_ACTING__ALLOWANCE": "100000",
        }
        reader, keeper = self.server.credentials(place)
        self.home.add_store(
            "bucket",
            url=f"s3://{self.bucket}",
            endpoint=f"http://127.0.0.1:{self.proxy.port}",
            credentials=reader,
            keeper_credentials=keeper,
        )
        self.process = self.watch()
        stack.callback(lambda: self.process.kill())
        self.over = threading.Event()
        self.number = 0
        self.lock = threading.Lock()
        self.animations: dict[str, bytes] = {}
        self.stills: set[str] = set()

    def started(self) -> S3Server:
        return self.servers.enter_context(running_s3(self.place / "s3", self.port))

    def watch(self) -> "subprocess.Popen[bytes]":
        words = (self.place / "words").open("ab")
        with words:
            return subprocess.Popen(
                self.home.command("watch"), env=self.home.environment, stdin=subprocess.DEVNULL, stdout=words, stderr=words
            )

    def upload(self) -> str:
        """One more, straight to the server, tried until it is there; one in eight has to be hidden."""
        with self.lock:
            self.number += 1
            number = self.number
        moving = number % 8 == 0
        data = animation("gif", colours(2, 40 + number % 50, 30 + number // 50)) if moving else still("png", 120, 90, seed=number)
        key = key_at(datetime.now(UTC), number)
        while not self.over.is_set():
            with suppress(FediwardenError, OSError, AssertionError):
                self.server.put(self.bucket, key, data)
                if moving:
                    self.animations[key] = data
                else:
                    self.stills.add(key)
                break
            time.sleep(0.3)
        return key

    def load(self) -> None:
        while not self.over.wait(1.0):
            self.upload()

    # -- faults ---------------------------------------------------------------------------------------------------------

    def server_killed(self) -> None:
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.over.wait(self.chance.uniform(2, 15))
        with suppress(Exception):
            self.servers.close()
        self.server = self.started()

    def network(self, fault: str) -> None:
        share = self.chance.choice([0.3, 1.0])
        self.proxy.plan = lambda _number, _line: fault if self.chance.random() < share else ""
        self.over.wait(self.chance.uniform(5, 15))
        self.proxy.heal()

    def watch_killed(self) -> None:
        for pid in family(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.over.wait(self.chance.uniform(0, 5))
        self.process = self.watch()

    def decoders_killed(self) -> None:
        for _ in range(5):
            for pid in family(self.process.pid)[1:]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.over.wait(1)

    def ledger_busy(self) -> None:
        with subprocess.Popen([sys.executable, "-c", LOCK, str(self.home.folder / "ledger.sqlite3")]) as writer:
            self.over.wait(self.chance.uniform(3, 12))
            writer.kill()

    def disk_full(self) -> None:
        ballast = self.disk / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(65536))
                file.flush()
        self.over.wait(self.chance.uniform(5, 12))
        ballast.unlink()

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def faults(self) -> list[tuple[str, Callable[[], None]]]:
        every: list[tuple[str, Callable[[], None]]] = [
            ("server killed", self.server_killed),
            ("watch killed", self.watch_killed),
            ("decoders killed", self.decoders_killed),
            ("ledger busy", self.ledger_busy),
            ("reload", self.reload),
            *(
                (f"network {fault}", lambda fault=fault: self.network(fault))
                for fault in ("503", "reset", "cut", "lost", "slow:3")
            ),
        ]
        if self.own_disk:
            every.append(("disk full", self.disk_full))
        self.chance.shuffle(every)
        return every

    # -- what came of it ------------------------------------------------------------------------------------------------

    def looked_at(self, key: str) -> bool:
        with suppress(FediwardenError, sqlite3.Error), self.home.ledger() as ledger:
            entry = ledger.entry(STORE, key)
            return entry is not None and bool(entry.sha256) and not entry.lacking
        return False

    def events(self) -> list[dict[str, Any]]:
        """The log; a full disk may have cut a line of it short."""
        found = []
        for line in (self.home.folder / "fediwarden.log").read_text(errors="replace").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def wrong(self) -> tuple[list[str], dict[str, int]]:
        """What does not agree in the end, and how much there is of everything."""
        found: list[str] = []
        client = self.server.client(tries=3)
        keys: list[str] = []
        token = ""
        while True:
            query = {"list-type": "2", "max-keys": "1000", **({"continuation-token": token} if token else {})}
            root = client.send("GET", self.bucket, query=query).xml()
            assert root is not None
            keys += [one.findtext("{*}Key") or "" for one in root.iterfind("{*}Contents")]
            token = root.findtext("{*}NextContinuationToken") or ""
            if not token:
                break
        objects = {key: self.server.get(self.bucket, key) or b"" for key in keys if not key.startswith("fediwarden-quarantine/")}
        vault = self.home.vault()
        hidden = 0
        with self.home.ledger() as ledger:
            found += [f"ledger: {problem}" for problem in ledger.verify()]
            for key, data in objects.items():
                entry = ledger.entry(STORE, key)
                if entry is None or entry.gone or entry.sha256 != sha256(data).hexdigest() or entry.lacking:
                    found.append(f"{key}: {entry}")
            for key, data in self.animations.items():
                history = ledger.history(STORE, key)
                done = [deed for deed in history.deeds if deed.act is Act.HIDE and deed.state is DeedState.DONE]
                hidden += len(done)
                if len(done) > 1:
                    found.append(f"{key}: hidden {len(done)} times")
                if key in objects:
                    found.append(f"{key}: still in the bucket")
                elif history.looks and not vault.check(Sha256(sha256(data).hexdigest())):
                    found.append(f"{key}: out of the bucket and not sealed")
                elif not history.looks:
                    found.append(f"{key}: never looked at, and not in the bucket")
            missing = self.stills - objects.keys()
            found += [f"{key}: nobody had to hide it" for key in missing if ledger.history(STORE, key).deeds]
            looks = Counter(
                event["key"] for event in self.events() if event["event"] == "object looked" and event["standing"] == "seen"
            )
        counts = {
            "uploads": len(self.animations) + len(self.stills),
            "in_the_bucket": len(objects),
            "lost_by_the_server": len(missing),  # nobody took them away: it was killed
            "hidden": hidden,
            "looked_at_more_than_once": sum(count > 1 for count in looks.values()),
        }
        return found, counts


def main() -> int:
    """Fault after fault, and then a reckoning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--only", default="", help="faults whose name begins like this")
    options = parser.parse_args()
    failed: list[str] = []
    recovered: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bad = Bad(Path(folder), stack)
        loading = threading.Thread(target=bad.load, daemon=True)
        loading.start()
        first = bad.upload()
        while not bad.looked_at(first):
            time.sleep(0.5)
        end = time.monotonic() + options.seconds
        plan: list[tuple[str, Callable[[], None]]] = []
        while time.monotonic() < end:
            plan = plan or [one for one in bad.faults() if one[0].startswith(options.only)]
            name, fault = plan.pop()
            fault()
            healed = time.monotonic()
            key = bad.upload()
            while not bad.looked_at(key) and time.monotonic() < healed + RECOVERY_MOST:
                time.sleep(0.25)
            took = time.monotonic() - healed
            recovered.setdefault(name, []).append(round(took, 1))
            print(f"{name:>16}: {took:5.1f} s until the next upload was looked at", flush=True)
            if took >= RECOVERY_MOST:
                failed.append(f"{name}: not recovered")
                print(*bad.events()[-8:], sep="\n")
            if bad.process.poll() is not None:
                failed.append(f"{name}: the watch ended with {bad.process.returncode}")
                bad.process = bad.watch()
        quiet = time.monotonic()
        bad.over.set()
        loading.join(60)
        bad.over.clear()
        while (problems := bad.wrong()[0]) and time.monotonic() < quiet + 600:
            time.sleep(5)
        settled = time.monotonic() - quiet
        problems, counts = bad.wrong()
        bad.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            bad.process.wait(10)
        failed += problems
        facts = {
            **counts,
            "faults": sum(map(len, recovered.values())),
            "recovery_s": recovered,
            "all_settled_after_s": round(settled, 1),
            "tracebacks": (Path(folder) / "words").read_text(errors="replace").count("Traceback"),
            "failed": failed[:30],
        }
        print(json.dumps(facts))
        if failed:
            print((Path(folder) / "words").read_text(errors="replace")[-3000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
