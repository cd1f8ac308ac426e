"""What a folder owes beyond the suite: links, special files, races, crashes at every step, and what hiding must not change."""

import hashlib
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from types import ModuleType

import pytest

from fediwarden.errors import Changed, Gone, Misconfigured, Refused, Unreached, Unsettled
from fediwarden.model import ObjectRef, Sha256, StoreName
from fediwarden.stores import files
from fediwarden.stores.files import FolderKeeper, FolderReader

LIMIT = 1 << 20
NOISE = bytes(range(256)) * 40
OTHER = NOISE[::-1]
NAME = StoreName("folder")


def sha(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "media"
    made.mkdir()
    return made


@pytest.fixture
def keeper(root: Path) -> FolderKeeper:
    return FolderKeeper(NAME, root, settle_seconds=0)


def keys(reader: FolderReader) -> set[str]:
    return {ref.key for page in reader.list() for ref in page}


def test_links_are_counted_and_never_followed(root: Path, keeper: FolderKeeper) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(NOISE)
    (root / "a.jpg").write_bytes(NOISE)
    (root / "file-link").symlink_to(outside / "secret.jpg")
    (root / "folder-link").symlink_to(outside)
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to(".")

    assert keys(keeper) == {"a.jpg"}
    assert keeper.skipped_links == 4
    for key in ("file-link", "folder-link/secret.jpg", "loop/a.jpg", "dangling"):
        for ask in (lambda: keeper.stat(key), lambda: keeper.fetch(ObjectRef(NAME, key, 1, ""), LIMIT)):  # noqa: B023
            with pytest.raises(Gone):
                ask()
        with pytest.raises(Gone):
            keeper.hide(ObjectRef(NAME, key, 1, ""), sha(NOISE), "one")
    assert (outside / "secret.jpg").read_bytes() == NOISE


def test_a_folder_swapped_for_a_link_during_the_listing_is_not_entered(root: Path, keeper: FolderKeeper) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(NOISE)
    for number in range(1200):
        (root / f"{number}.jpg").write_bytes(b"x")
    (root / "inner").mkdir()
    (root / "inner" / "a.jpg").write_bytes(NOISE)
    listing = keeper.list()
    found = [ref.key for ref in next(listing)]
    (root / "inner").rename(root.parent / "away")
    (root / "inner").symlink_to(outside)

    found += [ref.key for page in listing for ref in page]

    assert not [key for key in found if "secret" in key]


def test_pipes_sockets_and_folders_are_no_objects_and_block_nobody(root: Path, keeper: FolderKeeper) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))

        assert keys(keeper) == set()
        for key in ("pipe", "folder", "socket"):
            with pytest.raises(Gone):
                keeper.fetch(ObjectRef(NAME, key, 1, ""), LIMIT)


