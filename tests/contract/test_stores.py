"""What every store owes, held to the memory store, a folder, real S3 servers with and without versions, and a real SSH host."""

import hashlib
import os
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest
from tests.support.servers import S3Server, SshServer

from fediwarden.errors import Changed, FediwardenError, Gone, Occupied, TooLarge, Unsettled
from fediwarden.model import ObjectRef, Sha256, StoreName
from fediwarden.stores.interface import PAGE, Keeper, Reader
from fediwarden.stores.memory import MemoryStore
from fediwarden.stores.open import open_keeper, open_reader
from fediwarden.stores.url import StoreSettings

LIMIT = 1 << 20
NOISE = bytes(range(256)) * 40
OTHER = NOISE[::-1]


def sha(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


class World(Protocol):
    """A store under test, with the other side's hands: what the fediverse server, an owner or a stranger would do."""

    @property
    def reader(self) -> Reader: ...
    @property
    def keeper(self) -> Keeper: ...
    def put(self, key: str, data: bytes) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def delete(self, key: str) -> None: ...
    def other_keeper(self) -> Keeper: ...
    def close(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.reader = self.keeper = self.store = MemoryStore()

    def put(self, key: str, data: bytes) -> None:
        self.store.put(key, data)

    def get(self, key: str) -> bytes | None:
        return self.store.objects.get(key)

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def other_keeper(self) -> Keeper:
        return self.store

    def close(self) -> None:
        pass


@dataclass
class OnDisk:
    """A folder, or the same folder through SSH."""

    settings: StoreSettings
    root: Path

    def __post_init__(self) -> None:
        self.reader = open_reader(self.settings, environment={})
        self.keeper = open_keeper(self.settings, environment={})
        self.others: list[Keeper] = []

    def put(self, key: str, data: bytes) -> None:
        path = Path(os.fsdecode(os.fsencode(self.root) + b"/" + os.fsencode(key)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get(self, key: str) -> bytes | None:
        path = self.root / key
        return path.read_bytes() if path.exists() else None

    def delete(self, key: str) -> None:
        (self.root / key).unlink()

    def other_keeper(self) -> Keeper:
        self.others.append(open_keeper(self.settings, environment={}))
        return self.others[-1]

    def close(self) -> None:
        for store in (self.reader, self.keeper, self.keeper, *self.others):
            store.close()


@dataclass
class InBucket:
    settings: StoreSettings
    server: S3Server
    bucket: str

    def __post_init__(self) -> None:
        self.reader = open_reader(self.settings, environment={})
        self.keeper = open_keeper(self.settings, environment={})
        self.others: list[Keeper] = []

    def put(self, key: str, data: bytes) -> None:
        self.server.put(self.bucket, key, data)

    def get(self, key: str) -> bytes | None:
        return self.server.get(self.bucket, key)

    def delete(self, key: str) -> None:
        self.server.delete(self.bucket, key)

    def other_keeper(self) -> Keeper:
        self.others.append(open_keeper(self.settings, environment={}))
        return self.others[-1]

    def close(self) -> None:
        for store in (self.reader, self.keeper, self.keeper, *self.others):
            store.close()


@pytest.fixture(params=["memory", "folder", "s3", "s3-versioned", "s3-other-bucket", "sftp"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[World]:
    root = tmp_path / "media"
    made: World
    match request.param:
        case "memory":
            made = MemoryWorld()
        case "folder":
            root.mkdir()
            made = OnDisk(StoreSettings(StoreName("folder"), str(root), settle_seconds=0), root)
        case "sftp":
            root.mkdir()
            ssh: SshServer = request.getfixturevalue("ssh_server")
            made = OnDisk(ssh.settings(tmp_path, root), root)
        case kind:
            s3: S3Server = request.getfixturevalue("s3_server")
            bucket = s3.bucket(versioned=kind == "s3-versioned")
            more = {"quarantine": f"s3://{s3.bucket()}/hidden"} if kind == "s3-other-bucket" else {}
            made = InBucket(s3.settings(tmp_path, bucket, **more), s3, bucket)
    yield made
    made.close()


def listed(reader: Reader) -> dict[str, ObjectRef]:
    return {ref.key: ref for page in reader.list() for ref in page}


def test_lists_every_object_once_in_pages(world: World) -> None:
    keys = {f"{number % 7}/{number % 11}/{number:05}.jpg" for number in range(PAGE + 200)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: world.put(key, b"x" + key.encode()), keys))

    pages = list(world.reader.list())

    found = [ref.key for page in pages for ref in page]
    assert sorted(found) == sorted(keys)
    assert all(0 < len(page) <= PAGE for page in pages)
    assert all(ref.size == 1 + len(ref.key) and ref.stamp and ref.store == world.reader.name for page in pages for ref in page)


def test_an_empty_store_lists_nothing(world: World) -> None:
    assert [ref for page in world.reader.list() for ref in page] == []


def test_what_is_listed_is_what_stat_and_fetch_say(world: World) -> None:
    world.put("a/b.jpg", NOISE)

    ref = listed(world.reader)["a/b.jpg"]
    blob = world.reader.fetch(ref, LIMIT)

    assert world.reader.stat("a/b.jpg") == ref
    assert (blob.data, blob.sha256, blob.ref) == (NOISE, sha(NOISE), ref)
    assert ref.modified is not None
    assert ref.modified.tzinfo is not None


def test_an_empty_object_is_an_object(world: World) -> None:
    world.put("empty.png", b"")

    ref = listed(world.reader)["empty.png"]

    assert world.reader.fetch(ref, LIMIT).data == b""
    assert ref.size == 0


def test_a_replaced_object_has_another_stamp_and_fetch_says_which_bytes_it_read(world: World) -> None:
    world.put("a.jpg", NOISE)
    before = world.reader.stat("a.jpg")
    time.sleep(1.1 if isinstance(world, OnDisk) and world.settings.url.startswith("sftp") else 0.01)
    world.put("a.jpg", OTHER)

    blob = world.reader.fetch(before, LIMIT)

    assert (blob.data, blob.sha256) == (OTHER, sha(OTHER))
    assert blob.ref == world.reader.stat("a.jpg")
    assert blob.ref.stamp != before.stamp


def test_what_is_not_there_is_gone(world: World) -> None:
    with pytest.raises(Gone):
        world.reader.stat("no/such.jpg")
    with pytest.raises(Gone):
        world.reader.fetch(ObjectRef(world.reader.name, "no/such.jpg", 3, "x"), LIMIT)


def test_too_large_an_object_is_not_read(world: World) -> None:
    world.put("big", NOISE)
    ref = world.reader.stat("big")

    with pytest.raises(TooLarge):
        world.reader.fetch(ref, len(NOISE) - 1)
    with pytest.raises(TooLarge):
        world.reader.fetch(ObjectRef(ref.store, ref.key, 1, ref.stamp), len(NOISE) - 1)
    assert world.reader.fetch(ref, len(NOISE)).data == NOISE


@pytest.mark.parametrize(
    "key",
    [
        "..",
        "../media",
        "../../etc/passwd",
        "a/../b",
        "./a",
        ".",
        "",
        "/",
        "/etc/passwd",
        "a//b",
        "a/",
        "\0",
        "a\0b",
        "x" * 1000,
        "\udcff",
    ],
)
def test_a_strange_key_names_nothing_outside(world: World, key: str) -> None:
    world.put("a/b", NOISE)
    world.put("b", NOISE)

    for ask in (lambda: world.reader.stat(key), lambda: world.reader.fetch(ObjectRef(world.reader.name, key, 1, ""), LIMIT)):
        try:
            ask()
        except Gone:
            continue
        # a server that takes "a//b" for "a/b" may answer for it, but never for anything outside
        assert not isinstance(world, OnDisk | MemoryWorld)
        assert key in ("a//b", "a/", "./a", "a/../b", "/")


@pytest.mark.parametrize(
    "key",
    [
        "new\nline.jpg",
        "esc\x1b[31mred.png",
        "sp ace+plus%20.jpg",
        "ümlaut/日本.webp",
        "q?x=1&y#z",
        "-rf",
        ".hidden/.x",
        "/".join(["d" * 99] * 10),
    ],
)
def test_a_hostile_name_is_an_object_like_any_other(world: World, key: str) -> None:
    world.put(key, NOISE)

    ref = listed(world.reader)[key]
    assert world.reader.fetch(ref, LIMIT).data == NOISE
    place = world.keeper.hide(ref, sha(NOISE), "2026/spot-1")
    assert listed(world.reader) == {}
    world.keeper.restore(place, sha(NOISE))

    assert world.get(key) == NOISE


def test_fetch_and_stat_from_many_threads(world: World) -> None:
    keys = [f"t/{number}" for number in range(60)]
    for key in keys:
        world.put(key, key.encode() * 1000)

    def one(key: str) -> bytes:
        return world.reader.fetch(world.reader.stat(key), LIMIT).data

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, keys)) == [key.encode() * 1000 for key in keys]


def test_two_listings_at_once_do_not_disturb_one_another(world: World) -> None:
    for number in range(30):
        world.put(f"many/{number:02}.bin", b"x" * (number + 1))
    expected = {(ref.key, ref.size) for page in world.reader.list() for ref in page}

    def keys(_: int) -> set[tuple[str, int]]:
        return {(ref.key, ref.size) for page in world.reader.list() for ref in page}

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(keys, range(8)))

    assert len(expected) >= 30
    assert answers == [expected] * 8


def test_requests_are_counted_or_free(world: World) -> None:
    world.put("a", NOISE)
    before = world.reader.requests
    world.reader.stat("a")

    assert world.reader.requests - before in ({0} if isinstance(world, OnDisk) and world.settings.url.startswith("/") else {1, 2})


def test_a_hidden_copy_can_be_read_where_it_lies(world: World) -> None:
    world.put("a/b.jpg", NOISE)
    place = world.keeper.hide(world.reader.stat("a/b.jpg"), sha(NOISE), "2026/11/one")

    assert world.keeper.hidden_copy(place, LIMIT) == NOISE
    with pytest.raises(TooLarge):
        world.keeper.hidden_copy(place, len(NOISE) - 1)
    with pytest.raises(Gone):
        world.keeper.hidden_copy(replace(place, where="2026/11/two", facts={}), LIMIT)
    world.keeper.restore(place, sha(NOISE))

    with pytest.raises(Gone):
        world.keeper.hidden_copy(place, LIMIT)
    assert world.get("a/b.jpg") == NOISE


def test_hide_takes_the_object_away_and_restore_brings_it_back(world: World) -> None:
    world.put("a/b.jpg", NOISE)
    world.put("a/c.jpg", OTHER)
    ref = world.reader.stat("a/b.jpg")

    place = world.keeper.hide(ref, sha(NOISE), "2026/11/one")

    assert world.get("a/b.jpg") is None
    assert set(listed(world.reader)) == {"a/c.jpg"}
    with pytest.raises(Gone):
        world.keeper.stat("a/b.jpg")
    assert (place.store, place.key, place.how, place.where) == (world.keeper.name, "a/b.jpg", "moved", "2026/11/one")

    back = world.keeper.restore(place, sha(NOISE))

    assert world.get("a/b.jpg") == NOISE
    assert (back.key, back.size) == ("a/b.jpg", len(NOISE))
    assert back == world.reader.stat("a/b.jpg")


def test_hide_and_restore_can_be_asked_for_again(world: World) -> None:
    world.put("a.jpg", NOISE)
    ref = world.reader.stat("a.jpg")

    first = world.keeper.hide(ref, sha(NOISE), "one")
    second = world.other_keeper().hide(ref, sha(NOISE), "one")
    assert second == first
    back = world.keeper.restore(first, sha(NOISE))
    again = world.other_keeper().restore(first, sha(NOISE))

    assert again == back
    assert world.get("a.jpg") == NOISE


def test_hide_leaves_other_bytes_where_they_are(world: World) -> None:
    world.put("a.jpg", NOISE)
    ref = world.reader.stat("a.jpg")
    world.put("a.jpg", OTHER)

    with pytest.raises(Changed):
        world.keeper.hide(ref, sha(NOISE), "one")
    with pytest.raises(Changed):
        world.keeper.hide(ref, sha(NOISE), "one")

    assert world.get("a.jpg") == OTHER


def test_hide_of_what_is_nowhere_is_gone(world: World) -> None:
    world.put("a.jpg", NOISE)
    ref = world.reader.stat("a.jpg")
    world.delete("a.jpg")

    with pytest.raises(Gone):
        world.keeper.hide(ref, sha(NOISE), "one")


def test_a_new_upload_after_hiding_is_left_alone(world: World) -> None:
    world.put("a.jpg", NOISE)
    ref = world.reader.stat("a.jpg")
    place = world.keeper.hide(ref, sha(NOISE), "one")
    world.put("a.jpg", OTHER)

    assert world.keeper.hide(ref, sha(NOISE), "one").where == place.where
    assert world.get("a.jpg") == OTHER
    with pytest.raises(Occupied):
        world.keeper.restore(place, sha(NOISE))
    assert world.get("a.jpg") == OTHER

    world.delete("a.jpg")
    world.keeper.restore(place, sha(NOISE))
    assert world.get("a.jpg") == NOISE


def test_the_same_bytes_uploaded_again_after_hiding_are_hidden_by_the_same_deed(world: World) -> None:
    world.put("a.jpg", NOISE)
    ref = world.reader.stat("a.jpg")
    world.keeper.hide(ref, sha(NOISE), "one")
    world.put("a.jpg", NOISE)

    place = world.keeper.hide(ref, sha(NOISE), "two")

    assert world.get("a.jpg") is None
    world.keeper.restore(place, sha(NOISE))
    assert world.get("a.jpg") == NOISE


def test_restore_finds_the_very_bytes_already_there(world: World) -> None:
    world.put("a.jpg", NOISE)
    place = world.keeper.hide(world.reader.stat("a.jpg"), sha(NOISE), "one")
    world.put("a.jpg", NOISE)

    back = world.keeper.restore(place, sha(NOISE))

    assert back.size == len(NOISE)
    assert world.get("a.jpg") == NOISE


def test_restore_of_what_is_nowhere_is_gone(world: World) -> None:
    world.put("a.jpg", NOISE)
    place = world.keeper.hide(world.reader.stat("a.jpg"), sha(NOISE), "one")
    world.keeper.restore(place, sha(NOISE))
    world.delete("a.jpg")

    with pytest.raises(Gone):
        world.keeper.restore(place, sha(NOISE))


def test_remove_and_put_back_from_the_vault(world: World) -> None:
    world.put("a/b.jpg", NOISE)
    ref = world.reader.stat("a/b.jpg")

    place = world.keeper.remove(ref, sha(NOISE))

    assert (place.how, place.where) == ("removed", "")
    assert world.get("a/b.jpg") is None
    assert listed(world.reader) == {}
    assert world.other_keeper().remove(ref, sha(NOISE)) == place
    with pytest.raises(Gone):
        world.keeper.restore(place, sha(NOISE))
    back = world.keeper.put_back(place, NOISE)
    assert world.keeper.put_back(place, NOISE) == back
    assert world.get("a/b.jpg") == NOISE
    assert world.reader.fetch(back, LIMIT).data == NOISE
    with pytest.raises(Occupied):
        world.keeper.put_back(place, OTHER)
    assert world.get("a/b.jpg") == NOISE


def test_remove_leaves_other_bytes_where_they_are(world: World) -> None:
    world.put("a.jpg", NOISE)
    ref = world.reader.stat("a.jpg")
    world.put("a.jpg", OTHER)

    with pytest.raises(Changed):
        world.keeper.remove(ref, sha(NOISE))
    world.delete("a.jpg")
    with pytest.raises(Gone):
        world.keeper.remove(ref, sha(NOISE))


def test_a_hidden_copy_can_be_put_back_from_the_vault(world: World) -> None:
    world.put("a.jpg", NOISE)
    place = world.keeper.hide(world.reader.stat("a.jpg"), sha(NOISE), "one")

    world.keeper.put_back(place, NOISE)

    assert world.get("a.jpg") == NOISE


def test_a_hidden_copy_is_not_public(world: World) -> None:
    world.put("a.jpg", NOISE)
    place = world.keeper.hide(world.reader.stat("a.jpg"), sha(NOISE), "one")

    assert world.keeper.is_public(place) in ({None} if isinstance(world, OnDisk) else {False})


def test_a_store_can_be_used_again_after_close(world: World) -> None:
    world.put("a.jpg", NOISE)
    world.reader.close()
    world.reader.close()

    assert world.reader.fetch(world.reader.stat("a.jpg"), LIMIT).data == NOISE


def test_a_file_that_was_modified_just_now_is_unsettled(ssh_server: SshServer, tmp_path: Path) -> None:
    root = tmp_path / "media"
    root.mkdir()
    (root / "new.jpg").write_bytes(NOISE)
    (root / "old.jpg").write_bytes(NOISE)
    os.utime(root / "old.jpg", (1e9, 1e9))
    for settings in (StoreSettings(StoreName("f"), str(root)), ssh_server.settings(tmp_path, root, settle_seconds=2.0)):
        reader = open_reader(settings, environment={})

        with pytest.raises(Unsettled):
            reader.fetch(reader.stat("new.jpg"), LIMIT)
        assert reader.fetch(reader.stat("old.jpg"), LIMIT).data == NOISE
        reader.close()


def test_every_error_of_a_store_is_one_of_ours(world: World) -> None:
    with pytest.raises(FediwardenError):
        world.keeper.hide(ObjectRef(world.keeper.name, "..", 1, ""), sha(NOISE), "one")
