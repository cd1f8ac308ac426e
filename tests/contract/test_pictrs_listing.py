"""Listings of pict-rs from 0.5.17 on, of which one row fails a whole page: what is listed all the same, and what is said."""

import random
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.fake_pictrs import FakePictrs, Refusal, Seen, running_pictrs
from tests.support.pictrs_stores import Names, keeper_of, reader_of, settings_of

from fediwarden.errors import Gone, Lost, Unreached
from fediwarden.model import Name, NameKind, ObjectRef, Sha256
from fediwarden.stores.pictrs import PictrsReader
from fediwarden.stores.pictrs_walk import MANY

REPOSITORIES = pytest.mark.parametrize("repo", ["postgres", "sled"])


@contextmanager
def server(folder: Path, repo: str, gaps: "list[float] | int") -> Generator[tuple[FakePictrs, PictrsReader]]:
    """A pict-rs with a row for each gap (in seconds to the one before), and a reader of it."""
    gaps = [60.0] * gaps if isinstance(gaps, int) else gaps
    with running_pictrs(FakePictrs(repo=repo, blurhashes=True)) as fake:
        when = datetime.now(UTC) - timedelta(seconds=sum(gaps) + 60)
        for number, gap in enumerate(gaps):
            when += timedelta(seconds=gap)
            fake.put(b"%d" % number, alias=f"{number}.jpeg", created=when - timedelta(seconds=min(gap, 2.0)), at=when)
        with closing(reader_of(settings_of(fake, folder))) as reader:
            yield fake, reader


def keys(fake: FakePictrs) -> list[str]:
    """Every key, the newest first."""
    rows = sorted(fake.rows.values(), key=lambda row: (row.at, row.hash), reverse=True)
    return [row.hash.hex() for row in rows]


def poison(fake: FakePictrs, *aliases: str, answer: tuple[int, str, str] | None = None) -> list[str]:
    """Let the file of these get lost, or let pict-rs answer otherwise for it; their keys."""
    found = []
    for alias in aliases:
        row = fake.row(alias)
        assert row is not None
        if answer:
            fake.poison[row.hash] = answer
        else:
            del fake.objects[row.identifier]
        found.append(row.hash.hex())
    return found


def listed(reader: PictrsReader) -> list[str]:
    return [ref.key for page in reader.list() for ref in page]


@REPOSITORIES
@pytest.mark.parametrize(
    "culprits",
    [[9], [17], [0], [9, 8, 7], [17, 16], [1, 0], [17, 9, 0], [12, 10, 8]],
    ids=["one", "newest", "oldest", "three in a row", "the newest two", "the oldest two", "apart", "every other"],
)
def test_a_lost_file_keeps_nothing_else_from_being_listed(tmp_path: Path, repo: str, culprits: list[int]) -> None:
    with server(tmp_path, repo, 18) as (fake, reader):
        poison(fake, *(f"{number}.jpeg" for number in culprits))

        assert listed(reader) == keys(fake)


@pytest.mark.parametrize(
    "answer",
    [
        (500, "command-failure", "Failed to run command"),
        (500, "decode-image", "Failed to decode image"),
        (400, "command-timeout", "Timeout on command"),
        (500, "object-request-error", "Error in object store"),
    ],
    ids=lambda answer: str(answer[1]),
)
def test_whatever_pictrs_cannot_make_of_a_file_only_that_file_is_unreached(tmp_path: Path, answer: tuple[int, str, str]) -> None:
    with server(tmp_path, "sled", 12) as (fake, reader):
        (key,) = poison(fake, "5.jpeg", answer=answer)

        found = {ref.key: ref for page in reader.list() for ref in page}

        assert list(found) == keys(fake)
        with pytest.raises(Lost, match=answer[1]):
            reader.fetch(found[key], 1 << 20)


