"""fedi-safety's database is history: junk is told of, nothing is decided by it, and what that tool missed is named."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.ledgers import ENGINE, NOW, STORE, a_decision, a_look, a_ref

from fediwarden.errors import Misconfigured
from fediwarden.ledger import Ledger, LegacyWord
from fediwarden.legacy import Imported, Missed, read, take_over
from fediwarden.model import Name, NameKind, ObjectRef, RunId, Step

TABLE = "CREATE TABLE images (id INTEGER PRIMARY KEY, filename TEXT UNIQUE, nsfw BOOLEAN, csam BOOLEAN, created DATETIME)"


def written(file: Path, rows: Sequence[tuple[object, object]]) -> Path:
    """A database as fedi-safety leaves it."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(TABLE)
        connection.executemany("INSERT INTO images (filename, csam, created) VALUES (?, ?, '2023-09-01 10:00:00.000000')", rows)
    return file


def begun(ledger: Ledger) -> RunId:
    return ledger.begin("import-legacy", {}, NOW)


def imported(ledger: Ledger, file: Path, **other: object) -> tuple[Imported, list[Missed]]:
    missed: list[Missed] = []
    done = take_over(ledger, begun(ledger), STORE, file, tell=missed.append, **other)  # type: ignore[arg-type]
    return done, missed


def test_f16_an_old_word_about_a_name_decides_nothing_and_settles_nothing(tmp_path: Path) -> None:
    file = written(tmp_path / "old.db", [("a.jpg", True), ("b.jpg", False)])
    with Ledger.open(":memory:") as ledger:
        done, _ = imported(ledger, file)

        assert (done.rows, done.safe, done.suspected, done.matched) == (2, 1, 1, 0)
        assert ledger.legacy.of(STORE, "a.jpg") == [LegacyWord("fedi-safety", True, "2023-09-01 10:00:00.000000")]
        assert not list(ledger.entries())
        assert not list(ledger.owed())
        assert ledger.settle(begun(ledger), [a_ref("a.jpg"), a_ref("b.jpg")], ENGINE) == set()


def test_f3_what_it_silently_skipped_is_named_and_waits_for_the_next_scan(tmp_path: Path) -> None:
    file = written(tmp_path / "old.db", [("gone.jpg", None), ("there.jpg", None), ("fine.jpg", False)])
    with Ledger.open(":memory:") as ledger:
        done, missed = imported(ledger, file)

        assert (done.skipped, done.queued) == (2, 2)
        assert [(one.what, one.key) for one in missed] == [("skipped", "gone.jpg"), ("skipped", "there.jpg")]
        assert [entry.ref.key for entry in ledger.entries(not_scanned=True)] == ["gone.jpg", "there.jpg"]
        assert {entry.lacking for entry in ledger.entries()} == {"never looked at"}

        run = begun(ledger)
        assert ledger.settle(run, [a_ref("there.jpg")], ENGINE) == set()
        ledger.record(run, [(a_look(a_ref("there.jpg")), None)])
        assert ledger.swept(run, STORE) == 1
        assert list(ledger.entries(not_scanned=True)) == []


def test_what_it_missed_is_told_against_what_is_known_here(tmp_path: Path) -> None:
    file = written(
        tmp_path / "old.db", [("safe.jpg", False), ("wrong.jpg", False), ("bad.jpg", True), ("skip.jpg", None), ("x", True)]
    )
    with Ledger.open(":memory:") as ledger:
        run = begun(ledger)
        keys = ["safe.jpg", "wrong.jpg", "bad.jpg", "skip.jpg", "new.jpg"]
        looks = [(a_look(a_ref(key)), a_decision() if key == "wrong.jpg" else a_decision(Step.PASS)) for key in keys]
        ledger.record(run, looks)
        done, missed = imported(ledger, file)

        assert {one.key: one.what for one in missed} == {
            "wrong.jpg": "called safe",
            "bad.jpg": "still there",
            "skip.jpg": "skipped",
            "new.jpg": "never met",
        }
        assert (done.matched, done.unmatched, done.queued) == (4, 1, 0)
        again, _ = imported(ledger, file)
        assert again == done
        assert [owed.ref.key for owed in ledger.owed()] == ["wrong.jpg"]


def test_names_are_found_by_root_by_platform_name_and_by_their_end(tmp_path: Path) -> None:
    names = ["/srv/files/ab/one.jpg", "two.jpg", "twin.jpg", "alias.png"]
    file = written(tmp_path / "old.db", [(name, True) for name in names])
    with Ledger.open(":memory:") as ledger:
        run = begun(ledger)
        keys = ["ab/one.jpg", "cd/two.jpg", "ef/twin.jpg", "gh/twin.jpg"]
        ledger.record(run, [(a_look(a_ref(key)), None) for key in keys])
        by_hash = ObjectRef(STORE, "00" * 39, 10, "s", names=(Name(NameKind.ALIAS, "alias.png"),))
        ledger.settle(run, [by_hash], ENGINE)
        done, missed = imported(ledger, file, root="/srv/files/")

        assert (done.matched, done.unmatched, done.ambiguous) == (3, 1, 1)
        assert {one.key for one in missed if one.what == "still there"} == {"ab/one.jpg", "cd/two.jpg", "00" * 39}
        assert ledger.legacy.of(STORE, "cd/two.jpg")


def test_rows_that_are_none_are_counted_and_the_file_is_left_as_it_was(tmp_path: Path) -> None:
    file = written(tmp_path / "old.db", [("ok", 1), (None, 1), ("odd", 7), ("text", "yes"), (b"\xff.jpg", 0)])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    rows = list(read(file))

    assert rows.count(None) == 3
    assert [row[0] for row in rows if row] == ["ok", "\udcff.jpg"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("junk", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 2000])
def test_junk_gives_one_clear_answer(tmp_path: Path, junk: bytes) -> None:
    file = tmp_path / "junk.db"
    file.write_bytes(junk)
    with pytest.raises(Misconfigured, match=r"junk\.db"):
        list(read(file))
    with pytest.raises(Misconfigured, match="there is no file"):
        list(read(tmp_path))


def test_a_file_cut_off_in_the_middle_is_damaged_and_nothing_is_recorded(tmp_path: Path) -> None:
    file = written(tmp_path / "old.db", [(f"{number:05}.jpg" * 10, False) for number in range(3000)])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with Ledger.open(":memory:") as ledger:
        with pytest.raises(Misconfigured, match="damaged"):
            imported(ledger, file)
        assert not ledger.legacy.of(STORE, "00000.jpg" * 10)


def test_a_file_that_is_being_written_to_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "old.db", [("a", 1)])
    (tmp_path / "old.db-journal").write_bytes(b"x")
    with pytest.raises(Misconfigured, match="being written"):
        list(read(file))
