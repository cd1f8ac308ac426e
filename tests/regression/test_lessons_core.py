"""Rows of the lessons where the parts meet: one way from a listing to a deed and back, each defect as an administrator met it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.installation import Yard

from fediwarden.acting.executor import Outcome
from fediwarden.errors import Refused, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import Act, DeedState, EngineVersion, Finding, Frame, Standing, Step, StoreName
from fediwarden.stores.files import FolderKeeper, FolderReader
from fediwarden.stores.memory import MemoryStore
from fediwarden.vault import make_identities


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Events are collected instead of drawn on a terminal."""
    with capture_logs():
        yield


@pytest.fixture
def yard(tmp_path: Path) -> Callable[[dict[str, bytes]], Yard]:
    def make(objects: dict[str, bytes]) -> Yard:
        keys = make_identities(tmp_path / "keys")
        return Yard(MemoryStore("memory", objects), folder=tmp_path / "vaults", keys=keys)

    return make


def test_f1_a_deed_is_done_only_when_the_store_itself_says_so(yard: Callable[[dict[str, bytes]], Yard]) -> None:
    """The store answers that it moved the object and did not: read back, it is still there."""
    core = yard({"a": b"bad"})
    core.scan()
    put = core.store.put

    def comes_back(step: str, key: str) -> None:
        if step == "stat":
            put(key, b"bad")

    core.store.before = comes_back
    (result,) = core.apply()
    assert result.outcome is Outcome.FAILED
    assert "still be read" in result.problem
    assert (Act.HIDE, DeedState.DONE) not in core.states("a")
    assert core.owed == ["a"]
    core.store.before = None
    assert core.keys_of(core.apply()) == ["a"]
    assert core.store.objects == {}


def test_f2_apply_after_a_dry_run_hides_all_that_it_found_and_a_second_scan_exempts_nothing(
    yard: Callable[[dict[str, bytes]], Yard],
) -> None:
    core = yard({f"{number}": f"bad {number}".encode() for number in range(6)})
    core.scan()
    core.scan()  # settled: nothing is looked at, and what is owed stays owed

    assert len(core.owed) == 6
    assert len(core.keys_of(core.apply())) == 6
    assert core.store.objects == {}


def test_f3_a_store_that_answers_again_has_every_object_looked_at(yard: Callable[[dict[str, bytes]], Yard]) -> None:
    core = yard({"a": b"bad", "b": b"dark"})

    def slow_down(step: str, _: str) -> None:
        if step == "fetch":
            raise Unreached("SlowDown")

    core.store.before = slow_down
    assert core.scan().unreached == 2
    assert core.ledger.totals(EngineVersion("1")).not_scanned == 2
    core.store.before = None
    assert core.scan().flagged == 1


def test_f4_an_error_while_hiding_is_a_state_that_shows_and_is_tried_again(yard: Callable[[dict[str, bytes]], Yard]) -> None:
    core = yard({"a": b"bad"})
    core.scan()

    def immutable(step: str, _: str) -> None:
        if step == "copy":
            raise Refused("Operation not permitted", hint="lsattr")

    core.store.before = immutable
    (result,) = core.apply()
    entry = core.entry("a")
    assert (result.outcome, result.hint) == (Outcome.FAILED, "lsattr")
    assert entry.deed == (Act.HIDE, DeedState.FAILED)
    assert not entry.hidden
    assert core.owed == ["a"]
    core.store.before = None
    assert core.keys_of(core.apply()) == ["a"]


def test_f5_what_cannot_be_read_is_counted_and_never_owed(yard: Callable[[dict[str, bytes]], Yard]) -> None:
    core = yard({"cut": b"broken", "blind": b"blind", "young": b"bad", "error": b"dark"})
    core.store.put("young", b"ba", settled=False)

    def odd(step: str, key: str) -> None:
        if step == "fetch" and key == "error":
            raise OSError(5, "Input/output error")

    core.store.before = odd
    tally = core.scan()
    assert (tally.listed, tally.not_scanned, tally.flagged, tally.passed) == (4, 4, 0, 0)
    assert core.owed == []
    assert core.apply() == []


def test_f6_one_odd_file_in_a_thousand_ends_neither_the_scan_nor_the_hiding(yard: Callable[[dict[str, bytes]], Yard]) -> None:
    core = yard({f"{number:04}": f"{'bad' if number % 100 == 0 else 'dark'} {number}".encode() for number in range(1000)})

    def odd(step: str, key: str) -> None:
        if (step, key) in (("fetch", "0555"), ("copy", "0300")):
            raise MemoryError

    core.store.before = odd
    tally = core.scan()
    assert (tally.seen, tally.unreached, tally.flagged) == (999, 1, 10)
    assert len(core.keys_of(core.apply())) == 9
    assert core.owed == ["0300"]


