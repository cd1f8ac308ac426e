"""The tables: made, taken away, made again the same; a newer ledger is refused, and facts cannot be edited."""

import os
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.ledgers import ENGINE, NOW, a_decision, a_finding, a_hash, a_look, a_ref, begun, do, flagged

from fediwarden.errors import Misconfigured
from fediwarden.ledger import Ledger, LegacyWord, database, migrate
from fediwarden.ledger.maintenance import roll_back
from fediwarden.ledger.queries import queries
from fediwarden.model import Answer, AnswerReason, DeedState, Name, NameKind, PlatformDeed, TraceRecord

FACTS = ["meta", "runs", "run_ends", "looks", "findings", "decisions", "deeds"]
FACTS += ["names", "answers", "debts", "payments", "traces", "platform_deeds", "legacy"]


def schema(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name <> 'ledger_version'"
        )
        return sorted((name, re.sub(r"\s+", " ", sql)) for name, sql in rows)


def test_the_newest_migration_is_the_one_the_program_knows() -> None:
    assert migrate.scripts().get_heads() == [migrate.HEAD]


def test_tables_are_made_taken_away_and_made_again_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        flagged(ledger, a_ref())
        do(ledger, a_ref(), DeedState.BEGUN)
        made = schema(path)
        with database.writing(ledger._engine).begin() as connection:
            migrate.migrate(connection, migrate.BASE)
        assert schema(path) == []

    with Ledger.open(path) as ledger:
        assert schema(path) == made
        assert list(ledger.owed()) == []
        assert len(ledger.installation) == 32


def test_every_version_goes_one_version_down_and_up_again_and_keeps_what_both_know(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        flagged(ledger, a_ref())
        do(ledger, a_ref(), DeedState.BEGUN)
    made = schema(path)
    version: str | None = migrate.HEAD
    for number in range(len(list(migrate.scripts().walk_revisions())) - 1):
        found, before = roll_back(path, tmp_path / f"kept-{number}")
        assert (found, before) == (version, migrate.before(version))
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT COUNT(*) FROM deeds").fetchone() == (1,)
        version = before

    assert migrate.before(version) is None
    with pytest.raises(Misconfigured, match="no version before"):
        roll_back(path, tmp_path / "none")
    with Ledger.open(path) as ledger:
        assert schema(path) == made
        assert [owed.ref for owed in ledger.owed()] == [a_ref()]
        assert ledger.verify() == []


def test_every_query_fits_the_tables() -> None:
    with Ledger.open(":memory:") as ledger, ledger._engine.connect() as connection:
        assert len(queries()) > 30
        for name, query in queries().items():
            plain = re.sub(r"\bIN :\w+", "IN (NULL)", query.text)
            plain = re.sub(r":\w+", "NULL", plain)
            assert connection.exec_driver_sql("EXPLAIN " + plain).all(), name


def test_opening_a_current_ledger_needs_no_alembic(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    program = (
        "import sys; from fediwarden.ledger import Ledger; assert 'sqlalchemy' not in sys.modules; "
        "Ledger.open(sys.argv[1]).close(); assert 'alembic' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


def test_a_ledger_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE ledger_version SET version_num = '9999'")
    before = path.read_bytes()

    for read_only in (False, True):
        with pytest.raises(Misconfigured, match="newer version") as caught:
            Ledger.open(path, read_only=read_only)
        assert "update this program" in caught.value.hint
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")

    with pytest.raises(Misconfigured, match="another program"):
        Ledger.open(path)
    assert [name for name, _ in schema(path)] == ["bookmarks"]


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to look like one" * 50, b"\xff\xd8\xff\xe0" * 500])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)

    with pytest.raises(Misconfigured, match="is not a ledger"):
        Ledger.open(path)
    assert path.read_bytes() == content


def test_a_damaged_ledger_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    content = bytearray(path.read_bytes())
    content[100:4096] = os.urandom(3996)
    path.write_bytes(content)

    with pytest.raises(Misconfigured) as caught:
        Ledger.open(path)
    assert "backup" in caught.value.hint


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()

    with Ledger.open(path) as ledger:
        assert ledger.installation


def test_only_the_owner_may_read_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        flagged(ledger, a_ref())
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}

    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("spelling", ["sqlite:///{}", "{}"])
def test_a_ledger_may_be_named_by_path_or_by_url(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "odd name ?#%20&mode=ro \udcff.sqlite"
    with Ledger.open(spelling.format(path)) as ledger:
        flagged(ledger, a_ref())

    assert path.exists()


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(Misconfigured, match="postgresql"):
        Ledger.open("postgresql://user:secret@host/db")


@pytest.mark.parametrize("table", FACTS)
@pytest.mark.parametrize("statement", ["UPDATE {} SET rowid = rowid", "DELETE FROM {}"])
def test_facts_can_be_neither_changed_nor_deleted(tmp_path: Path, table: str, statement: str) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        run = begun(ledger)
        ledger.record(run, [(a_look(findings=[a_finding()]), a_decision())])
        do(ledger, a_ref(), DeedState.BEGUN)
        late = Answer(a_ref("late"), NOW, "pict-rs", passed=True, why=AnswerReason.LATE, sha256=a_hash("late"), debt=True)
        ledger.record(run, [], [late])
        ledger.uploads.lapse(list(ledger.uploads.debts(ENGINE)), "never came", NOW)
        ledger.platforms.add_names(run, [replace(a_ref(), names=(Name(NameKind.ALIAS, "a.png"),))])
        ledger.platforms.traced(run, TraceRecord(NOW, "alice", "ticket", "a.png"))
        ledger.platforms.did(run, PlatformDeed(NOW, "alice", "lemmy", "ban", "https://l.example/u/x", DeedState.BEGUN))
        ledger.legacy.add(run, a_ref().store, [("a.png", LegacyWord("fedi-safety", suspected=None))])
        ledger.end(run, "done", {}, NOW)

    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError, match="nothing in it is changed"):
        connection.execute(statement.format(table))


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        ("UPDATE deeds SET actor = 'eve' WHERE seq = 2", "deed 2 is not what was recorded"),
        ("UPDATE deeds SET key = x'00' WHERE seq = 1", "deed 1 is not what was recorded"),
        ("DELETE FROM deeds WHERE seq = 2", "deeds 2 to 2 are missing"),
        ("DELETE FROM deeds WHERE seq = 3", "1 times: object without its deed"),
        ("UPDATE deeds SET previous = hash WHERE seq = 3", "deed 3 does not follow deed 2"),
        ("DELETE FROM looks", "1 times: object without its look"),
        ("DELETE FROM decisions", "3 times: deed without its decision"),
        ("DELETE FROM objects", "1 times: look without its object"),
    ],
)
def test_verify_sees_what_was_tampered_with(tmp_path: Path, tamper: str, told: str) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        flagged(ledger, a_ref())
        do(ledger, a_ref(), DeedState.BEGUN, DeedState.MOVED, DeedState.DONE)
        assert ledger.verify() == []
    with sqlite3.connect(path) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(tamper)

    with Ledger.open(path, read_only=True) as ledger:
        assert told in ledger.verify()
