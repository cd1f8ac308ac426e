"""How the folder of models changes: a model appears, changes or goes whole, whatever happens to the process or the power.

A model's folder is built beside its place, written to the disk, and put there by one rename that exchanges the two; what was
there before goes with it. Nothing here knows what a manifest says, and nothing fetches anything.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from fediwarden.errors import CannotWrite

STAGING = ".installing-"  # made and gone under the lock: what is found there under the lock, a killed process left
WORKSPACE = ".building-"  # somebody's as long as the folder itself is locked
PULLING = ".pulling-"  # what a pull has so far; the next one goes on from it
_OLD = "old"  # in a staging folder: the model that stood in the place
_AT_CWD = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
_BLOCK = 1 << 20  # bytes


@contextmanager
def writing(models_dir: Path) -> Iterator[None]:
    """Round what writes to the folder: a disk's refusal becomes a line with a hint. Raises: CannotWrite."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"the models cannot be written to {models_dir}: {error.strerror or error}", hint="check its owner and free space"
        ) from error


@contextmanager
def locked(models_dir: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the folder against another process that changes it; the kernel lets go of the lock whatever happens to us.

    `waiting` is called once, before it waits for another process. Raises: OSError.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(models_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def held(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a folder that is made for it, and that whoever holds it may remove; then the next one makes it again.

    `waiting` is called once, before it waits for another process. Raises: OSError.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # removed just now
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(handle), folder.stat())
            except FileNotFoundError:
                same = False
            if same:
                yield
                return
        finally:
            os.close(handle)


@contextmanager
def staging(models_dir: Path) -> Iterator[Path]:
    """A folder in which to build models that are then `put`; only under the lock. Raises: OSError."""
    sweep(models_dir)
    folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=models_dir))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def workspace(models_dir: Path, name: str) -> Iterator[Path]:
    """A folder of one's own beside the models, for long work on one of them; gone afterwards.

    It takes no lock that others wait for. What a killed process left is swept by the next one. Raises: CannotWrite.
    """
    with writing(models_dir), locked(models_dir):
        sweep(models_dir)
        folder = Path(tempfile.mkdtemp(prefix=f"{WORKSPACE}{name}-", dir=models_dir))
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def sweep(models_dir: Path) -> None:
    """Remove what killed processes left, and put back a model that one of them had moved aside; only under the lock."""
    for left in models_dir.glob(f"{STAGING}*"):
        for old in left.glob(f"{_OLD}/*"):
            if not (models_dir / old.name).exists():
                old.rename(models_dir / old.name)
        shutil.rmtree(left)
    for left in models_dir.glob(f"{WORKSPACE}*"):
        try:
            handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # finished just now
        try:
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
        finally:
            os.close(handle)


def put(built: Path, models_dir: Path) -> None:
    """Put a folder that was built in `staging` into its place, under its own name; only under the lock. Raises: OSError."""
    sync(built)
    place = models_dir / built.name
    if not place.exists() and not place.is_symlink():
        built.rename(place)
    elif not _exchange(built, place):  # two steps; `sweep` takes the first one back where the second never came
        (built.parent / _OLD).mkdir(exist_ok=True)
        place.rename(built.parent / _OLD / built.name)
        built.rename(place)
    sync(models_dir)


def keep(source: Path, target: Path) -> None:
    """Have a file under a second name: by a hard link, or by a copy where the file system has none. Raises: OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        copy(source, target)


def copy(source: Path, target: Path, progress: Callable[[int], None] = lambda _: None) -> tuple[str, int]:
    """Copy a file to the disk; returns the SHA-256 and the size of what was written. `progress` is told bytes so far."""
    digest, size = sha256(), 0
    with source.open("rb") as given, target.open("xb") as out:
        while block := given.read(_BLOCK):
            out.write(block)
            digest.update(block)
            size += len(block)
            progress(size)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest(), size


def digest_of(path: Path) -> tuple[str, int]:
    """The SHA-256 and size of a file, read a block at a time. Raises: OSError."""
    digest, size = sha256(), 0
    with path.open("rb") as source:
        while block := source.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def write(path: Path, data: bytes) -> None:
    """Write a new file to the disk. Raises: OSError, also where there is one."""
    with path.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Raises: OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # an old C library
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    rename: Callable[[int, bytes, int, bytes, int], int] = call
    return rename


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the file system cannot. Raises: OSError."""
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))