def test_f15_a_flag_takes_away_and_never_destroys(yard: Callable[[dict[str, bytes]], Yard]) -> None:
    core = yard({"a": b"bad"})
    core.scan()
    core.apply()

    (manifest,) = core.vaults.evidence.sealed()
    assert core.vaults.evidence.open(manifest.sha256, [core.keys[1].path]) == b"bad"
    assert list(core.store.hidden.values()) == [b"bad"]
    assert core.restore("a").outcome is Outcome.DONE
    assert core.store.objects == {"a": b"bad"}
    assert {step.value for step in Step} == {"none", "pass", "review", "quarantine"}


def test_f16_a_renamed_file_is_not_analysed_again_and_a_replaced_one_is(yard: Callable[[dict[str, bytes]], Yard]) -> None:
    core = yard({"a": b"bad"})
    core.scan()
    core.store.put("renamed", b"bad")
    core.store.put("a", b"dark")
    core.scan()

    assert len(core.opener.opened) == 2
    assert core.owed == ["renamed"]
    decision = core.entry("renamed").decision
    assert decision is not None
    assert decision.policy == core.policy.digest


def test_f17_a_page_of_a_listing_costs_one_question_and_no_object_any(
    yard: Callable[[dict[str, bytes]], Yard], monkeypatch: pytest.MonkeyPatch
) -> None:
    core = yard({f"{number}": b"dark" for number in range(2500)})
    core.scan()
    asked: list[int] = []
    settle = Ledger.settle

    def counted(self: Ledger, *arguments: object) -> set[str]:
        asked.append(1)
        return settle(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "settle", counted)
    assert core.scan().skipped == 2500
    assert len(asked) == 3


def test_f19_importing_the_core_checks_no_setting_and_starts_no_thread(tmp_path: Path) -> None:
    program = "import threading, fediwarden.app, fediwarden.cli.main, fediwarden.drill; print(threading.active_count())"
    senseless = {"FEDIWARDEN_HOME": str(tmp_path / "nowhere"), "FEDIWARDEN_ACTING__ALLOWANCE": "many", "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", program], env=senseless, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert list(tmp_path.iterdir()) == []


def test_f22_an_analyser_that_answers_with_nothing_at_all_leaves_one_object_unsettled(
    yard: Callable[[dict[str, bytes]], Yard],
) -> None:
    class Nothing:
        name = "nothing"
        version = "1"

        def analyse(self, frames: Sequence[Frame]) -> list[Finding] | None:
            return None if frames[0].rgb[0] else []

    core = yard({"a": b"bad", "b": b"dark"})
    core.analysers = [Nothing()]  # type: ignore[list-item]
    tally = core.scan()

    assert (tally.unreached, tally.passed) == (1, 1)
    entry = core.entry("a")
    assert entry.standing is Standing.UNREACHED


def test_f27_a_scan_and_an_apply_leave_no_readable_copy_outside_store_and_quarantine(
    tmp_path: Path, yard: Callable[[dict[str, bytes]], Yard]
) -> None:
    core = yard({"a": b"bad secret pixels"})
    core.ledger = Ledger.open(tmp_path / "ledger.sqlite3")
    core.scan()
    core.apply()
    core.ledger.close()

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".age" for path in files)
    assert not [path for path in files if b"secret pixels" in path.read_bytes()]


@pytest.mark.parametrize("key", ["../escaped/poc.png", "/etc/passwd", "a/../../poc", "..", "a\0b", "x" * 1000, "\udcff", "a\n/b"])
def test_p3_a_key_that_is_a_path_elsewhere_is_never_followed_by_reader_keeper_vault_or_quarantine(
    tmp_path: Path, key: str, yard: Callable[[dict[str, bytes]], Yard]
) -> None:
    store = tmp_path / "outer" / "store"
    store.mkdir(parents=True)
    outside = {tmp_path / "outer" / "poc": b"bad", tmp_path / "outer" / "escaped" / "poc.png": b"bad"}
    for path, data in outside.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    core = yard({key: b"bad"})  # a store that lists such names, and the ledger that believed it
    core.scan()
    core.stores["memory"] = FolderKeeper(StoreName("memory"), store, settle_seconds=0)  # type: ignore[assignment]
    (result,) = core.apply()

    assert result.outcome is not Outcome.DONE
    assert {path: path.read_bytes() for path in outside} == outside
    assert {path for path in (tmp_path / "outer").rglob("*") if path.is_file()} == outside.keys()
    assert list(FolderReader(StoreName("memory"), store).list()) == []


def test_h7_a_look_and_a_decision_say_what_made_them_and_when(yard: Callable[[dict[str, bytes]], Yard]) -> None:
    core = yard({"a": b"bad"})
    core.scan()
    history = core.ledger.history(core.store.name, "a")

    (look,) = history.looks
    (made,) = history.decisions
    assert (look.engine, look.at) == ("1", core.clock())
    assert all(found.version and found.analyser for found in look.findings)
    assert (made.decision.policy, made.at) == (core.policy.digest, core.clock())
    assert (made.decision.rule, made.decision.by) == ("bright", "policy")
    assert made.decision.because
