"""kill -9 of the gate, or of a process that holds the ledger's write lock, at random moments under load; then it goes on.

`FEDIWARDEN_SOAK=25` makes 25 rounds instead of two (`make soak-gate`); `FEDIWARDEN_SEED` moves the moments.
"""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.command import Home
from tests.support.fake_pictrs import FakePictrs, Upload, running_pictrs
from tests.support.gate_process import running_gate
from tests.support.slow_gate import bodies, command, prepare

from fediwarden.model import Sha256

ROUNDS = int(os.environ.get("FEDIWARDEN_SOAK", "2"))
SEED = int(os.environ.get("FEDIWARDEN_SEED", "20261125"))
LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE objects SET gone = gone")
time.sleep(60)
"""


@contextmanager
def a_writer(home: Home) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the middle of a transaction."""
    with subprocess.Popen([sys.executable, "-c", LOCK, str(home.folder / "ledger.sqlite3")]) as process:
        try:
            yield process
        finally:
            process.kill()


def one_round(home: Home, fake: FakePictrs, number: int, chance: random.Random) -> dict[Sha256, list[Upload]]:
    """Uploads at a slow gate, and a kill somewhere among them; what those who uploaded were told."""
    data = bodies(40, 50, seed=number)
    with running_gate(home, command(home, 0.15), deadline_seconds=2) as gate, ThreadPoolExecutor(len(data)) as pool:
        fake.validator = gate.url
        sending = [pool.submit(fake.upload, body, "image/png") for body in data]
        time.sleep(chance.uniform(0.0, 2.0))
        if number % 2:
            with a_writer(home) as writer:
                time.sleep(chance.uniform(0.5, 3.0))
                writer.kill()
        else:
            gate.process.kill()
        told: dict[Sha256, list[Upload]] = {}
        for body, upload in zip(data, sending, strict=True):
            told.setdefault(Sha256(sha256(body).hexdigest()), []).append(upload.result())
    return told


@pytest.mark.long
def test_whatever_is_killed_nothing_passed_without_a_record_and_every_debt_is_paid(home: Home) -> None:
    chance = random.Random(SEED)
    contents: dict[Sha256, bool] = {}
    passed: set[Sha256] = set()
    with running_pictrs() as fake:
        prepare(home, fake, queue=8, workers=2)
        for number in range(ROUNDS):
            contents |= {Sha256(sha256(body).hexdigest()): body.startswith(b"bad") for body in bodies(40, 50, seed=number)}
            told = one_round(home, fake, number, chance)
            assert {upload.status for uploads in told.values() for upload in uploads} <= {201, 400, 500}
            through = {content for content, uploads in told.items() if any(upload.status == 201 for upload in uploads)}
            passed |= through
            assert through <= on_record(home, "SELECT sha256 FROM answers WHERE passed")
            seen = on_record(home, "SELECT sha256 FROM answers WHERE passed AND why IN ('looked', 'known')")
            assert through <= seen | on_record(home, "SELECT sha256 FROM debts")

        with running_gate(home, command(home, 0.02), deadline_seconds=8):
            end = time.monotonic() + 60
            while passed & (left := on_record(home, OPEN)):
                assert time.monotonic() < end, f"{len(left)} debts are left"
                time.sleep(0.1)

    with home.ledger() as ledger:
        assert ledger.verify() == []
        assert {one.sha256 for one in ledger.owed()} & passed == {content for content in passed if contents[content]}
    for content in on_record(home, "SELECT sha256 FROM answers WHERE sealed = 1"):
        assert home.vault().check(Sha256(content))


OPEN = "SELECT sha256 FROM debts WHERE id NOT IN (SELECT debt FROM payments)"


def on_record(home: Home, question: str) -> set[str]:
    """The contents that the ledger names."""
    with closing(sqlite3.connect(home.folder / Path("ledger.sqlite3"), timeout=30)) as connection:
        return {str(row[0]) for row in connection.execute(question)}