@REPOSITORIES
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 40))])
def test_lost_files_anywhere_at_any_distance_in_time_hide_nothing(tmp_path: Path, repo: str, seed: int) -> None:
    dice = random.Random(seed)
    gaps = [10 ** dice.uniform(-5.5, 6.5) for _ in range(dice.randrange(2, 30))]
    with server(tmp_path, repo, gaps) as (fake, reader):
        poison(fake, *(f"{number}.jpeg" for number in range(len(gaps)) if dice.random() < 0.3))

        try:
            found = listed(reader)
        except Unreached:
            found = None  # it says that it is not whole

        assert found is None or found == keys(fake)
        assert found is not None or repo == "postgres"  # sled always tells what comes before


@REPOSITORIES
def test_rows_of_one_moment_are_all_listed_or_the_listing_is_not_whole(tmp_path: Path, repo: str) -> None:
    """After a move from another repository many rows may carry one time."""
    with server(tmp_path, repo, [60.0, 60.0, *[0.0] * 8, 60.0]) as (fake, reader):
        ordered = keys(fake)
        poison(fake, next(iter(fake.rows[bytes.fromhex(ordered[4])].aliases)))
        complaint = ""
        found: list[str] = []

        try:
            found = listed(reader)
        except Unreached as error:
            complaint = str(error)

        assert "not listed whole" in complaint or found == ordered


@REPOSITORIES
def test_what_was_listed_before_a_lost_file_is_recorded_before_anything_else_is_asked(tmp_path: Path, repo: str) -> None:
    with server(tmp_path, repo, 250) as (fake, reader):
        poison(fake, "100.jpeg")
        pages = reader.list()

        first = [ref.key for ref in next(pages)]

        assert first == keys(fake)[:100]
        assert len([seen for seen in fake.seen if seen.query.get("limit") == "100"]) == 1


def test_a_listing_without_a_lost_file_is_one_request_a_page(tmp_path: Path) -> None:
    with server(tmp_path, "sled", 250) as (fake, reader):
        _ = reader.server.version
        before = len(fake.seen)

        assert len(listed(reader)) == 250
        assert len(fake.seen) - before == 3


def test_a_server_that_lost_everything_is_said_to_have_lost_its_store_after_a_few(tmp_path: Path) -> None:
    with server(tmp_path, "sled", 200) as (fake, reader):
        fake.objects.clear()

        with pytest.raises(Unreached, match="cannot read the files of 20 of them in a row") as caught:
            listed(reader)

        assert "folder or bucket behind pict-rs" in caught.value.hint
        assert len(fake.seen) < 60 * MANY


def test_many_lost_files_in_a_row_end_no_listing_of_a_store_that_is_there(tmp_path: Path) -> None:
    with server(tmp_path, "sled", 40) as (fake, reader):
        poison(fake, *(f"{number}.jpeg" for number in range(5, 5 + MANY + 2)))

        assert listed(reader) == keys(fake)


def test_what_is_newest_is_told_past_a_lost_file(tmp_path: Path) -> None:
    with server(tmp_path, "sled", 8) as (fake, reader):
        poison(fake, "7.jpeg", "5.jpeg")

        found = [ref.key for page in reader.newest() for ref in page]

        assert found == keys(fake)


@REPOSITORIES
def test_where_nothing_proves_what_follows_a_lost_file_the_rest_is_listed_and_the_listing_fails(
    tmp_path: Path, repo: str
) -> None:
    """A row that the walk cannot know of came in between: what was listed is looked at, and nothing is gone."""
    with server(tmp_path, repo, 30) as (fake, reader):
        poison(fake, "20.jpeg")
        fake.hides_prev = True
        found: list[str] = []

        pages = reader.list()
        with pytest.raises(Unreached, match="not listed whole"):
            found.extend(ref.key for page in pages for ref in page)

        assert found == keys(fake)


def test_a_server_that_gives_no_answer_is_not_taken_for_one_lost_file(tmp_path: Path) -> None:
    with server(tmp_path, "sled", 5) as (fake, reader):

        def broken(seen: Seen) -> None:
            raise Refusal(500, "no", "postgres-error")

        fake.before = broken

        with pytest.raises(Unreached, match="postgres-error"):
            listed(reader)


# -- single items -------------------------------------------------------------------------------------------------------


