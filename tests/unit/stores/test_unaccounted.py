"""What lies beside pict-rs in its folder: what is left to look at, and that acting on it goes through pict-rs."""

import hashlib
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.fake_pictrs import FakePictrs, FilesBelow, Refusal, Seen, mirrored, running_pictrs
from tests.support.pictrs_stores import Names, keeper_of, settings_of
from tests.support.postgres import Postgres

from fediwarden.errors import Changed, Gone, Unreached, Unsettled
from fediwarden.model import ObjectRef, Sha256, StoreName
from fediwarden.stores.files import FolderKeeper, FolderReader
from fediwarden.stores.interface import Keeper, Reader
from fediwarden.stores.retry import Patience
from fediwarden.stores.unaccounted import PlatformFirst, Remainder, Saved

LIMIT = 1 << 20
NOISE = bytes(range(256)) * 40
NOW = datetime(2026, 6, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=3)


def sha(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


@dataclass
class Place:
    """A folder of pict-rs' files, with pict-rs and its database beside it."""

    fake: FakePictrs
    root: Path
    remainder: Remainder
    first: PlatformFirst
    names: Names
    owed: set[str]

    def key(self, alias: str) -> str:
        row = self.fake.row(alias)
        assert row is not None
        return row.identifier

    def left(self) -> set[str]:
        return {ref.key for page in self.remainder.list() for ref in page}


@contextmanager
def placed(tmp_path: Path, version: str, database: str) -> Generator[Place]:
    root = tmp_path / "files"
    root.mkdir()
    with running_pictrs(FakePictrs(version=version, objects=FilesBelow(root), clock=lambda: LONG_AGO)) as fake:
        if database:
            mirrored(fake, database)
        names, owed = Names(), set[str]()
        pictrs = keeper_of(settings_of(fake, tmp_path, database), names)
        name = StoreName("media")
        patience = Patience(tries=1)
        first = PlatformFirst(
            FolderKeeper(name, root, settle_seconds=0),
            pictrs,
            patience,
            known=names.known,
            remember=names.remember,
            # the gate knows an upload by its hash, a scan by its first alias
            holding=lambda sha256: [f"{sha256}{len(NOISE):012x}05", "one.jpeg"] if version == "0.4" else [],
            doubt=lambda sha256: names.doubt,
            purge_seconds=0.3,
        )
        remainder = Remainder(
            FolderReader(name, root, settle_seconds=0),
            pictrs.server.repository,
            patience,
            lambda: NOW,
            overlap=timedelta(minutes=1),
            owed=lambda: owed,
        )
        with closing(first), closing(remainder):
            yield Place(fake, root, remainder, first, names, owed)


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return postgres.database(Path("pictrs.sql"))


@pytest.fixture(params=["0.5 http", "0.5 database", "0.4"])
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Place]:
    version, _, how = request.param.partition(" ")
    with placed(tmp_path, version, request.getfixturevalue("database") if how == "database" else "") as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, database: str) -> Generator[Place]:
    with placed(tmp_path, "0.5", database) as made:
        yield made


def test_both_are_stores_like_any_other(place: Place) -> None:
    assert isinstance(place.remainder, Reader)
    assert isinstance(place.first, Keeper)
    assert place.first.name == place.remainder.name == "media"


def test_what_pictrs_accounts_for_is_counted_and_left_out(place: Place) -> None:
    one = place.fake.put(NOISE, alias="one.jpeg")
    place.fake.put(b"other", alias="other.jpeg")
    thumbnails = [place.fake.variant(one, f"thumbnail/{size}/webp") for size in (96, 256, 512)]
    orphan = place.fake.in_flight(b"an upload that failed long ago", at=LONG_AGO)
    place.fake.objects["health-check"] = b""

    assert place.left() == {orphan}
    assert place.remainder.saved == Saved(originals=2, variants=len(thumbnails))
    place.owed.add(thumbnails[0])
    assert place.left() == {orphan, thumbnails[0]}


def test_without_the_database_nothing_is_left_out_but_health_checks(tmp_path: Path) -> None:
    with placed(tmp_path, "0.5", "") as place:
        alias = place.fake.put(NOISE)
        variant = place.fake.variant(alias)
        place.fake.objects["health-check"] = b""

        assert place.left() == {place.key(alias), variant}
        assert place.remainder.saved == Saved()


def test_an_upload_that_is_still_in_flight_is_put_off(place: Place) -> None:
    raw = place.fake.in_flight(b"raw", at=NOW - timedelta(seconds=5))
    ref = place.remainder.stat(raw)
    alias = place.fake.put(NOISE, created=NOW - timedelta(seconds=5))

    with pytest.raises(Unsettled):
        place.remainder.fetch(ref, LIMIT)
    assert place.remainder.fetch(place.remainder.stat(place.key(alias)), LIMIT).data == NOISE
    orphan = place.fake.in_flight(b"raw too", at=NOW - timedelta(hours=1))
    assert place.remainder.fetch(place.remainder.stat(orphan), LIMIT).data == b"raw too"


