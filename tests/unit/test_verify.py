"""Ledger, vault and stores held against one another: what agrees, what does not, and what can be put right."""

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.installation import METADATA, Crash, Mortal, Yard

from fediwarden.errors import Exit, Misconfigured, Unreached
from fediwarden.ledger import Ledger
from fediwarden.maintenance.verify import Disagreement, Verify, worst
from fediwarden.model import Sha256, StoreName
from fediwarden.stores.interface import Keeper
from fediwarden.vault import make_identities

BAD = b"bad picture"


def sha(data: bytes) -> Sha256:
    return Sha256(sha256(data).hexdigest())


@pytest.fixture(name="yard")
def _yard(tmp_path: Path) -> Yard:
    yard = Yard(folder=tmp_path, keys=make_identities(tmp_path / "elsewhere"))
    yard.store.put("a.png", BAD)
    yard.store.put("b.png", b"fine")
    yard.scan()
    yard.apply()
    return yard


def checked(yard: Yard, *, mend: bool = False, stores: Collection[StoreName] | None = None) -> list[Disagreement]:
    def hold(name: StoreName) -> Keeper:
        return yard.hold(name).keeper

    folders = {drill: yard.folder / f"vault-{drill}" for drill in (False, True)}
    return list(Verify(yard.ledger, folders, hold, 1 << 20, stores=stores, mend=yard.vaults if mend else None).findings())


def said(findings: list[Disagreement]) -> list[str]:
    return [finding.what for finding in findings]


def sealed_file(yard: Yard, data: bytes = BAD) -> Path:
    return yard.folder / "vault-False" / sha(data)[:2] / f"{sha(data)}.age"


def test_what_was_hidden_and_restored_as_it_should_be_agrees(yard: Yard) -> None:
    assert checked(yard) == []

    yard.restore("a.png")

    assert checked(yard) == []


def test_a_damaged_sealed_copy_is_found_and_sealed_again_from_the_hidden_one(yard: Yard) -> None:
    sealed_file(yard).write_bytes(b"rot")

    (found,) = checked(yard)
    assert (found.what, found.exit, found.mended) == ("sealed copy altered", Exit.INTERNAL, False)
    assert "--mend" in found.hint
    (mended,) = checked(yard, mend=True)

    assert mended.mended
    assert checked(yard) == []
    assert yard.vaults.evidence.open(sha(BAD), [yard.keys[0].path]) == BAD
    assert [path.read_bytes() for path in sealed_file(yard).parent.glob("*.age.unclaimed-*")] == [b"rot"]


def test_two_objects_with_the_same_bytes_are_both_sealed_again(yard: Yard) -> None:
    yard.store.put("c.png", BAD)
    yard.scan()
    yard.apply()
    for path in sealed_file(yard).parent.iterdir():
        path.unlink()

    assert said(checked(yard)) == ["not sealed"]
    checked(yard, mend=True)

    assert checked(yard) == []
    assert {manifest.key for manifest in yard.vaults.evidence.sealed()} == {"a.png", "c.png"}


def test_a_sealed_copy_that_no_store_can_give_back_stays_a_disagreement(yard: Yard) -> None:
    yard.removes = True
    yard.store.put("only.png", b"bad, and only in the vault")
    yard.scan()
    yard.apply()
    sealed_file(yard, b"bad, and only in the vault").unlink()

    (found,) = checked(yard, mend=True)

    assert (found.what, found.exit, found.mended) == ("sealed copy altered", Exit.INTERNAL, False)
    assert "backup" in found.hint


def test_bytes_that_lie_under_their_key_again_are_found(yard: Yard) -> None:
    yard.store.put("a.png", BAD)

    assert said(checked(yard)) == ["visible again"]


def test_other_bytes_under_the_key_are_nobody_s_business(yard: Yard) -> None:
    yard.store.put("a.png", b"another picture")

    assert checked(yard) == []


def test_a_hidden_copy_that_is_gone_altered_or_public_is_found(yard: Yard) -> None:
    yard.store.public = True
    assert said(checked(yard)) == ["public"]
    yard.store.public = False
    (spot,) = yard.store._hidden
    kept = yard.store._hidden.pop(spot)

    assert said(checked(yard)) == ["copy missing"]
    yard.store.put("elsewhere", b"other bytes")
    yard.store._hidden[spot] = yard.store._objects.pop("elsewhere")
    assert said(checked(yard)) == ["copy altered"]
    yard.store._hidden[spot] = kept
    assert checked(yard) == []


def test_what_a_person_put_back_and_is_not_there_is_asked_about_until_a_scan_saw_it_gone(yard: Yard) -> None:
    yard.restore("a.png")
    yard.store.delete("a.png")

    (found,) = checked(yard)
    assert (found.what, found.exit) == ("not there", Exit.NOT_SCANNED)
    yard.scan()

    assert checked(yard) == []


