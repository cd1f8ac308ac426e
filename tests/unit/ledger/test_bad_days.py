"""Kills, crowds and bad disks: what was recorded stays, what was not is told in one line."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support.disks import as_stranger, largest_file, small_disk
from tests.support.ledgers import ENGINE, NOW, a_decision, a_finding, a_look, a_ref, begun, flagged
from tests.support.processes import started

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.ledger import Ledger, database

ROOT = Path(__file__).parents[3]

WRITER = """
import sys
from fediwarden.ledger import Ledger
from fediwarden.model import DeedState
from tests.support.ledgers import ENGINE, a_decision, a_finding, a_look, a_ref, begun, do
path, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
ledger = Ledger.open(path)
run = begun(ledger)
for n in range(rounds):
    refs = [a_ref(f"{name}/{n}/{m}") for m in range(5)]
    ledger.settle(run, refs, ENGINE)
    ledger.record(run, [(a_look(ref, findings=[a_finding()]), a_decision()) for ref in refs])
    do(ledger, refs[0], DeedState.BEGUN)
    print(n, flush=True)
"""


def writer(path: Path, name: str, rounds: int) -> "subprocess.Popen[str]":
    return started(
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(rounds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
    )


@pytest.mark.parametrize("lines", [1, 7, 23])
def test_a_killed_writer_loses_nothing_that_it_had_recorded(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "ledger.sqlite"
    process = writer(path, "w", 100_000)
    assert process.stdout is not None
    for _ in range(lines):
        told = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    with Ledger.open(path) as ledger:
        assert ledger.verify() == []
        keys = {entry.ref.key for entry in ledger.entries() if entry.decision and entry.look and entry.look.findings}
        assert {f"w/{n}/{m}" for n in range(told + 1) for m in range(5)} <= keys
        assert ledger.acted(NOW, drill=False) >= told + 1
        flagged(ledger, a_ref("after"))


def test_eight_processes_record_at_once_and_none_fails(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    processes = [writer(path, str(n), 10) for n in range(8)]
    for process in processes:
        process.communicate()

    assert [process.returncode for process in processes] == [0] * 8
    with Ledger.open(path) as ledger:
        assert ledger.verify() == []
        assert ledger.totals(ENGINE).objects == 400
        assert ledger.acted(NOW, drill=False) == 80


def fill(ledger: Ledger) -> None:
    """Record until the disk says no."""
    for n in range(2000):
        refs = [a_ref(f"{n}/{m}" + "x" * 500) for m in range(20)]
        ledger.record(begun(ledger), [(a_look(ref, findings=[a_finding()]), a_decision()) for ref in refs])


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as mounted:
        if not mounted:
            pytest.skip("this user may not mount; the test with a limit on files covers the rest")
        path = tmp_path / "disk" / "ledger.sqlite"
        with Ledger.open(path) as ledger:
            flagged(ledger, a_ref("first"))
            with pytest.raises(CannotWrite, match="the disk is full") as caught:
                fill(ledger)

            assert "\n" not in str(caught.value)
            assert "free some space" in caught.value.hint
            assert [owed.ref.key for owed in ledger.owed(only=["first"])] == ["first"]
            assert ledger.verify() == []
            whole = len(list(ledger.entries()))
        with Ledger.open(path, read_only=True) as ledger:
            assert len(list(ledger.entries())) == whole


def test_no_ledger_is_made_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8k") as mounted:
        if not mounted:
            pytest.skip("this user may not mount; the test with a limit on files covers the rest")
        with pytest.raises(CannotWrite):
            Ledger.open(tmp_path / "disk" / "ledger.sqlite")


def test_a_disk_that_fails_is_one_clear_line_and_loses_nothing(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        flagged(ledger, a_ref("first"))
        with largest_file(1 << 20), pytest.raises(CannotWrite) as caught:
            fill(ledger)

        assert "\n" not in str(caught.value)
        assert [owed.ref.key for owed in ledger.owed(only=["first"])] == ["first"]
        flagged(ledger, a_ref("after"))
        assert ledger.verify() == []


@pytest.fixture(name="shelf")
def _shelf() -> Iterator[Path]:
    """A folder that a stranger may read (pytest's own may not be entered by others)."""
    folder = TemporaryDirectory(prefix="fediwarden-test-")
    Path(folder.name).chmod(0o755)
    yield Path(folder.name)
    folder.cleanup()


def made(shelf: Path) -> Path:
    path = shelf / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        flagged(ledger, a_ref())
    path.chmod(0o444)
    shelf.chmod(0o555)
    return path


def test_a_read_only_ledger_is_one_clear_line_when_something_must_be_recorded(shelf: Path) -> None:
    path = made(shelf)
    before = path.read_bytes()

    with as_stranger(), pytest.raises(CannotWrite) as caught, Ledger.open(path) as ledger:
        flagged(ledger, a_ref("b"))

    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_read_only_ledger_can_be_read(shelf: Path) -> None:
    path = made(shelf)

    with as_stranger(), Ledger.open(path, read_only=True) as ledger:
        assert [owed.ref.key for owed in ledger.owed()] == ["a.jpg"]
        with pytest.raises(CannotWrite):
            flagged(ledger, a_ref("b"))


def test_no_ledger_is_made_where_nobody_may_write(shelf: Path) -> None:
    shelf.chmod(0o555)

    with as_stranger(), pytest.raises(CannotWrite):
        Ledger.open(shelf / "home" / "ledger.sqlite")


def test_reading_a_ledger_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="there is no ledger"):
        Ledger.open(tmp_path / "ledger.sqlite", read_only=True)

    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_may_not_be_read_or_is_a_folder_is_a_matter_of_configuration(shelf: Path) -> None:
    path = made(shelf)
    path.chmod(0o000)

    with as_stranger():
        for named in (path, shelf):
            for read_only in (False, True):
                with pytest.raises(Misconfigured, match="cannot read") as caught:
                    Ledger.open(named, read_only=read_only)
                assert caught.value.hint


def test_a_reader_sees_what_a_writer_records_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger, Ledger.open(path, read_only=True) as reader:
        flagged(ledger, a_ref())

        assert len(list(reader.owed())) == 1


def test_a_ledger_that_another_program_keeps_locked_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    with Ledger.open(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(CannotWrite, match="locked") as caught:
                begun(ledger)
        finally:
            other.close()

        assert caught.value.hint
        flagged(ledger, a_ref())


def test_a_batch_that_fails_midway_leaves_nothing_of_itself(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        run = begun(ledger)
        wrong = replace(a_look(a_ref("b")), milliseconds=2**70)
        with pytest.raises(OverflowError):
            ledger.record(run, [(a_look(a_ref("a")), a_decision()), (wrong, a_decision())])

        assert list(ledger.entries()) == []
        ledger.record(run, [(a_look(a_ref("a")), a_decision())])
        assert len(list(ledger.entries())) == 1


def test_memory_stays_flat_while_a_large_store_is_settled(tmp_path: Path) -> None:
    import tracemalloc

    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        run = begun(ledger)

        def settle(start: int) -> None:
            for page in range(start, start + 4000, 500):
                ledger.settle(run, [a_ref(f"{n}") for n in range(page, page + 500)], ENGINE)

        settle(0)
        tracemalloc.start()
        settle(0)
        first = tracemalloc.get_traced_memory()[0]
        settle(4000)
        second = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()

    assert second - first < 200_000