def test_a_hash_that_is_not_there_is_gone_though_the_newest_file_is_lost(tmp_path: Path) -> None:
    with server(tmp_path, "sled", 5) as (fake, reader):
        key = fake.rows[bytes.fromhex(keys(fake)[2])].hash.hex()
        fake.forget("2.jpeg")
        poison(fake, "4.jpeg")

        with pytest.raises(Gone):
            reader.stat(key)


def test_a_purge_is_confirmed_while_the_newest_file_is_lost(tmp_path: Path) -> None:
    with server(tmp_path, "sled", 5) as (fake, _), closing(keeper_of(settings_of(fake, tmp_path))) as keeper:
        ref = keeper.stat(keys(fake)[2])
        poison(fake, "4.jpeg")

        place = keeper.remove(ref, Sha256(ref.key[:64]))

        assert place.facts["aliases"] == "2.jpeg"
        assert fake.row("2.jpeg") is None


def test_what_pictrs_cannot_list_is_fetched_and_purged_by_an_alias_on_record(tmp_path: Path) -> None:
    names = Names()
    with server(tmp_path, "sled", 5) as (fake, _), closing(keeper_of(settings_of(fake, tmp_path), names)) as keeper:
        (key,) = poison(fake, "4.jpeg", answer=(500, "command-failure", "Failed to run command"))
        names.told[key] = [Name(NameKind.ALIAS, "4.jpeg")]
        ref = ObjectRef(keeper.name, key, 1, key)

        blob = keeper.fetch(ref, 1 << 20)
        place = keeper.remove(ref, Sha256(key[:64]))

        assert blob.data == b"4"
        assert place.facts["aliases"] == "4.jpeg"
        assert fake.row("4.jpeg") is None


def test_an_alias_on_record_that_means_other_bytes_now_purges_nothing(tmp_path: Path) -> None:
    names = Names()
    with server(tmp_path, "sled", 5) as (fake, _), closing(keeper_of(settings_of(fake, tmp_path), names)) as keeper:
        (key,) = poison(fake, "4.jpeg", answer=(500, "command-failure", "Failed to run command"))
        names.told[key] = [Name(NameKind.ALIAS, "3.jpeg")]

        with pytest.raises(Lost):
            keeper.remove(ObjectRef(keeper.name, key, 1, key), Sha256(key[:64]))

        assert fake.row("3.jpeg") is not None


def test_a_file_that_a_bucket_has_lost_is_lost_though_pictrs_answers_404_for_it(tmp_path: Path) -> None:
    """As 0.6.0-rc.6 does over S3."""
    with server(tmp_path, "sled", 3) as (fake, reader):
        refs = {ref.key: ref for page in reader.list() for ref in page}
        key = keys(fake)[1]

        def missing(seen: Seen) -> None:
            if seen.path == "/image/original/1.jpeg":
                raise Refusal(404, "Not found", "not-found")

        fake.before = missing

        with pytest.raises(Lost, match="its file is not there"):
            reader.fetch(refs[key], 1 << 20)
        fake.forget("1.jpeg")
        with pytest.raises(Gone):
            reader.fetch(refs[key], 1 << 20)


@pytest.mark.parametrize("version", ["0.4", "0.5.16", "0.5.19", "0.5.25", "0.6.0-rc.6"])
def test_whether_a_file_can_be_read_is_told_by_every_version_without_fetching_it(tmp_path: Path, version: str) -> None:
    with running_pictrs(FakePictrs(version=version)) as fake, closing(reader_of(settings_of(fake, tmp_path))) as reader:
        for alias in ("a.png", "b.png"):
            fake.put(alias.encode() * 900, alias=alias)
        row = fake.row("a.png")
        assert row is not None
        key = "a.png" if version == "0.4" else row.hash.hex()
        ref = reader.stat(key)

        kind = Unreached if version == "0.4" else Lost  # 0.4 has no codes, and says in free words that the file is missing

        reader.prove(ref)
        fake.lose("a.png")
        with pytest.raises(kind):
            reader.prove(ref)
        with pytest.raises(kind):
            reader.prove(replace(ref, names=()))
        fake.rows.pop(row.hash)
        with pytest.raises(Gone):
            reader.prove(ref)
