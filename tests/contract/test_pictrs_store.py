"""pict-rs as a store, by its HTTP interface and by its database, against the fake that keeps its traps and a real PostgreSQL."""

import hashlib
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.fake_pictrs import KEY, FakePictrs, Refusal, Seen, mirrored, running_pictrs
from tests.support.pictrs_stores import Names, keeper_of, reader_of, settings_of
from tests.support.postgres import Postgres, run_sql

from fediwarden.errors import Changed, Gone, Misconfigured, Occupied, Refused, TooLarge, Unreached
from fediwarden.model import Name, NameKind, ObjectRef, Sha256
from fediwarden.platforms.pictrs.hashes import Hash
from fediwarden.platforms.pictrs.repository import GRANTS, Repository
from fediwarden.stores.interface import PAGE, Keeper, NewestFirst, Reader
from fediwarden.stores.pictrs import PictrsReader
from fediwarden.stores.url import StoreSettings

LIMIT = 1 << 20
NOISE = bytes(range(256)) * 40


def sha(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


def key_of(data: bytes, format: int = 5) -> str:
    return Hash.of(data, format).hex


def listed(reader: Reader) -> dict[str, ObjectRef]:
    return {ref.key: ref for page in reader.list() for ref in page}


@dataclass
class World:
    fake: FakePictrs
    settings: StoreSettings
    names: Names = field(default_factory=Names)
    with_database: bool = False

    def __post_init__(self) -> None:
        self.reader = reader_of(self.settings)
        self.keeper = keeper_of(self.settings, self.names)

    def close(self) -> None:
        self.reader.close()
        self.keeper.close()


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """One for all tests of a worker: `mirrored` empties it first."""
    return postgres.database(Path("pictrs.sql"))


@pytest.fixture(params=["http", "database"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[World]:
    with running_pictrs() as fake:
        database = request.getfixturevalue("database") if request.param == "database" else ""
        if database:
            mirrored(fake, database)
        with closing(World(fake, settings_of(fake, tmp_path, database), with_database=bool(database))) as made:
            yield made


@pytest.fixture
def http(tmp_path: Path) -> Generator[World]:
    with running_pictrs() as fake, closing(World(fake, settings_of(fake, tmp_path))) as made:
        yield made


# -- what every store owes ------------------------------------------------------------------------------------------------


def test_it_keeps_the_promises_of_a_reader_and_a_keeper(world: World) -> None:
    assert isinstance(world.reader, Reader)
    assert isinstance(world.reader, NewestFirst)
    assert isinstance(world.keeper, Keeper)


def test_lists_every_content_once_newest_first_however_many_aliases_it_has(world: World) -> None:
    world.fake.put_many([(b"%d" % number, "image/jpeg", f"{number}.jpeg") for number in range(620)])
    twice = world.fake.put(b"7")
    world.fake.variant("7.jpeg")

    pages = list(world.reader.list())

    found = [ref.key for page in pages for ref in page]
    assert found == [key_of(b"%d" % number) for number in reversed(range(620))]
    assert all(0 < len(page) <= PAGE for page in pages)
    seven = listed(world.reader)[key_of(b"7")]
    assert {name.text for name in seven.names if name.kind is NameKind.ALIAS} == {"7.jpeg", twice}
    assert next(ref for page in world.reader.newest() for ref in page).key == found[0]


def test_a_page_of_what_is_new_is_one_request_whoever_is_asked(world: World) -> None:
    world.fake.put(NOISE, alias="one.png")
    assert list(world.reader.list())  # which also learns what it speaks with
    before = world.reader.requests

    assert len(next(iter(world.reader.list()))) == 1

    assert world.reader.requests - before == 1


def test_an_empty_pictrs_lists_nothing(world: World) -> None:
    assert list(world.reader.list()) == []


def test_what_is_listed_is_what_stat_and_fetch_say(world: World) -> None:
    world.fake.put(NOISE, "image/png", created=datetime(2026, 1, 2, tzinfo=UTC))

    ref = listed(world.reader)[key_of(NOISE, 7)]
    blob = world.reader.fetch(ref, LIMIT)

    assert world.reader.stat(ref.key) == ref
    assert (blob.data, blob.sha256, blob.claimed, blob.ref) == (NOISE, sha(NOISE), "image/png", ref)
    assert (ref.size, ref.stamp, ref.modified) == (len(NOISE), ref.key, datetime(2026, 1, 2, tzinfo=UTC))
    assert world.reader.fetch(ObjectRef(ref.store, ref.key, ref.size, ref.stamp), LIMIT) == blob


def test_what_is_not_there_is_gone(world: World) -> None:
    world.fake.put(NOISE)

    for key in (key_of(b"other"), "", "..", "\0", "x" * 2000, "no/such.jpg", "\udcff", key_of(NOISE)[:-2] + "07"):
        with pytest.raises(Gone):
            world.reader.stat(key)
        with pytest.raises(Gone):
            world.reader.fetch(ObjectRef(world.reader.name, key, 3, "x"), LIMIT)


def test_too_large_an_original_is_not_read(world: World) -> None:
    world.fake.put(NOISE)
    ref = world.reader.stat(key_of(NOISE))

    with pytest.raises(TooLarge):
        world.reader.fetch(ref, len(NOISE) - 1)
    with pytest.raises(TooLarge):
        world.reader.fetch(replace(ref, size=1), len(NOISE) - 1)
    assert world.reader.fetch(ref, len(NOISE)).data == NOISE


def test_a_picture_that_stands_for_missing_ones_is_never_taken_for_the_original(world: World) -> None:
    stand_in, alias = world.fake.put(b"placeholder"), world.fake.put(NOISE)
    world.fake.not_found = stand_in
    ref = world.reader.stat(key_of(NOISE))
    world.fake.forget(alias)

    with pytest.raises(Gone):
        world.reader.fetch(ref, LIMIT)


def test_an_alias_that_went_is_passed_over_for_another_one(world: World) -> None:
    first, _ = world.fake.put(NOISE, alias="a.jpeg"), world.fake.put(NOISE, alias="b.jpeg")
    ref = world.reader.stat(key_of(NOISE))
    with world.fake.lock:
        world.fake._clean_alias(first)
        world.fake.changed()

    assert world.reader.fetch(ref, LIMIT).data == NOISE


def test_other_bytes_than_the_key_says_are_no_look_at_it(http: World) -> None:
    alias = http.fake.put(NOISE)
    row = http.fake.row(alias)
    assert row is not None
    ref = http.reader.stat(key_of(NOISE))
    http.fake.objects[row.identifier] = b"rotten"

    with pytest.raises(Unreached, match="other bytes"):
        http.reader.fetch(ref, LIMIT)


def test_fetch_and_stat_from_many_threads(world: World) -> None:
    world.fake.put_many([(b"%d" % number * 1000, "image/jpeg", f"{number}.jpeg") for number in range(30)])
    keys = [key_of(b"%d" % number * 1000) for number in range(30)]

    def one(key: str) -> bytes:
        return world.reader.fetch(world.reader.stat(key), LIMIT).data

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, keys)) == [b"%d" % number * 1000 for number in range(30)]


def test_a_store_can_be_used_again_after_close(world: World) -> None:
    world.fake.put(NOISE)
    world.reader.close()
    world.reader.close()

    assert world.reader.fetch(world.reader.stat(key_of(NOISE)), LIMIT).data == NOISE
    assert world.reader.requests >= 2


# -- reading with little right --------------------------------------------------------------------------------------------


def test_a_scan_by_database_sends_no_key_and_asks_nothing_internal(world: World) -> None:
    world.fake.put(NOISE)

    world.reader.fetch(listed(world.reader)[key_of(NOISE)], LIMIT)

    internal = [seen for seen in world.fake.seen if seen.path.startswith("/internal/")]
    assert bool(internal) is not world.with_database
    assert all("x-api-token" not in seen.headers for seen in world.fake.seen if seen not in internal)


def test_a_redirect_to_an_object_store_is_followed_without_the_key(http: World) -> None:
    http.fake.put(NOISE)
    http.fake.public = True

    assert http.reader.fetch(http.reader.stat(key_of(NOISE)), LIMIT).data == NOISE
    assert http.fake.public_seen
    assert all(KEY not in str(seen.headers) for seen in http.fake.public_seen)


def test_a_wrong_key_is_refused_with_its_right_name_and_shown_nowhere(http: World) -> None:
    http.fake.api_key = "another"

    with pytest.raises(Refused, match="API key") as refused:
        list(http.reader.list())

    assert "PICTRS__SERVER__API_KEY" in refused.value.hint
    assert KEY not in f"{refused.value!r} {http.reader.server!r} {refused.value.__cause__!r}"


def test_the_right_to_read_without_tokens_is_enough_for_the_database(postgres: Postgres, database: str, tmp_path: Path) -> None:
    with running_pictrs() as fake:
        mirrored(fake, database)
        far = fake.proxied("https://img.example/x.png?a=1&b=2", NOISE, "image/png")
        fake.variant(far)
        role = postgres.role("pictrs_reader")
        reader = reader_of(settings_of(fake, tmp_path, postgres.url(database, role)))
        with pytest.raises(Refused, match="too little") as refused:
            list(reader.list())
        assert "GRANT SELECT (alias, hash) ON aliases" in refused.value.hint
        run_sql(database, GRANTS.format(role=role))

        ref = listed(reader)[key_of(NOISE, 7)]

        row = fake.row(far)
        assert row is not None
        assert set(ref.names) == {
            Name(NameKind.ALIAS, far),
            Name(NameKind.IDENTIFIER, row.identifier),
            Name(NameKind.VARIANT, next(iter(row.variants.values()))),
            Name(NameKind.PROXIED, "https://img.example/x.png?a=1&b=2"),
        }
        for forbidden in ("SELECT token FROM aliases", "DELETE FROM aliases"):
            with pytest.raises(Exception, match="permission denied"):
                run_sql(postgres.url(database, role), forbidden)
        reader.close()


def test_the_database_is_opened_read_only_and_its_address_is_in_no_error(postgres: Postgres, database: str) -> None:
    import psycopg

    repository = Repository(database)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        repository._open().execute("INSERT INTO hashes VALUES ('x', 'y')")
    repository.close()
    for address, error in (("not an address: s3cret", Misconfigured), ("postgresql://u:s3cret@127.0.0.1:9/x", Unreached)):
        with pytest.raises(error) as raised:
            Repository(address, seconds=2).page()
        assert "s3cret" not in f"{raised.value} {raised.value.hint} {raised.value.__cause__!r} {Repository(address)!r}"
    other = Repository(postgres.url("postgres"))
    with pytest.raises(Refused, match="not the repository"):
        other.page()
    other.close()


def test_a_broken_connection_to_the_database_is_opened_again(database: str) -> None:
    run_sql(database, "DELETE FROM proxies; DELETE FROM aliases; DELETE FROM variants; DELETE FROM hashes")
    repository = Repository(database)
    repository.page()
    run_sql(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fediwarden'")

    with pytest.raises(Unreached):
        repository.page()
    assert repository.page() == ((), None)
    repository.close()


# -- the traps of listing -------------------------------------------------------------------------------------------------


def small_pages(reader: PictrsReader, monkeypatch: pytest.MonkeyPatch, size: int = 3) -> None:
    whole = reader.server.page
    monkeypatch.setattr(reader.server, "page", lambda slug="", before=None, limit=size: whole(slug, before, min(limit, size)))


@pytest.mark.parametrize("deleted", [[6], [6, 7], [6, 7, 8, 9], [5, 6, 7, 8, 9, 4]])
def test_fact_10_deleting_during_the_walk_skips_nothing_and_repeats_nothing(
    http: World, monkeypatch: pytest.MonkeyPatch, deleted: list[int]
) -> None:
    """pict-rs begins at the first page again when the hash that the walk goes on from is deleted between two pages."""
    small_pages(http.reader, monkeypatch)
    for number in range(10):
        http.fake.put(b"%d" % number, alias=f"{number}.jpeg")
    pages = http.reader.list()
    first = [ref.key for ref in next(pages)]
    for number in deleted:
        http.fake.forget(f"{number}.jpeg")

    rest = [ref.key for page in pages for ref in page]

    assert first == [key_of(b"%d" % number) for number in (9, 8, 7)]
    assert rest == [key_of(b"%d" % number) for number in (6, 5, 4, 3, 2, 1, 0) if number not in deleted]


def test_fact_10_when_everything_that_was_left_is_deleted_the_walk_ends(http: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pages(http.reader, monkeypatch)
    base = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(9):
        when = base + timedelta(hours=number)
        http.fake.put(b"%d" % number, alias=f"{number}.jpeg", created=when, at=when)
    pages = http.reader.list()
    first = [ref.key for ref in next(pages)]
    for number in range(8):
        http.fake.forget(f"{number}.jpeg")
    http.fake.put(b"new", created=base + timedelta(hours=10), at=base + timedelta(hours=10))

    assert len(first) == 3
    assert list(pages) == []


def test_a_walk_that_cannot_go_on_is_unreached_lest_the_rest_counts_as_gone(http: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pages(http.reader, monkeypatch)
    for number in range(9):
        http.fake.put(b"%d" % number, alias=f"{number}.jpeg")
    for row in http.fake.rows.values():
        row.details = None  # pict-rs may have none
    pages = http.reader.list()
    next(pages)
    for number in (8, 7, 6, 5):
        http.fake.forget(f"{number}.jpeg")

    with pytest.raises(Unreached, match="to its end"):
        list(pages)


def test_going_on_by_time_overlaps_by_the_validation(http: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is younger than its details by as long as its validation took; asking from its details alone would skip others."""
    small_pages(http.reader, monkeypatch)
    base = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(9):
        made = base + timedelta(seconds=10 * number)
        at = made + timedelta(seconds=35 if number == 3 else 0)
        http.fake.put(b"%d" % number, alias=f"{number}.jpeg", created=made, at=at)
    order = [8, 7, 3, 6, 5, 4, 2, 1, 0]
    pages = http.reader.list()
    first = [ref.key for ref in next(pages)]
    for number in (8, 7, 3, 6):
        http.fake.forget(f"{number}.jpeg")

    rest = [ref.key for page in pages for ref in page]

    assert first == [key_of(b"%d" % number) for number in order[:3]]
    assert rest == [key_of(b"%d" % number) for number in (5, 4, 2, 1, 0)]


def test_fact_10_going_on_by_time_over_pages_that_were_met_before_comes_to_the_end(
    http: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pages(http.reader, monkeypatch)
    base = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(12):  # all within the overlap
        when = base + timedelta(seconds=number)
        http.fake.put(b"%d" % number, alias=f"{number}.jpeg", created=when, at=when)
    pages = http.reader.list()
    first = [ref.key for _ in range(3) for ref in next(pages)]
    for number in (5, 4, 3, 2):  # the whole page before, and what the walk goes on from
        http.fake.forget(f"{number}.jpeg")

    rest = [ref.key for page in pages for ref in page]

    assert first == [key_of(b"%d" % number) for number in range(11, 2, -1)]
    assert rest == [key_of(b"%d" % number) for number in (1, 0)]


def test_a_server_that_goes_in_circles_ends_the_walk_and_nothing_counts_as_gone(
    http: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        http.fake.put(b"%d" % number)
    page = http.reader.server.page()
    round_about = replace(page, next=page.items[0].slug)
    monkeypatch.setattr(http.reader.server, "page", lambda slug="", before=None, limit=100: round_about)

    pages = http.reader.list()
    assert len(next(pages)) == 4
    with pytest.raises(Unreached, match="circles"):
        list(pages)


def test_a_proxy_that_drops_the_query_makes_nothing_count_as_gone(http: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        http.fake.put(b"%d" % number)
    page = http.reader.server.page(limit=3)
    monkeypatch.setattr(http.reader.server, "page", lambda slug="", before=None, limit=100: page)

    with pytest.raises(Unreached, match="circles"):
        list(http.reader.list())


def test_a_listing_that_breaks_off_raises(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        world.fake.put(b"%d" % number)
    if world.with_database:
        monkeypatch.setattr("fediwarden.platforms.pictrs.repository.AT_ONCE", 2)
        repository = world.reader.server.repository
        assert repository is not None
        pages = world.reader.list()
        next(pages)
        monkeypatch.setattr(repository, "_url", "postgresql://127.0.0.1:9/x")
        repository.close()
    else:
        small_pages(world.reader, monkeypatch, 2)
        pages = world.reader.list()
        next(pages)

        def broken(seen: Seen) -> None:
            raise Refusal(500, "no", "postgres-error")

        world.fake.before = broken

    with pytest.raises(Unreached):
        list(pages)


def test_a_purge_under_way_is_not_listed(http: World) -> None:
    alias = http.fake.put(NOISE)
    row = http.fake.row(alias)
    assert row is not None
    http.fake.put(b"other")
    row.aliases.clear()

    assert set(listed(http.reader)) == {key_of(b"other")}
    with pytest.raises(Gone):
        http.reader.stat(key_of(NOISE))


def test_a_passing_error_is_tried_again(http: World) -> None:
    http.fake.put(NOISE)
    failures = iter([True, False, True, False, False, False])

    def sometimes(seen: Seen) -> None:
        if next(failures):
            raise Refusal(500, "no", "object-request-error")

    http.fake.before = sometimes

    assert http.reader.fetch(listed(http.reader)[key_of(NOISE)], LIMIT).data == NOISE


def test_what_is_no_pictrs_is_refused_in_words(tmp_path: Path) -> None:
    with running_pictrs() as fake:
        settings = replace(settings_of(fake, tmp_path), url=f"pictrs://127.0.0.1:{fake.public_port}")
        reader = reader_of(replace(settings, tries=1))
        with pytest.raises(Refused, match="does not answer as pict-rs"):
            list(reader.list())
        reader.close()
    reader = reader_of(replace(settings, url="pictrs://127.0.0.1:9", tries=1))
    with pytest.raises(Unreached, match="no complete answer"):
        list(reader.list())
    reader.close()


# -- finding --------------------------------------------------------------------------------------------------------------


def test_fact_2_bytes_are_found_by_their_hash_and_aliases_by_their_bytes(world: World) -> None:
    one, two = world.fake.put(NOISE, "image/webp", animated=True), world.fake.put(NOISE, "image/webp", animated=True)
    world.fake.put(b"newest")
    server = world.keeper.server

    for claimed in ("image/webp", "", "image/webp; charset=x"):
        found = server.find(sha(NOISE), len(NOISE), claimed)
        assert found is not None
        assert (found.key, set(found.aliases)) == (key_of(NOISE, 3), {one, two})
    assert server.find(sha(b"none"), 4) is None
    assert server.find(sha(NOISE), len(NOISE) + 1) is None
    by_alias = server.find_alias(two)
    assert by_alias is not None
    assert by_alias.key == key_of(NOISE, 3)
    assert server.find_alias("none.png") is None
    assert server.aliases("none.png") == ()
    row = world.fake.row(one)
    assert row is not None
    assert server.identifier(one) == row.identifier
    assert server.identifier("none.png") is None


def test_the_database_tells_what_a_key_of_the_bucket_is(database: str) -> None:
    with running_pictrs() as fake:
        mirrored(fake, database)
        alias = fake.put(NOISE)
        variant, row = fake.variant(alias), fake.row(alias)
        raw = fake.in_flight(b"raw")
        assert row is not None
        repository = Repository(database)
        run_sql(database, "UPDATE hashes SET motion_identifier = 'motion/' || identifier")

        found = repository.resolve([row.identifier, variant, raw, f"motion/{row.identifier}", "\udcff", "\0", "health-check"])

        assert {key: kind for key, (kind, _) in found.items()} == {
            row.identifier: "original",
            variant: "variant",
            f"motion/{row.identifier}": "motion",
        }
        assert {item.key for _, item in found.values()} == {key_of(NOISE)}
        by_hash, with_size = repository.find(sha(NOISE)), repository.find(sha(NOISE), len(NOISE))
        assert by_hash == with_size is not None
        repository.close()


# -- hiding and restoring -------------------------------------------------------------------------------------------------


def test_fact_9_removing_purges_every_alias_and_variant_and_waits_until_it_is_done(world: World) -> None:
    one, two = world.fake.put(NOISE, "image/png"), world.fake.put(NOISE, "image/png")
    other = world.fake.put(b"other")
    world.fake.variant(one)
    world.fake.job_delay = 0.1
    ref = world.reader.stat(key_of(NOISE, 7))

    place = world.keeper.remove(ref, sha(NOISE))

    assert (place.store, place.key, place.how, place.where) == ("pictrs", ref.key, "removed", "")
    assert place.facts["aliases"].split("\n") == sorted([one, two])
    assert place.facts["content-type"] == "image/png"
    assert place.facts["identifiers"]
    assert ("variants" in place.facts) is world.with_database
    assert set(listed(world.reader)) == {key_of(b"other")}
    assert (world.fake.row(one), world.fake.row(two), world.fake.data(other)) == (None, None, b"other")
    world.fake.tick()
    assert len(world.fake.objects) == 1
    assert not any(seen.path == "/internal/set_not_found" for seen in world.fake.seen)
    with pytest.raises(Gone):
        world.keeper.restore(place, sha(NOISE))
    with pytest.raises(Gone):
        world.keeper.hidden_copy(place, LIMIT)
    assert world.keeper.is_public(place) is None


def test_a_purge_that_is_queued_too_long_stays_owed_and_is_completed_by_asking_again(world: World) -> None:
    aliases = sorted([world.fake.put(NOISE), world.fake.put(NOISE)])
    world.fake.job_delay = None
    world.keeper._purge_seconds = 0.1
    ref = world.reader.stat(key_of(NOISE))

    with pytest.raises(Unreached, match="has not done it yet"):
        world.keeper.remove(ref, sha(NOISE))
    world.fake.tick()
    again = keeper_of(world.settings, world.names)
    place = again.remove(ref, sha(NOISE))

    assert place.facts["aliases"].split("\n") == aliases
    assert again.remove(ref, sha(NOISE)) == place
    again.close()


def test_a_purge_that_a_crash_cut_off_between_its_jobs_is_completed(http: World) -> None:
    aliases = sorted([http.fake.put(NOISE), http.fake.put(NOISE)])
    ref = http.reader.stat(key_of(NOISE))
    http.names.remember(ref)
    http.fake.job_delay = None
    http.keeper.server.purge(aliases[0])
    with http.fake.lock:
        for _ in range(2):  # the purge itself, and one alias
            http.fake.step()
    http.fake.job_delay = 0.02

    place = http.keeper.remove(ref, sha(NOISE))

    assert set(place.facts["aliases"].split("\n")) <= set(aliases)
    assert http.fake.rows == {}


def test_what_was_never_there_is_gone_and_other_bytes_are_left_alone(world: World) -> None:
    world.fake.put(NOISE)
    ref = world.reader.stat(key_of(NOISE))

    with pytest.raises(Changed):
        world.keeper.remove(ref, sha(b"other"))
    with pytest.raises(Gone):
        world.keeper.remove(ObjectRef(ref.store, key_of(b"none"), 4, ""), sha(b"none"))
    with pytest.raises(Misconfigured):
        world.keeper.hide(ref, sha(NOISE), "one")
    assert len(world.fake.rows) == 1


def test_the_same_bytes_uploaded_again_are_purged_again(world: World) -> None:
    world.fake.put(NOISE)
    ref = world.reader.stat(key_of(NOISE))
    world.keeper.remove(ref, sha(NOISE))
    world.fake.put(NOISE)

    world.keeper.remove(ref, sha(NOISE))

    assert world.fake.rows == {}


def test_putting_back_imports_under_every_alias_and_can_be_asked_for_again(world: World) -> None:
    aliases = [world.fake.put(NOISE, "image/png", alias=name) for name in ("old style.png", "aaaa.png")]
    ref = world.reader.stat(key_of(NOISE, 7))
    place = world.keeper.remove(ref, sha(NOISE))

    back = world.keeper.put_back(place, NOISE)

    assert (back.key, back.size) == (ref.key, len(NOISE))
    assert [world.fake.data(alias) for alias in aliases] == [NOISE, NOISE]
    assert world.keeper.fetch(back, LIMIT).data == NOISE
    again = keeper_of(world.settings)
    assert again.put_back(place, NOISE).key == ref.key
    assert sum(seen.path == "/internal/import" for seen in world.fake.seen) == 2
    again.close()
    assert set(listed(world.reader)) == {ref.key}


def test_putting_back_tells_what_pictrs_made_of_the_bytes(world: World) -> None:
    for name in ("a.png", "b.png"):
        world.fake.put(NOISE, "image/png", alias=name)
    place = world.keeper.remove(world.reader.stat(key_of(NOISE, 7)), sha(NOISE))
    world.fake.alters = lambda data: b"re-encoded " + data

    back = world.keeper.put_back(place, NOISE)

    assert back.key == key_of(b"re-encoded " + NOISE, 7)
    assert {name.text for name in back.names if name.kind is NameKind.ALIAS} == {"a.png", "b.png"}
    assert world.keeper.fetch(back, LIMIT).sha256 == sha(b"re-encoded " + NOISE)


def test_an_alias_that_means_other_bytes_now_is_not_touched(world: World) -> None:
    world.fake.put(NOISE, "image/png", alias="a.png")
    place = world.keeper.remove(world.reader.stat(key_of(NOISE, 7)), sha(NOISE))
    world.fake.put(b"somebody else's", "image/png", alias="a.png")

    with pytest.raises(Occupied):
        world.keeper.put_back(place, NOISE)
    with pytest.raises(Gone, match="under which aliases"):
        world.keeper.put_back(replace(place, facts={}), NOISE)

    assert world.fake.data("a.png") == b"somebody else's"


def test_an_import_that_the_validator_refuses_says_what_can_be_done(http: World) -> None:
    http.fake.put(NOISE)
    place = http.keeper.remove(http.reader.stat(key_of(NOISE)), sha(NOISE))
    http.fake.validator = "http://127.0.0.1:9/"
    with pytest.raises(Unreached):
        http.keeper.put_back(place, NOISE)

    def refuse(seen: Seen) -> None:
        if seen.path == "/internal/import":
            raise Refusal(400, "Failed external validation", "failed-external-validation")

    http.fake.before = refuse
    with pytest.raises(Refused, match="external validation") as refused:
        http.keeper.put_back(place, NOISE)
    assert "gate" in refused.value.hint
    http.fake.before = lambda seen: None
    http.fake.read_only = True
    with pytest.raises(Refused, match="read-only"):
        http.keeper.put_back(place, NOISE)


def test_an_animation_that_was_taken_for_a_still_is_found_and_removed_all_the_same(world: World) -> None:
    """The gate guesses the format byte from the Content-Type, which animated WebP and AVIF share with still ones."""
    alias = world.fake.put(NOISE, "image/webp", animated=True)
    guessed, real = key_of(NOISE, 8), key_of(NOISE, 3)
    ref = ObjectRef(world.settings.name, guessed, len(NOISE), guessed)

    assert world.reader.fetch(ref, LIMIT).ref.key == real
    place = world.keeper.remove(ref, sha(NOISE))

    assert (place.key, place.facts["aliases"]) == (guessed, alias)
    assert world.fake.row(alias) is None
    assert world.keeper.remove(ref, sha(NOISE)).facts["aliases"] == alias
    with pytest.raises(Gone):
        world.reader.stat(guessed)
    with pytest.raises(Gone):
        world.reader.stat(key_of(NOISE, 7))


def test_a_purge_of_such_an_animation_is_not_done_while_it_is_served(world: World) -> None:
    alias = world.fake.put(NOISE, "image/webp", animated=True)
    guessed = key_of(NOISE, 8)
    world.names.told[guessed] = [Name(NameKind.ALIAS, alias)]

    assert world.keeper._left(guessed, [alias]) is not None


# -- 0.4 ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Generator[World]:
    with ExitStack() as stack:
        fake = stack.enter_context(running_pictrs(FakePictrs(version="0.4")))
        yield stack.enter_context(closing(World(fake, settings_of(fake, tmp_path))))


def test_0_4_lists_what_lemmy_knows_each_content_once(old: World) -> None:
    for name in ("b.jpeg", "a.jpeg", "c.jpeg"):
        old.fake.put(NOISE, alias=name)
    old.fake.put(b"other", alias="d.jpeg")
    with pytest.raises(Refused, match=r"0\.4") as refused:
        list(old.reader.list())
    assert "Lemmy" in refused.value.hint
    old.reader._aliases = lambda: iter(["c.jpeg", "none.jpeg", "d.jpeg", "b.jpeg"])

    refs = listed(old.reader)

    assert {key: (ref.size, ref.stamp) for key, ref in refs.items()} == {
        "a.jpeg": (len(NOISE), "a.jpeg"),
        "d.jpeg": (5, "d.jpeg"),
    }
    assert {name.text for name in refs["a.jpeg"].names} == {"a.jpeg", "b.jpeg", "c.jpeg"}
    assert old.reader.fetch(refs["a.jpeg"], LIMIT).data == NOISE
    assert old.reader.stat("a.jpeg") == refs["a.jpeg"]
    assert old.reader.server.version == "0.4"
    assert old.reader.server.find(sha(NOISE), len(NOISE)) is None
    with pytest.raises(Refused):
        old.reader.newest()
    with pytest.raises(Refused):
        old.reader.stat(key_of(NOISE))


def test_0_4_is_purged_and_put_back(old: World) -> None:
    aliases = [old.fake.put(NOISE, alias=name) for name in ("b.jpeg", "a.jpeg")]
    ref = old.reader.stat("a.jpeg")
    with pytest.raises(Changed):
        old.keeper.remove(ref, sha(b"other"))

    place = old.keeper.remove(ref, sha(NOISE))

    assert [old.fake.row(alias) for alias in aliases] == [None, None]
    old.fake.tick()
    assert old.fake.purged()
    assert old.keeper.remove(ref, sha(NOISE)).facts["aliases"] == place.facts["aliases"]
    back = old.keeper.put_back(place, NOISE)
    assert old.keeper.put_back(place, NOISE).key == back.key == "a.jpeg"
    assert [old.fake.data(alias) for alias in aliases] == [NOISE, NOISE]


def test_the_version_is_told_even_without_the_right_key(old: World, http: World) -> None:
    for world in (old, http):
        world.fake.api_key = "another"

    assert (old.reader.server.version, http.reader.server.version) == ("0.4", "0.5")


def test_nothing_is_opened_before_the_first_call_and_slow_answers_are_given_up(http: World) -> None:
    slow = replace(http.settings, timeout_seconds=0.2, tries=1)
    reader = reader_of(slow)
    assert http.fake.seen == []
    http.fake.before = lambda seen: time.sleep(0.6)

    with pytest.raises(Unreached):
        list(reader.list())
    reader.close()
