"""What an S3 store does when its server is stopped, slow, busy, lying about lengths, or changed under it; and what it keeps."""

import hashlib
import socket
import threading
import time
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from tests.support.fault_proxy import FaultProxy, bad_days
from tests.support.servers import ADMIN, READ_ONLY, S3Server, running_s3

from fediwarden.errors import Changed, FediwardenError, Gone, Misconfigured, Occupied, Refused, Unreached
from fediwarden.model import ObjectRef, Sha256
from fediwarden.stores.interface import Keeper, Reader
from fediwarden.stores.open import open_keeper, open_reader

LIMIT = 1 << 20
NOISE = bytes(range(256)) * 40
OTHER = NOISE[::-1]


def sha(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


@pytest.fixture
def proxy(s3_server: S3Server) -> Generator[FaultProxy]:
    with bad_days(s3_server.port) as made:
        yield made


class Bucket:
    """A bucket behind the proxy, with a reader and keepers that have little patience."""

    def __init__(self, server: S3Server, proxy: FaultProxy, folder: Path, *, versioned: bool = False) -> None:
        self.server, self.proxy, self.folder = server, proxy, folder
        self.name = server.bucket(versioned=versioned)
        self._made: list[Reader] = []

    def _settings(self, **more: object):  # type: ignore[no-untyped-def]
        values = {"endpoint": f"http://127.0.0.1:{self.proxy.port}", "tries": 3, "timeout_seconds": 2.0} | more
        return self.server.settings(self.folder, self.name, "", **values)

    def reader(self, **more: object) -> Reader:
        self._made.append(open_reader(self._settings(**more), environment={}))
        return self._made[-1]

    def keeper(self, **more: object) -> Keeper:
        made = open_keeper(self._settings(**more), environment={})
        self._made.append(made)
        return made

    def put(self, key: str, data: bytes) -> None:
        self.server.put(self.name, key, data)

    def get(self, key: str) -> bytes | None:
        return self.server.get(self.name, key)

    def close(self) -> None:
        for store in self._made:
            store.close()


@pytest.fixture(params=["unversioned", "versioned"])
def bucket(request: pytest.FixtureRequest, s3_server: S3Server, proxy: FaultProxy, tmp_path: Path) -> Generator[Bucket]:
    made = Bucket(s3_server, proxy, tmp_path, versioned=request.param == "versioned")
    yield made
    made.close()


@pytest.fixture
def plain(s3_server: S3Server, proxy: FaultProxy, tmp_path: Path) -> Generator[Bucket]:
    made = Bucket(s3_server, proxy, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("fault", ["503", "500", "reset", "cut"])
def test_one_bad_answer_is_tried_again(plain: Bucket, fault: str) -> None:
    plain.put("a.jpg", NOISE)
    reader = plain.reader()
    plain.proxy.plan = lambda number, line: fault if number % 2 == 0 else ""

    refs = [ref for page in reader.list() for ref in page]

    assert reader.fetch(refs[0], LIMIT).data == NOISE
    assert reader.requests == 4


@pytest.mark.parametrize("fault", ["503", "reset", "cut", "slow:3", "drip"])
def test_a_server_that_stays_bad_is_unreached_and_nothing_else(plain: Bucket, fault: str) -> None:
    plain.put("a.jpg", NOISE * 20)
    reader = plain.reader(tries=2, timeout_seconds=0.5)
    ref = reader.stat("a.jpg")
    plain.proxy.plan = lambda number, line: fault
    begun = time.monotonic()

    with pytest.raises(Unreached) as caught:
        reader.fetch(ref, LIMIT)

    assert not isinstance(caught.value, Refused)
    assert "127.0.0.1" in str(caught.value)
    assert time.monotonic() - begun < 40
    plain.proxy.heal()
    assert reader.fetch(ref, LIMIT).data == NOISE * 20


def test_a_listing_that_breaks_off_says_so_after_what_it_had(plain: Bucket) -> None:
    client = plain.server.client()
    for number in range(1100):
        client.send("PUT", plain.name, f"{number:05}", body=b"x")
    client.close()
    reader = plain.reader()
    plain.proxy.plan = lambda number, line: "503" if "continuation-token" in line else ""
    found: list[ObjectRef] = []

    with pytest.raises(Unreached):
        found.extend(ref for page in reader.list() for ref in page)

    assert len(found) == 1000


def test_a_stopped_server_is_unreached_and_the_same_again_when_it_is_back(tmp_path: Path) -> None:
    with running_s3(tmp_path / "s3") as server:
        bucket, port = server.bucket(), server.port
        server.put(bucket, "a.jpg", NOISE)
        settings = server.settings(tmp_path, bucket, tries=2)
        reader, keeper = open_reader(settings, environment={}), open_keeper(settings, environment={})
        ref = reader.stat("a.jpg")
    for ask in (lambda: reader.fetch(ref, LIMIT), lambda: list(reader.list()), lambda: keeper.hide(ref, sha(NOISE), "one")):
        with pytest.raises(Unreached) as caught:
            ask()
        assert not isinstance(caught.value, Refused)
    with running_s3(tmp_path / "s3", port):
        place = keeper.hide(ref, sha(NOISE), "one")
        with pytest.raises(Gone):
            reader.stat("a.jpg")
        keeper.restore(place, sha(NOISE))
        assert reader.fetch(ref, LIMIT).data == NOISE
    reader.close()
    keeper.close()


@pytest.mark.parametrize("fault", ["reset", "lost"])
def test_a_crash_at_any_request_of_hide_is_completed_by_hiding_again(bucket: Bucket, fault: str) -> None:
    """From request n on nothing works; then everything does. The object is never in neither place."""
    deed = 0
    while True:
        key, spot = f"k{deed}.jpg", f"spot{deed}"
        for data in (OTHER, NOISE):
            bucket.put(key, data)
        keeper = bucket.keeper(tries=1)
        ref = keeper.stat(key)
        begun = len(bucket.proxy.seen)
        bucket.proxy.plan = lambda number, line, first=begun + deed: fault if number >= first else ""  # type: ignore[misc]
        try:
            keeper.hide(ref, sha(NOISE), spot)
            break
        except Unreached:
            bucket.proxy.heal()
        hidden = bucket.get(f"fediwarden-quarantine/{spot}") == NOISE
        assert bucket.get(key) == NOISE or hidden
        again = bucket.keeper()
        place = again.hide(ref, sha(NOISE), spot)
        assert bucket.get(key) is None
        assert again.restore(place, sha(NOISE)).size == len(NOISE)
        assert bucket.get(key) == NOISE
        deed += 1
        assert deed < 60
    assert deed > 6


@pytest.mark.parametrize("fault", ["reset", "lost"])
def test_a_crash_at_any_request_of_restore_is_completed_by_restoring_again(bucket: Bucket, fault: str) -> None:
    deed = 0
    while True:
        key, spot = f"k{deed}.jpg", f"spot{deed}"
        for data in (OTHER, NOISE):
            bucket.put(key, data)
        keeper = bucket.keeper(tries=1)
        place = keeper.hide(keeper.stat(key), sha(NOISE), spot)
        begun = len(bucket.proxy.seen)
        bucket.proxy.plan = lambda number, line, first=begun + deed: fault if number >= first else ""  # type: ignore[misc]
        try:
            keeper.restore(place, sha(NOISE))
            break
        except Unreached:
            bucket.proxy.heal()
        assert NOISE in (bucket.get(key), bucket.get(f"fediwarden-quarantine/{spot}"))
        bucket.keeper().restore(place, sha(NOISE))
        assert bucket.get(key) == NOISE
        deed += 1
        assert deed < 60
    assert deed > 4


def test_an_object_replaced_between_look_and_delete_is_not_lost(plain: Bucket) -> None:
    """The new bytes arrive at the worst moment: after the copy was verified, right before the deletion."""
    plain.put("a.jpg", NOISE)
    keeper = plain.keeper()
    ref = keeper.stat("a.jpg")

    def replace(number: int, line: str) -> str:
        if line.startswith("DELETE") and "/a.jpg" in line:
            plain.put("a.jpg", OTHER)
        return ""

    plain.proxy.plan = replace
    place = keeper.hide(ref, sha(NOISE), "one")

    assert plain.get("a.jpg") == OTHER
    assert plain.get("fediwarden-quarantine/one") == NOISE
    with pytest.raises(Occupied):
        keeper.restore(place, sha(NOISE))
    assert plain.get("a.jpg") == OTHER


def test_an_object_replaced_between_look_and_copy_is_changed(bucket: Bucket) -> None:
    bucket.put("a.jpg", NOISE)
    keeper = bucket.keeper()
    ref = keeper.stat("a.jpg")

    def replace(number: int, line: str) -> str:
        if line.startswith("PUT") and "quarantine/one" in line and "manifest" not in line and bucket.get("a.jpg") == NOISE:
            bucket.put("a.jpg", OTHER)
        return ""

    bucket.proxy.plan = replace
    if not keeper._is_versioned(bucket.name):  # type: ignore[attr-defined]
        with pytest.raises(Changed):
            keeper.hide(ref, sha(NOISE), "one")
    else:
        keeper.hide(ref, sha(NOISE), "one")  # what was meant is a version of its own, and only that one is moved

    assert bucket.get("a.jpg") == OTHER


def test_hide_moves_every_version_and_restore_brings_them_back_in_order(
    s3_server: S3Server, proxy: FaultProxy, tmp_path: Path
) -> None:
    bucket = Bucket(s3_server, proxy, tmp_path, versioned=True)
    history = [b"first", b"second" * 100, NOISE]
    for data in history:
        bucket.put("a.jpg", data)
    bucket.put("a.jpg.bak", b"neighbour")
    keeper = bucket.keeper()

    place = keeper.hide(keeper.stat("a.jpg"), sha(NOISE), "one")

    assert keeper._versions(bucket.name, "a.jpg") == []  # type: ignore[attr-defined]
    assert bucket.get("a.jpg.bak") == b"neighbour"
    keeper.restore(place, sha(NOISE))
    versions = keeper._versions(bucket.name, "a.jpg")  # type: ignore[attr-defined]
    client = s3_server.client()
    assert [client.send("GET", bucket.name, "a.jpg", {"versionId": one.id}).body for one in reversed(versions)] == history
    listing = client.send("GET", bucket.name, query={"versions": "", "prefix": "fediwarden-quarantine/one"}).body
    assert b"<Version>" not in listing
    client.close()
    bucket.close()


def test_metadata_and_tags_survive_hiding_removing_and_coming_back(bucket: Bucket) -> None:
    kept = {"content_type": "image/png", "cache_control": "max-age=5", "x_amz_meta_owner": "ann", "content_disposition": "inline"}
    for key in ("a", "b"):
        bucket.server.put(bucket.name, key, NOISE, x_amz_tagging="colour=blue&size=very%20large", **kept)
    keeper = bucket.keeper()

    keeper.restore(keeper.hide(keeper.stat("a"), sha(NOISE), "one"), sha(NOISE))
    keeper.put_back(keeper.remove(keeper.stat("b"), sha(NOISE)), NOISE)

    client = bucket.server.client()
    for key in ("a", "b"):
        headers = client.send("HEAD", bucket.name, key).headers
        assert {name: headers.get(name.replace("_", "-")) for name in kept} == kept
        tags = client.send("GET", bucket.name, key, {"tagging": ""}).body
        assert b"<Key>colour</Key><Value>blue</Value>" in tags
        assert b"<Key>size</Key><Value>very large</Value>" in tags
    client.close()


def test_removing_keeps_older_versions_that_nobody_sealed(s3_server: S3Server, proxy: FaultProxy, tmp_path: Path) -> None:
    bucket = Bucket(s3_server, proxy, tmp_path, versioned=True)
    for data in (b"older", NOISE):
        bucket.put("a.jpg", data)
    keeper = bucket.keeper()

    place = keeper.remove(keeper.stat("a.jpg"), sha(NOISE))
    keeper.put_back(place, NOISE)

    versions = keeper._versions(bucket.name, "a.jpg")  # type: ignore[attr-defined]
    client = s3_server.client()
    assert [client.send("GET", bucket.name, "a.jpg", {"versionId": one.id}).body for one in versions] == [NOISE, b"older"]
    client.close()
    bucket.close()


def test_wrong_keys_and_missing_buckets_are_refused_not_gone(plain: Bucket) -> None:
    plain.put("a.jpg", NOISE)
    ref = plain.reader().stat("a.jpg")
    wrong = plain.folder / "wrong.toml"
    wrong.write_text(f'access_key_id = "{ADMIN.access_key_id}"\nsecret_access_key = "not-the-secret"\n')
    wrong.chmod(0o600)
    strangers = plain.reader(credentials=wrong)
    plain.name = "no-such-bucket-here"
    lost = plain.reader()

    for reader in (strangers, lost):
        for ask in (lambda: reader.stat("a.jpg"), lambda: reader.fetch(ref, LIMIT), lambda: list(reader.list())):  # noqa: B023
            with pytest.raises(Refused) as caught:
                ask()
            assert caught.value.hint


def test_a_read_only_key_can_scan_and_cannot_hide(plain: Bucket) -> None:
    plain.put("a.jpg", NOISE)
    reader_file, _ = plain.server.credentials(plain.folder)
    reader = plain.reader()
    ref = next(ref for page in reader.list() for ref in page)
    assert reader.fetch(ref, LIMIT).data == NOISE
    powerless = plain.keeper(keeper_credentials=reader_file, credentials=None)

    with pytest.raises(Refused):
        powerless.hide(ref, sha(NOISE), "one")

    assert READ_ONLY.access_key_id in reader_file.read_text()
    assert plain.get("a.jpg") == NOISE


def test_one_file_for_reader_and_keeper_is_refused(plain: Bucket) -> None:
    one, _ = plain.server.credentials(plain.folder)

    with pytest.raises(Misconfigured):
        plain.keeper(credentials=one, keeper_credentials=one)
    with pytest.raises(Misconfigured):
        plain.reader(credentials=one, keeper_credentials=one)


def test_a_reader_does_not_open_the_keepers_credentials(plain: Bucket) -> None:
    plain.put("a.jpg", NOISE)

    reader = plain.reader(keeper_credentials=plain.folder / "not-there.toml")

    assert reader.stat("a.jpg").size == len(NOISE)


def test_the_prefix_of_a_store_is_all_of_it(plain: Bucket) -> None:
    for key in ("media/a.jpg", "media2/b.jpg", "c.jpg"):
        plain.put(key, NOISE)
    settings = plain.server.settings(plain.folder, plain.name, "media")
    reader = open_reader(settings, environment={})

    assert [ref.key for page in reader.list() for ref in page] == ["media/a.jpg"]
    with pytest.raises(Gone):
        reader.stat("c.jpg")
    reader.close()


def test_hiding_tells_when_the_quarantine_place_is_public(plain: Bucket) -> None:
    plain.put("a.jpg", NOISE)
    keeper = plain.keeper()
    place = keeper.hide(keeper.stat("a.jpg"), sha(NOISE), "one")
    assert keeper.is_public(place) is False
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject",'
        f'"Resource":"arn:aws:s3:::{plain.name}/*"}}]}}'
    )
    client = plain.server.client()
    answer = client.send("PUT", plain.name, query={"policy": ""}, body=policy.encode())
    client.close()
    assert answer.status in (200, 204), answer
    end = time.monotonic() + 5
    while not keeper.is_public(place) and time.monotonic() < end:
        time.sleep(0.1)

    assert keeper.is_public(place) is True


def test_every_bad_answer_is_one_of_our_errors(plain: Bucket) -> None:
    plain.put("a.jpg", NOISE)
    keeper = plain.keeper(tries=1)
    ref = keeper.stat("a.jpg")
    for fault in ("503", "cut", "lost"):
        plain.proxy.plan = lambda number, line: fault  # noqa: B023
        with pytest.raises(FediwardenError):
            keeper.hide(ref, sha(NOISE), "one")
        plain.proxy.heal()
        assert plain.get("a.jpg") == NOISE


EMPTY = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'


def test_a_request_that_the_server_never_heard_of_does_not_count(tmp_path: Path, s3_server: S3Server) -> None:
    """A server that hangs up on connections that were idle: the next request takes a new one, and is one request."""
    heard: list[bytes] = []
    hung_up = threading.Semaphore(0)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(EMPTY) + EMPTY)
                hung_up.release()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        settings = s3_server.settings(tmp_path, "media", endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}")
        with closing(open_reader(settings, environment={})) as reader:
            for asked in (1, 2, 3):
                assert list(reader.list()) == []
                assert hung_up.acquire(timeout=10)
                assert (reader.requests, len(heard)) == (asked, asked)
