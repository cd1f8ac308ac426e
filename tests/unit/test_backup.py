"""A backup: whole or not there, made while others write, brought back only as it was, and never with a private key in it."""

import json
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Event

import pytest
from tests.support.ledgers import a_decision, a_look, a_ref

from fediwarden import config
from fediwarden.config import Configuration
from fediwarden.errors import BadEvidence, Busy, Misconfigured
from fediwarden.ledger import Ledger
from fediwarden.maintenance import backup
from fediwarden.maintenance.backup import Made
from fediwarden.model import Sha256, StoreName
from fediwarden.vault import Vault, make_identities, write_recipients

NOW = datetime(2026, 5, 6, 12, 0, tzinfo=UTC)


class Place:
    """A home with a ledger, a vault and a configuration, and a folder for backups."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.backups = folder / "backups"
        self.environment: dict[str, str] = {"FEDIWARDEN_HOME": str(self.home)}
        keys = make_identities(folder / "elsewhere")
        self.write("fediwarden.toml", config.template("other") + '\n[stores.media]\nurl = "/srv/media"\n')
        self.write("profiles/mine.toml", "# not read here")
        self.write("drill.key", "secret of the drill")
        self.write("gate.secrets", "zyzzyva-0123456789-zyzzyva")
        self.write("media.credentials", 'access_key = "xylophone"')
        write_recipients(self.home / "recipients.txt", [key.public for key in keys])
        self.vault = Vault(self.home / "vault", [key.public for key in keys])
        self.identity = keys[0].path
        with self.ledger() as ledger:
            run = ledger.begin("scan", {}, NOW)
            ledger.record(run, [(a_look(a_ref(f"{number}.jpg")), a_decision()) for number in range(50)])
        self.seal(b"one")

    def write(self, name: str, text: str) -> None:
        (self.home / name).parent.mkdir(exist_ok=True)
        (self.home / name).write_text(text)

    def seal(self, data: bytes) -> None:
        digest = Sha256(sha256(data).hexdigest())
        self.vault.seal(data, digest, store=StoreName("media"), key=data.decode(), at=NOW, because={})

    def ledger(self) -> Ledger:
        return Ledger.open(self.home / "ledger.sqlite3")

    @property
    def configuration(self) -> Configuration:
        return config.load(self.environment)

    def make(self, days: int = 0, keep: int = 0) -> Made:
        return backup.make(self.configuration, self.backups, NOW + timedelta(days=days), keep)

    def restored(self, name: str = "new", source: Path | None = None, **settings: str) -> Path:
        home = self.folder / name
        backup.restore(source or self.backups, {"FEDIWARDEN_HOME": str(home), **settings})
        return home


def below(folder: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_was_backed_up_comes_back_as_it_was_and_what_is_secret_was_never_in_it(place: Place) -> None:
    made = place.make()
    assert (made.files, made.sealed, made.added, made.problems, made.left_out) == (5, 2, 2, [], [])

    home = place.restored()

    before, after = below(place.home), below(home)
    for name in ("fediwarden.toml", "recipients.txt", "drill.key", "profiles/mine.toml"):
        assert after[name] == before[name]
    assert {name: data for name, data in after.items() if name.startswith("vault/") and ".lock" not in name} == {
        name: data for name, data in before.items() if name.startswith("vault/") and ".lock" not in name
    }
    with Ledger.open(home / "ledger.sqlite3") as ledger, place.ledger() as original:
        assert list(ledger.entries()) == list(original.entries())
        assert len(list(ledger.entries())) == 50
        assert ledger.installation == original.installation
    everything = b"".join(below(place.backups).values())
    assert b"zyzzyva" not in everything
    assert b"xylophone" not in everything
    assert b"AGE-SECRET-KEY" not in everything
    assert all(
        path.stat().st_mode & 0o077 == 0 for folder in (place.backups, home) for path in folder.rglob("*") if path.is_file()
    )


def test_a_file_that_holds_a_private_key_is_left_out_and_told(place: Place) -> None:
    place.write("profiles/oops.toml", place.identity.read_text())

    made = place.make()

    assert made.left_out == [str(place.home / "profiles/oops.toml")]
    assert b"AGE-SECRET-KEY" not in b"".join(below(place.backups).values())
    assert not (place.restored() / "profiles/oops.toml").exists()


def test_sealed_evidence_is_copied_once_and_stays_when_older_backups_go(place: Place) -> None:
    place.make()
    place.seal(b"two")

    assert (place.make(days=1).added, place.make(days=2).added) == (2, 0)
    made = place.make(days=3, keep=2)

    assert (made.removed, made.sealed) == (2, 4)
    assert len([item for item in place.backups.iterdir() if item.name.startswith("2026")]) == 2
    assert backup.check(place.backups) == []


def test_a_copy_that_is_in_the_backup_is_never_replaced_by_what_became_of_it(place: Place) -> None:
    place.make()
    sealed = next((place.home / "vault").glob("*/*.age"))
    whole = sealed.read_bytes()
    sealed.write_bytes(b"rot")

    made = place.make(days=1)

    assert len(made.problems) == 1
    assert next((place.restored() / "vault").glob("*/*.age")).read_bytes() == whole


def test_evidence_that_was_damaged_before_the_first_backup_is_told(place: Place) -> None:
    sealed = next((place.home / "vault").glob("*/*.age"))
    sealed.write_bytes(b"rot")

    (problem,) = place.make().problems

    assert "not what its manifest says" in problem


def test_a_backup_made_while_others_write_is_one_moment_of_the_ledger(place: Place) -> None:
    stop = Event()

    def write() -> int:
        number = 50
        with place.ledger() as ledger:
            run = ledger.begin("scan", {}, NOW)
            while not stop.is_set():
                ledger.record(run, [(a_look(a_ref(f"{number + more}.jpg")), a_decision()) for more in range(10)])
                number += 10
        return number

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        for day in range(5):
            place.make(days=day)
        stop.set()
        written = writing.result()

    counts = []
    for dated in sorted(place.backups.glob("2026*")):
        with Ledger.open(dated / "ledger.sqlite3", read_only=True) as ledger:
            assert ledger.maintenance.damage() == ledger.verify() == []
            counts.append(len(list(ledger.entries())))
    assert all(count % 10 == 0 for count in counts)
    assert counts == sorted(counts)
    assert 50 <= counts[0] < counts[-1] <= written


def test_a_backup_that_is_damaged_is_not_brought_back_and_nothing_is_written(place: Place) -> None:
    made = place.make()
    held = made.folder / "home/recipients.txt"
    held.write_text(held.read_text().replace("age1", "age2", 1))

    assert len(backup.check(place.backups)) == 1
    with pytest.raises(BadEvidence, match="damaged"):
        place.restored()
    assert not (place.folder / "new").exists()


def test_a_manifest_that_names_other_places_is_refused(place: Place) -> None:
    manifest = place.make().folder / "manifest.json"
    content = json.loads(manifest.read_text())
    for path in ("../../evil", "home/../../evil", "/etc/passwd", "home//x", "vault"):
        content["files"][1]["path"] = path
        manifest.write_text(json.dumps(content))
        with pytest.raises(BadEvidence, match="belongs into none"):
            place.restored()


def test_a_home_that_has_something_of_its_own_is_left_as_it_is(place: Place) -> None:
    place.make()
    with place.ledger() as ledger:
        ledger.begin("scan", {}, NOW)
    before = below(place.home)

    with pytest.raises(Misconfigured, match="already"):
        place.restored("home")

    assert below(place.home) == before


def test_a_restore_that_broke_off_goes_on(place: Place) -> None:
    place.make()
    home = place.restored()
    for name in ("ledger.sqlite3", "drill.key"):
        (home / name).unlink()

    place.restored()

    assert (home / "drill.key").read_bytes() == (place.home / "drill.key").read_bytes()
    with Ledger.open(home / "ledger.sqlite3") as ledger:
        assert len(list(ledger.entries())) == 50


def test_an_older_backup_is_brought_back_by_its_folder(place: Place) -> None:
    older = place.make().folder
    place.write("drill.key", "another")
    place.make(days=1)

    assert (place.restored("a") / "drill.key").read_text() == "another"
    assert (place.restored("b", older) / "drill.key").read_text() == "secret of the drill"


def test_files_that_lie_elsewhere_are_told_of_and_settings_of_the_environment_hold(place: Place) -> None:
    policy = place.folder / "etc-policy.toml"
    policy.write_text("version = 1")
    place.environment["FEDIWARDEN_POLICY__FILE"] = str(policy)
    place.make()
    ledger = place.folder / "data/l.sqlite3"

    home = place.folder / "new"
    done = backup.restore(
        place.backups,
        {
            "FEDIWARDEN_HOME": str(home),
            "FEDIWARDEN_LEDGER__URL": str(ledger),
            "FEDIWARDEN_VAULT__FOLDER": str(place.folder / "data/vault"),
        },
    )

    assert str(policy) in done.notes[0]
    assert (home / "outside/policy-etc-policy.toml").read_text() == "version = 1"
    assert ledger.is_file()
    assert list((place.folder / "data/vault").glob("*/*.age"))


def test_a_backup_of_a_newer_program_is_refused(place: Place) -> None:
    manifest = place.make().folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tables": "', '"tables": "9'))

    with pytest.raises(Misconfigured, match="newer version"):
        place.restored()


def test_a_backup_of_an_older_program_is_brought_up_to_date(place: Place) -> None:
    from fediwarden.ledger.maintenance import roll_back

    made = place.make()
    found, before = roll_back(made.folder / "ledger.sqlite3", place.folder / "kept.sqlite3")
    manifest = made.folder / "manifest.json"
    content = json.loads(manifest.read_text())
    held = made.folder / "ledger.sqlite3"
    with sqlite3.connect(held) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    content["tables"] = before
    content["files"][0] |= {"size": held.stat().st_size, "sha256": sha256(held.read_bytes()).hexdigest()}
    manifest.write_text(json.dumps(content))

    home = place.folder / "new"
    done = backup.restore(place.backups, {"FEDIWARDEN_HOME": str(home)})

    assert done.upgraded == f"{before} to {found}"
    with Ledger.open(home / "ledger.sqlite3") as ledger:
        assert len(list(ledger.entries())) == 50


def test_what_a_crash_left_is_taken_away_and_never_taken_for_a_backup(place: Place) -> None:
    place.make()
    half = place.backups / "20990101T000000.000000Z.unfinished"
    half.mkdir()
    (half / "manifest.json").write_text("{}")
    (place.backups / "20990101T000000.000001Z").mkdir()

    assert backup.find(place.backups).name.startswith("2026")
    place.make(days=1)

    assert not half.exists()


def test_two_backups_at_once_are_refused_and_so_is_one_into_the_vault(place: Place) -> None:
    place.backups.mkdir()
    with backup._alone(place.backups), pytest.raises(Busy):
        place.make()
    with pytest.raises(Misconfigured, match="inside the vault"):
        backup.make(place.configuration, place.home / "vault/b", NOW, 0)


def test_without_a_backup_there_is_nothing_to_bring_back(place: Place) -> None:
    for folder in (place.folder / "nowhere", place.home):
        with pytest.raises(Misconfigured):
            place.restored(source=folder)
