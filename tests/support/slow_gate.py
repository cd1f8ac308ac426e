"""A gate whose analyser is slow on purpose, as a process of its own, and a burst of uploads through a pict-rs at it.

The bytes say what they are, as in `core`: `bad` is refused where it was looked at in time. `python -m tests.support.slow_gate` is the
process; FEDIWARDEN_HOME is its home, and the argument how many seconds one look takes.
"""

import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random

from tests.support import core
from tests.support.command import Home
from tests.support.fake_pictrs import FakePictrs, Upload
from tests.support.gate_process import GateProcess, running_gate

from fediwarden.ledger import Ledger
from fediwarden.model import AnswerReason, Blob, EngineVersion, Sha256

ENGINE = "slow"
LEMMY = 2.0  # seconds that Lemmy waits longer than the gate's deadline


def prepare(home: Home, fake: FakePictrs, **settings: object) -> None:
    """Give a home the policy of `core` and the pict-rs that its gate guards."""
    (home.folder / "policy.toml").write_text(core.POLICY)
    file = home.folder / "pictrs.toml"
    file.write_text(f'api_key = "{fake.api_key}"\n')
    file.chmod(0o600)
    home.add_store("pictrs", url=f"pictrs://127.0.0.1:{fake.port}", credentials="pictrs.toml")
    home.settings |= {"FEDIWARDEN_POLICY__FILE": "policy.toml", "FEDIWARDEN_GATE__STORE": "pictrs"}
    home.settings |= {f"FEDIWARDEN_GATE__{name.upper()}": str(value) for name, value in settings.items()}


def command(home: Home, seconds: float) -> list[str]:
    """What starts the process."""
    home.settings["PYTHONPATH"] = str(Path(__file__).parents[2])
    return [sys.executable, "-m", "tests.support.slow_gate", str(seconds)]