def test_names_that_are_not_utf8_and_paths_longer_than_the_system_allows(root: Path, keeper: FolderKeeper) -> None:
    (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(NOISE)
    here = os.open(root, os.O_RDONLY)
    for _ in range(40):  # 40 times 200 is more than PATH_MAX
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    file = os.open("deep.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, NOISE)
    os.close(file)
    os.close(here)

    found = keys(keeper)

    assert len(found) == 2
    for key in found:
        assert keeper.fetch(keeper.stat(key), LIMIT).data == NOISE
        place = keeper.hide(keeper.stat(key), sha(NOISE), "one")
        keeper.restore(place, sha(NOISE))
    assert keys(keeper) == found


def test_a_missing_root_is_refused_and_never_gone(tmp_path: Path) -> None:
    reader = FolderReader(NAME, tmp_path / "nothing")
    for ask in (lambda: list(reader.list()), lambda: reader.stat("a"), lambda: reader.fetch(ObjectRef(NAME, "a", 1, ""), 1)):
        with pytest.raises(Refused):
            ask()


def test_a_file_that_changes_while_it_is_read_is_unsettled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.jpg").write_bytes(NOISE)
    os.utime(root / "a.jpg", (1e9, 1e9))
    reader = FolderReader(NAME, root, settle_seconds=0)
    ref = reader.stat("a.jpg")
    read = files._read

    def slow(file: int, size: int) -> bytes:
        data = read(file, size)
        (root / "a.jpg").write_bytes(OTHER)
        return data

    monkeypatch.setattr(files, "_read", slow)
    with pytest.raises(Unsettled):
        reader.fetch(ref, LIMIT)


def test_a_replaced_file_with_the_same_size_and_time_has_another_stamp(root: Path, keeper: FolderKeeper) -> None:
    path = root / "a.jpg"
    path.write_bytes(NOISE)
    os.utime(path, (1e9, 1e9))
    before = keeper.stat("a.jpg")
    time.sleep(0.02)
    path.write_bytes(OTHER)
    os.utime(path, (1e9, 1e9))

    after = keeper.stat("a.jpg")

    assert (after.size, after.modified) == (before.size, before.modified)
    assert after.stamp != before.stamp


def test_hiding_and_restoring_change_nothing_about_the_file(root: Path, keeper: FolderKeeper) -> None:
    path = root / "a" / "b.jpg"
    path.parent.mkdir(mode=0o750)
    path.write_bytes(NOISE)
    path.chmod(0o640)
    os.setxattr(path, "user.origin", b"upload")
    os.utime(path, ns=(10**18, 10**18 + 123))
    before = path.stat()

    hidden = keeper.hide(keeper.stat("a/b.jpg"), sha(NOISE), "one")
    path.parent.rmdir()  # as servers tidy up
    keeper.restore(hidden, sha(NOISE))
    removed = keeper.remove(keeper.stat("a/b.jpg"), sha(NOISE))
    assert not path.exists()
    keeper.put_back(removed, NOISE)

    after = path.stat()
    kept = (before.st_mode, before.st_mtime_ns, before.st_uid, before.st_gid, before.st_size)
    assert (after.st_mode, after.st_mtime_ns, after.st_uid, after.st_gid, after.st_size) == kept
    assert os.getxattr(path, "user.origin") == b"upload"
    quarantine = files.beside(root)
    assert stat.S_IMODE(quarantine.stat().st_mode) == 0o700
    assert [path for path in quarantine.rglob("*") if path.is_file()] == []


def test_a_quarantine_folder_inside_the_root_is_left_out(root: Path) -> None:
    keeper = FolderKeeper(NAME, root, root / ".away", settle_seconds=0)
    (root / "a.jpg").write_bytes(NOISE)
    keeper.hide(keeper.stat("a.jpg"), sha(NOISE), "one")

    assert keys(keeper) == set()
    with pytest.raises(Gone):
        keeper.stat(".away/one")


def test_a_quarantine_folder_must_be_private_and_on_the_same_file_system(root: Path, keeper: FolderKeeper) -> None:
    (root / "a.jpg").write_bytes(NOISE)
    ref = keeper.stat("a.jpg")
    files.beside(root).mkdir()
    files.beside(root).chmod(0o755)
    with pytest.raises(Misconfigured, match="other users"):
        keeper.hide(ref, sha(NOISE), "one")
    with pytest.raises(Misconfigured, match="file system"):
        FolderKeeper(NAME, root, Path("/dev/shm") / f"fw-{os.getpid()}-q", settle_seconds=0).hide(ref, sha(NOISE), "one")  # noqa: S108
    Path(f"/dev/shm/fw-{os.getpid()}-q").rmdir()  # noqa: S108
    for inside_out in (root, root.parent):
        with pytest.raises(Misconfigured):
            FolderKeeper(NAME, root, inside_out)
    assert (root / "a.jpg").read_bytes() == NOISE


@pytest.mark.parametrize("spot", ["..", "../x", "", "/x", ".removed/x", "a//b", "a/../b"])
def test_a_spot_cannot_leave_the_quarantine_folder(root: Path, keeper: FolderKeeper, spot: str) -> None:
    (root / "a.jpg").write_bytes(NOISE)

    with pytest.raises(Misconfigured):
        keeper.hide(keeper.stat("a.jpg"), sha(NOISE), spot)


class Crash(BaseException):
    """What `kill -9` looks like from inside: nothing after it runs, not even an `except OSError`."""


class Tripwire:
    """The module `os`, but the n-th call that changes something crashes, before or after it was done."""

    CHANGES = frozenset({"rename", "link", "unlink", "mkdir", "fsync", "write", "fchmod", "utime", "setxattr"})

    def __init__(self, at: int, *, after: bool) -> None:
        self.left, self.after = at, after

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in self.CHANGES:
            return real

        def tripping(*args: object, **more: object) -> object:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Crash
            result = real(*args, **more)
            if self.left == 0:
                raise Crash
            return result

        return tripping


def crash(monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool, call: Callable[[], object]) -> bool:
    """Run `call` with a crash at step `at`; False when there was no such step."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", Tripwire(at, after=after))
        try:
            call()
        except Crash:
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("renames", [True, False])
@pytest.mark.parametrize("what", ["hide", "restore", "remove", "put_back", "hide changed"])
def test_a_crash_at_any_step_is_completed_by_calling_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, what: str, renames: bool, after: bool
) -> None:
    """With the rename that replaces nothing, and on file systems that have only links for that."""
    if not renames:
        monkeypatch.setattr(files, "_renameat2", lambda: None)
    step = 0
    while True:
        step += 1
        key = f"d{step}/a.jpg"
        path = root / key
        path.parent.mkdir()
        path.write_bytes(NOISE)
        keeper = FolderKeeper(NAME, root, root.parent / f"q{step}", settle_seconds=0)
        ref = keeper.stat(key)
        call: Callable[[], object]
        match what:
            case "hide":
                call = lambda: keeper.hide(ref, sha(NOISE), "x/one")  # noqa: B023, E731
            case "hide changed":
                path.write_bytes(OTHER)
                call = lambda: keeper.hide(ref, sha(NOISE), "x/one")  # noqa: B023, E731
            case "restore":
                place = keeper.hide(ref, sha(NOISE), "x/one")
                path.parent.rmdir()
                call = lambda: keeper.restore(place, sha(NOISE))  # noqa: B023, E731
            case "remove":
                call = lambda: keeper.remove(ref, sha(NOISE))  # noqa: B023, E731
            case _:
                place = keeper.remove(ref, sha(NOISE))
                call = lambda: keeper.put_back(place, NOISE)  # noqa: B023, E731

        if what == "hide changed":
            try:
                crashed = crash(monkeypatch, step, after=after, call=call)
            except Changed:
                crashed = False
            with pytest.raises(Changed):
                call()
            assert path.read_bytes() == OTHER
        else:
            crashed = crash(monkeypatch, step, after=after, call=call)
            call()
            assert path.exists() == (what in ("restore", "put_back"))
            if what == "hide":
                assert (root.parent / f"q{step}" / "x/one").read_bytes() == NOISE
            elif path.exists():
                assert path.read_bytes() == NOISE
                assert [one for one in (root.parent / f"q{step}").rglob("*") if one.is_file()] == []
        if not crashed:
            break
    assert step > 2


AS_NOBODY = """
import os, sys
from pathlib import Path
from fediwarden.errors import Unreached
from fediwarden.model import StoreName
from fediwarden.stores.files import FolderReader
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
reader = FolderReader(StoreName("f"), Path(sys.argv[1]), settle_seconds=0)
found = {}
try:
    for page in reader.list():
        for ref in page:
            try:
                found[ref.key] = len(reader.fetch(ref, 10**6).data)
            except Unreached as error:
                found[ref.key] = "unreached"
except Unreached as error:
    found["listing"] = "1 folder" in str(error)
print(sorted(found.items()))
"""


def test_an_unprivileged_user_reads_what_may_be_read_and_is_told_the_rest(root: Path) -> None:
    import fediwarden

    (root / "a.jpg").write_bytes(b"12345")
    (root / "closed.jpg").write_bytes(b"12345")
    (root / "closed").mkdir()
    (root / "closed" / "b.jpg").write_bytes(b"x")
    (root / "closed.jpg").chmod(0o000)
    (root / "closed").chmod(0o000)
    for folder in (root, *(parent for parent in root.parents if Path(gettempdir()) in parent.parents)):
        folder.chmod(folder.stat().st_mode | 0o055)
    before = sorted(root.parent.iterdir())

    ran = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, root],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(fediwarden.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    (root / "closed").chmod(0o700)

    assert ran.stdout.strip() == "[('a.jpg', 5), ('closed.jpg', 'unreached'), ('listing', True)]", ran.stderr
    assert sorted(root.parent.iterdir()) == before


def test_importing_the_stores_loads_no_heavy_library() -> None:
    code = "import sys, fediwarden.stores.open; print([n for n in ('asyncssh','httpx2','obstore','cryptography') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_tripwire_is_a_module_to_those_who_use_it() -> None:
    assert isinstance(os, ModuleType)
    with pytest.raises(Crash):
        Tripwire(1, after=False).fsync(0)  # type: ignore[operator]


def test_an_unreadable_folder_is_unreached_not_an_empty_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a").mkdir()
    (root / "b.jpg").write_bytes(NOISE)
    reader = FolderReader(NAME, root)
    open_below = files._open_below

    def failing(folder: int, parts: list[str]) -> int:
        if parts:
            raise OSError(5, "Input/output error")
        return open_below(folder, parts)

    monkeypatch.setattr(files, "_open_below", failing)
    found: list[str] = []
    with pytest.raises(Unreached):
        found.extend(ref.key for page in reader.list() for ref in page)
    assert found == ["b.jpg"]