def test_a_sealed_copy_taken_out_by_hand_after_a_restoring_is_no_loss(yard: Yard) -> None:
    yard.restore("a.png")
    for path in sealed_file(yard).parent.iterdir():
        path.unlink()

    assert checked(yard) == []


def test_evidence_that_nothing_is_on_record_about_is_a_remark(yard: Yard) -> None:
    yard.vaults.evidence.seal(b"?", sha(b"?"), store=StoreName("media"), key="x", at=yard.clock(), because={})

    (found,) = checked(yard)

    assert (found.what, found.exit, found.key) == ("no record", Exit.OK, "x")


def test_an_unreadable_manifest_and_what_a_crash_left_are_told_apart(yard: Yard) -> None:
    folder = sealed_file(yard).parent
    (folder / "half.json.unfinished").write_bytes(b"{")

    (left,) = checked(yard)
    assert (left.what, left.exit) == ("left over", Exit.OK)
    assert said([one for one in checked(yard, mend=True) if one.mended]) == ["left over"]
    assert checked(yard) == []
    next(folder.glob("*.json")).write_bytes(b"{")

    assert set(said(checked(yard))) == {"manifest unreadable", "no manifest"}


@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_hiding_that_broke_off_waits_to_be_completed(tmp_path: Path, dies_at: int) -> None:
    ledger = Mortal.open(":memory:")
    yard = Yard(folder=tmp_path, keys=make_identities(tmp_path / "elsewhere"), ledger=ledger)
    yard.store.put("a.png", BAD)
    yard.scan()
    ledger.dies_at = dies_at
    with pytest.raises(Crash):
        yard.apply()

    (found,) = checked(yard)
    assert (found.what, found.exit, found.hint) == ("unfinished", Exit.FLAGGED, "`fediwarden apply` completes it")
    yard.apply()

    assert checked(yard) == []


def test_a_changed_record_of_deeds_is_found(tmp_path: Path) -> None:
    yard = Yard(folder=tmp_path, keys=make_identities(tmp_path / "elsewhere"), ledger=Ledger.open(tmp_path / "ledger.sqlite3"))
    yard.store.put("a.png", BAD)
    yard.scan()
    yard.apply()
    with yard.ledger._writing() as connection:
        connection.exec_driver_sql("DROP TRIGGER deeds_no_update")
        connection.exec_driver_sql("UPDATE deeds SET actor = 'nobody' WHERE seq = 2")

    assert said(checked(yard)) == ["record broken"]


def test_a_store_that_gives_no_answer_is_asked_a_few_times_and_then_left_alone(yard: Yard) -> None:
    for number in range(8):
        yard.store.put(f"n{number}.png", b"bad %d" % number)
    yard.scan()
    yard.apply()
    asked = []

    def silent(step: str, key: str) -> None:
        asked.append((step, key))
        raise Unreached("no answer")

    yard.store.before = silent
    (found,) = checked(yard)

    assert (found.what, found.exit) == ("not asked", Exit.UNREACHED)
    assert "9 objects" in found.words
    assert len(asked) == 3


def test_a_store_that_cannot_be_opened_is_said_and_the_vault_is_compared_all_the_same(yard: Yard) -> None:
    sealed_file(yard).unlink()

    def hold(name: StoreName) -> Keeper:
        raise Misconfigured(f"no credentials for {name}", hint="write them")

    folders = {drill: yard.folder / f"vault-{drill}" for drill in (False, True)}
    findings = list(Verify(yard.ledger, folders, hold, 1 << 20).findings())

    assert said(findings) == ["sealed copy altered", "not asked"]
    assert worst([finding.exit for finding in findings]) is Exit.INTERNAL
    assert findings[1].exit is Exit.CONFIGURATION


def test_only_the_stores_that_were_named_are_asked(yard: Yard) -> None:
    yard.store.put("a.png", BAD)

    assert checked(yard, stores=()) == []
    assert checked(yard, stores=[StoreName("another")]) == []
    assert said(checked(yard, stores=[yard.store.name])) == ["visible again"]


def test_where_nothing_is_sealed_nothing_is_missed(tmp_path: Path) -> None:
    yard = Yard(folder=tmp_path, profile=METADATA)
    yard.store.put("a.png", BAD)
    yard.scan()
    yard.apply()

    assert checked(yard) == []


def test_verify_changes_nothing(yard: Yard) -> None:
    sealed_file(yard).write_bytes(b"rot")
    before = {path: path.read_bytes() for path in yard.folder.rglob("*") if path.is_file()}
    objects, hidden = dict(yard.store._objects), dict(yard.store._hidden)

    checked(yard)

    assert {path: path.read_bytes() for path in yard.folder.rglob("*") if path.is_file()} == before
    assert (yard.store._objects, yard.store._hidden) == (objects, hidden)