def bodies(count: int, kilobytes: int, seed: int = 1) -> list[bytes]:
    """Uploads of noise, a third of them bad, every tenth one the same as another."""
    random = Random(seed)
    noise = bytes(number | 0x80 for number in range(256))  # no letters, which would say something in `core`
    made = [
        (b"bad " if number % 3 == 0 else b"good ") + random.randbytes(kilobytes << 10).translate(noise)
        for number in range(count - count // 10)
    ]
    return made + random.sample(made, count // 10)


@dataclass(frozen=True)
class Burst:
    """What came of one burst."""

    outcomes: tuple[tuple[Sha256, bool, Upload], ...]  # content, whether it is bad, what the one who uploaded was told
    longest: float  # seconds until the slowest answer, as the one who uploaded saw it: with what a busy pict-rs adds
    recorded: float  # the same as the gate saw it
    until_paid: float  # seconds from the last answer until no debt was open
    before_kb: int  # memory of the gate
    peak_kb: int
    whys: dict[tuple[bool, AnswerReason], int]
    debts: int  # that there were
    wrong: tuple[str, ...]  # what should not have been; empty

    @property
    def passed(self) -> int:
        """Uploads that live."""
        return sum(upload.status == 201 for _, _, upload in self.outcomes)


def burst(home: Home, fake: FakePictrs, data: Sequence[bytes], *, seconds: float, deadline: float, patience: float) -> Burst:
    """Upload all at once, wait until every debt is paid, and hold the answers to what the ledger says.

    Args:
        seconds: one look takes.
        deadline: of the gate, as configured.
        patience: seconds that the debts may take.
    """
    with running_gate(home, command(home, seconds)) as gate:
        fake.validator = gate.url
        before = _memory(gate, "VmRSS")
        with ThreadPoolExecutor(len(data)) as pool:
            together = threading.Barrier(len(data))

            def send(body: bytes) -> tuple[Upload, float]:
                together.wait()
                begun = time.monotonic()
                return fake.upload(body, "image/png"), time.monotonic() - begun

            outcomes = list(pool.map(send, data))
        begun = time.monotonic()
        with closing(Ledger.open(home.folder / "ledger.sqlite3", read_only=True)) as ledger:
            debts = {debt.sha256 for debt in ledger.uploads.debts(EngineVersion(ENGINE))}
            while any(True for _ in ledger.uploads.debts(EngineVersion(ENGINE))):
                if time.monotonic() - begun > patience:
                    break
                time.sleep(0.1)
            paid = time.monotonic() - begun
            peak = _memory(gate, "VmHWM")
            facts = [
                (Sha256(sha256(body).hexdigest()), body.startswith(b"bad"), upload)
                for body, (upload, _) in zip(data, outcomes, strict=True)
            ]
            longest = max(took for _, took in outcomes)
            whys: dict[tuple[bool, AnswerReason], int] = {}
            recorded = 0.0
            for content in {content for content, _, _ in facts}:
                for answer in ledger.uploads.answers(content):
                    recorded = max(recorded, answer.milliseconds / 1000)
                    whys[answer.passed, answer.why] = whys.get((answer.passed, answer.why), 0) + 1
            wrong = (*_wrong(ledger, facts), *(["a debt was not paid"] if paid > patience else []))
            if recorded > deadline or longest > deadline + LEMMY:
                wrong = (*wrong, f"an answer took {longest:.2f} s, {recorded:.2f} in the gate")
    return Burst(tuple(facts), longest, recorded, paid, before, peak, whys, len(debts), wrong)


def _wrong(ledger: Ledger, facts: Sequence[tuple[Sha256, bool, Upload]]) -> list[str]:
    """What the ledger and the answers do not agree in."""
    found: list[str] = []
    owed = {one.sha256 for one in ledger.owed()}
    with closing(sqlite3.connect(ledger.path)) as connection:
        debts = {row[0] for row in connection.execute("SELECT sha256 FROM debts")}  # paid ones too
    for content in {content for content, _, _ in facts}:
        mine = [(bad, upload) for one, bad, upload in facts if one == content]
        bad = mine[0][0]
        answers = ledger.uploads.answers(content)
        passed = sum(upload.status == 201 for _, upload in mine)
        if len(answers) != len(mine) or sum(answer.passed for answer in answers) != passed:
            found.append(f"{content}: {len(mine)} uploads, {passed} passed, on record {len(answers)}")
        for answer in answers:
            judged = answer.why in (AnswerReason.LOOKED, AnswerReason.KNOWN)
            if judged and answer.passed == bad:
                found.append(f"{content}: the verdict of another")
            if answer.passed and not judged and content not in debts:
                found.append(f"{content}: passed unscanned without a debt")
            if not answer.passed and not judged:
                found.append(f"{content}: refused, {answer.why.value}")
        if (content in owed) != (bad and passed > 0):
            found.append(f"{content}: {'not ' if bad else ''}owed")
    if problems := ledger.verify():
        found += [str(problem) for problem in problems]
    return found


def _memory(gate: GateProcess, what: str) -> int:
    lines = Path(f"/proc/{gate.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def main() -> int:
    """The process: the program's own gate with the opener of `core` in place of the cage."""
    import os
    from datetime import UTC, datetime

    from tests.support.analysers import Brightness

    from fediwarden.app import App
    from fediwarden.config import environment
    from fediwarden.gate import secrets, serve
    from fediwarden.gate.protocols import application
    from fediwarden.pipeline import Looker

    seconds = float(sys.argv[1])

    def slow(_: Blob) -> None:
        time.sleep(seconds)

    app = App(environment())
    app.open_log()
    looker = Looker(core.Opener(before=slow), (Brightness("exposed"),), EngineVersion(ENGINE), lambda: datetime.now(UTC))
    with serve.listening(app.settings.gate.listen, os.environ) as bound:
        run = app.ledger.begin("gate", {}, app.clock())
        with app.gate(run, looker) as gate:
            serve.serve(application(gate, secrets.read(app.gate_secrets)), gate, bound)
    return 0


if __name__ == "__main__":
    sys.exit(main())