@pytest.mark.parametrize("act", ["hide", "remove"])
def test_an_original_is_taken_away_through_pictrs_and_is_gone_in_the_folder(any_place: Place, act: str) -> None:
    fake = any_place.fake
    one, two = fake.put(NOISE, alias="one.jpeg"), fake.put(NOISE, alias="two.jpeg")
    ref = any_place.first.stat(any_place.key(one))

    place = any_place.first.hide(ref, sha(NOISE), "spot") if act == "hide" else any_place.first.remove(ref, sha(NOISE))

    assert (place.store, place.key, place.how, place.facts["pictrs"]) == ("media", ref.key, "removed", "pictrs")
    assert place.facts["aliases"] == "one.jpeg\ntwo.jpeg"
    assert (fake.row(one), fake.row(two)) == (None, None)
    with pytest.raises(Gone):
        any_place.first.stat(ref.key)
    again = any_place.first.remove(ref, sha(NOISE))
    assert (again.how, again.facts["aliases"], again.facts["pictrs"]) == ("removed", place.facts["aliases"], "pictrs")
    with pytest.raises(Gone):
        any_place.first.restore(place, sha(NOISE))
    with pytest.raises(Gone):
        any_place.first.hidden_copy(place, LIMIT)
    assert any_place.first.is_public(place) is None

    back = any_place.first.put_back(place, NOISE)

    assert back.store == "pictrs"
    assert any_place.first.fetch(back, LIMIT).data == NOISE
    assert (fake.data(one), fake.data(two)) == (NOISE, NOISE)


@pytest.mark.parametrize("what", ["variant", "orphan"])
def test_what_pictrs_does_not_know_by_its_bytes_is_moved_by_itself(any_place: Place, what: str) -> None:
    alias = any_place.fake.put(NOISE, alias="one.jpeg")
    key = any_place.fake.variant(alias) if what == "variant" else any_place.fake.in_flight(b"raw", at=LONG_AGO)
    data = any_place.fake.objects[key]
    ref = any_place.first.stat(key)

    place = any_place.first.hide(ref, sha(data), "spot")

    assert (place.how, place.where) == ("moved", "spot")
    assert any_place.fake.data(alias) == NOISE
    assert any_place.first.hidden_copy(place, LIMIT) == data
    any_place.first.is_public(place)
    any_place.first.restore(place, sha(data))
    assert any_place.fake.objects[key] == data
    removed = any_place.first.remove(ref, sha(data))
    assert "pictrs" not in removed.facts
    any_place.first.put_back(removed, data)
    assert any_place.fake.objects[key] == data


def test_a_second_object_with_the_same_bytes_goes_too(any_place: Place) -> None:
    if any_place.fake.version == "0.4":
        any_place.fake.put(NOISE, alias="one.jpeg")
    else:
        any_place.fake.put(NOISE, alias="two.jpeg")
    twin = any_place.fake.in_flight(NOISE, at=LONG_AGO)

    any_place.first.remove(any_place.first.stat(twin), sha(NOISE))

    any_place.fake.tick()
    assert any_place.fake.purged()


def test_other_bytes_than_those_meant_stay(place: Place) -> None:
    alias = place.fake.put(NOISE)
    ref = place.first.stat(place.key(alias))

    with pytest.raises(Changed):
        place.first.remove(ref, sha(b"other"))
    with pytest.raises(Gone):
        place.first.remove(ObjectRef(StoreName("media"), "no/such", 3, ""), sha(b"abc"))

    assert place.fake.data(alias) == NOISE


def test_no_answer_from_pictrs_leaves_the_object_where_it_is(any_place: Place) -> None:
    alias = any_place.fake.put(NOISE, alias="one.jpeg")
    ref = any_place.first.stat(any_place.key(alias))
    any_place.fake.api_key = "another"

    with pytest.raises(Unreached):
        any_place.first.remove(ref, sha(NOISE))

    assert any_place.fake.objects[ref.key] == NOISE


def test_nothing_is_hidden_behind_the_back_of_a_pictrs_that_lists_far_too_little(any_place: Place) -> None:
    """As one that was begun anew on an empty database beside its old files."""
    place = any_place
    place.fake.put(NOISE, alias="one.jpeg")
    key = place.key("one.jpeg")
    place.fake.rows.clear()
    place.fake.changed()
    place.names.doubt = "pictrs lists 0 objects, and listed 41"
    ref = place.first.stat(key)

    with pytest.raises(Unreached, match="behind its back"):
        place.first.remove(ref, sha(NOISE))
    with pytest.raises(Unreached, match="listed 41"):
        place.first.hide(ref, sha(NOISE), "spot")

    assert place.fake.objects[key] == NOISE


def test_what_an_earlier_try_had_pict_rs_purge_is_taken_away_where_pict_rs_died_before_it_deleted_the_file(place: Place) -> None:
    place.fake.put(NOISE, alias="one.jpeg")
    key = place.key("one.jpeg")
    ref = place.first.stat(key)
    place.fake.before = refused_purge
    with pytest.raises(Unreached):
        place.first.remove(ref, sha(NOISE))
    place.fake.before = lambda seen: None
    place.fake.rows.clear()
    place.fake.changed()
    place.names.doubt = "media had these bytes when it was last listed"

    place.first.remove(ref, sha(NOISE))

    assert key not in place.fake.objects


def refused_purge(seen: Seen) -> None:
    if seen.path == "/internal/purge":
        raise Refusal(500, "as the test wants", "sled-error")
