"""The rows of the earlier tools' defects that lie in reaching and changing stores, each named after its row."""

import gc
import hashlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.fault_proxy import bad_days
from tests.support.servers import S3Server, SshServer

from fediwarden.errors import FediwardenError, Gone, Refused, Unreached
from fediwarden.model import Sha256, StoreName
from fediwarden.stores.files import FolderKeeper, FolderReader
from fediwarden.stores.open import open_keeper, open_reader

NOISE = bytes(range(256)) * 40
LIMIT = 1 << 20


def sha(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


def test_f1_hiding_over_ssh_acts_on_the_host_and_is_read_back_there(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the same name where the program runs is not touched; the one on the host is really gone from its place."""
    root, here = tmp_path / "media", tmp_path / "here"
    root.mkdir()
    here.mkdir()
    for folder in (root, here):
        (folder / "x.png").write_bytes(NOISE)
    monkeypatch.chdir(here)
    keeper = open_keeper(ssh_server.settings(tmp_path, root), environment={})

    place = keeper.hide(keeper.stat("x.png"), sha(NOISE), "one")

    assert not (root / "x.png").exists()
    assert (here / "x.png").read_bytes() == NOISE
    with pytest.raises(Gone):
        keeper.stat("x.png")
    keeper.restore(place, sha(NOISE))
    keeper.close()
    assert (root / "x.png").read_bytes() == NOISE


@pytest.mark.parametrize("answer", ["503", "cut", "reset"])
def test_f3_a_passing_s3_error_exempts_no_object(s3_server: S3Server, tmp_path: Path, answer: str) -> None:
    bucket = s3_server.bucket()
    s3_server.put(bucket, "a.jpg", NOISE)
    with bad_days(s3_server.port) as proxy:
        settings = s3_server.settings(tmp_path, bucket, endpoint=f"http://127.0.0.1:{proxy.port}", tries=2, timeout_seconds=2.0)
        reader = open_reader(settings, environment={})
        ref = next(ref for page in reader.list() for ref in page)
        proxy.plan = lambda number, line: answer
        with pytest.raises(Unreached) as caught:
            reader.fetch(ref, LIMIT)
        assert caught.value.retry
        proxy.heal()

        assert reader.fetch(ref, LIMIT).data == NOISE
        reader.close()


def test_f4_a_file_that_cannot_be_moved_is_an_error_and_stays(tmp_path: Path) -> None:
    """As root an immutable file, as anybody else a folder without the right to write."""
    root = tmp_path / "media"
    root.mkdir()
    (root / "a.jpg").write_bytes(NOISE)
    keeper = FolderKeeper(StoreName("f"), root, settle_seconds=0)
    ref = keeper.stat("a.jpg")
    lock, unlock = (["chattr", "+i"], ["chattr", "-i"]) if os.getuid() == 0 else (["chmod", "a-w"], ["chmod", "u+w"])
    target = root / "a.jpg" if os.getuid() == 0 else root
    subprocess.run([*lock, target], check=True)
    try:
        acts: list[Callable[[], object]] = [lambda: keeper.hide(ref, sha(NOISE), "one"), lambda: keeper.remove(ref, sha(NOISE))]
        for act in acts:
            with pytest.raises(Refused) as caught:
                act()
            assert caught.value.hint
        assert (root / "a.jpg").read_bytes() == NOISE
    finally:
        subprocess.run([*unlock, target], check=True)
    keeper.hide(ref, sha(NOISE), "one")
    assert not (root / "a.jpg").exists()


def test_f9_an_empty_bucket_lists_nothing(s3_server: S3Server, tmp_path: Path) -> None:
    reader = open_reader(s3_server.settings(tmp_path, s3_server.bucket()), environment={})

    assert list(reader.list()) == []
    assert reader.requests == 1
    reader.close()


def test_f17_a_listing_never_lies_in_memory_as_a_whole(tmp_path: Path) -> None:
    root = tmp_path / "media"
    for folder in range(20):
        (root / str(folder)).mkdir(parents=True)
        for number in range(1000):
            (root / str(folder) / f"{number:04}").touch()
    reader = FolderReader(StoreName("f"), root)
    gc.collect()
    tracemalloc.start()

    count = sum(len(page) for page in reader.list())

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 2_500_000  # bytes; two pages and the names of the folders, where 20,000 references take over 8,000,000


def test_f17_one_ssh_connection_serves_many_files(ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncssh

    root = tmp_path / "media"
    root.mkdir()
    for number in range(50):
        (root / f"{number}.jpg").write_bytes(NOISE)
    made: list[object] = []
    connect = asyncssh.connect

    def counted(*args: object, **more: object) -> object:
        made.append(args)
        return connect(*args, **more)

    monkeypatch.setattr(asyncssh, "connect", counted)
    reader = open_reader(ssh_server.settings(tmp_path, root), environment={})
    for page in reader.list():
        for ref in page:
            assert reader.fetch(ref, LIMIT).data == NOISE
    reader.close()

    assert len(made) == 1


def test_f18_an_unknown_host_key_stops_and_nothing_prompts(ssh_server: SshServer, tmp_path: Path) -> None:
    """In a process without a terminal and with nothing on its input: a prompt would hang or fail."""
    root = tmp_path / "media"
    root.mkdir()
    (tmp_path / "known").write_text("")
    login = ssh_server.credentials(tmp_path)
    code = f"""
from pathlib import Path
from fediwarden.errors import Refused
from fediwarden.model import StoreName
from fediwarden.stores.open import open_reader
from fediwarden.stores.url import StoreSettings
reader = open_reader(StoreSettings(StoreName("h"), {ssh_server.url(root)!r}, credentials=Path({str(login)!r}),
                     known_hosts=Path({str(tmp_path / "known")!r})), environment={{}})
try:
    list(reader.list())
except Refused as error:
    print("refused:", error)
reader.close()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )

    assert ran.stdout.startswith("refused:"), ran.stderr


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_f18_keys_of_every_kind_log_in(ssh_server: SshServer, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "media"
    root.mkdir()
    reader = open_reader(ssh_server.settings(tmp_path, root, credentials=ssh_server.credentials(tmp_path, kind)), environment={})

    assert list(reader.list()) == []
    reader.close()


def test_f27_fetching_leaves_no_file_behind(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, scratch = s3_server.bucket(), tmp_path / "scratch"
    scratch.mkdir()
    s3_server.put(bucket, "a.jpg", NOISE)
    reader = open_reader(s3_server.settings(tmp_path, bucket), environment={})
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(scratch))
    monkeypatch.chdir(scratch)

    assert reader.fetch(reader.stat("a.jpg"), LIMIT).data == NOISE

    reader.close()
    assert list(scratch.iterdir()) == []


def test_f18_f4_errors_of_stores_carry_a_hint_or_may_pass(tmp_path: Path) -> None:
    reader = FolderReader(StoreName("f"), tmp_path / "missing")

    with pytest.raises(FediwardenError) as caught:
        next(iter(reader.list()))

    assert caught.value.hint
