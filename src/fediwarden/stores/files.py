"""A folder as a store: every path is walked component by component without following a link, so nothing outside the root is
ever opened; no bytes are decoded and nothing is decided here.

The stamp is size, modification time and change time. The change time is there because an uploader's tool can set the
modification time but not that one; the price is that a change of mode or owner, or a backup that makes hard links, has
the files read (not analysed) once more. The inode number is left out: network file systems do not keep it.
"""

import base64
import binascii
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import stat as modes
import time
from collections.abc import Callable, Generator, Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote

from fediwarden.errors import (
    BadEvidence,
    CannotWrite,
    Changed,
    FediwardenError,
    Gone,
    Misconfigured,
    Occupied,
    Refused,
    TooLarge,
    Unreached,
    Unsettled,
)
from fediwarden.model import Blob, ObjectRef, Place, Sha256, StoreName
from fediwarden.stores.interface import PAGE
from fediwarden.stores.naming import parts_of, shown

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a named pipe that takes a file's place between two calls must not hold the scan up
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY})
UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
RENAME_NOREPLACE = 1
REMOVING = ".removing"  # folders of ours inside the quarantine place; a spot never begins with a dot
REMOVED = ".removed"
WRITING = ".writing"


def _stamp(info: os.stat_result) -> str:
    return f"{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"


def _when(info: os.stat_result) -> datetime | None:
    try:
        return datetime.fromtimestamp(info.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):  # a year that the calendar does not have
        return None


def _open_below(folder: int, parts: Sequence[str]) -> int:
    """Open the folder at `parts` below the open `folder` without following a link; the caller closes it."""
    here = os.dup(folder)
    for part in parts:
        try:
            deeper = os.open(part, FOLDER, dir_fd=here)
        finally:
            os.close(here)
        here = deeper
    return here


@contextmanager
def _below(folder: int, parts: Sequence[str]) -> Generator[int]:
    here = _open_below(folder, parts)
    try:
        yield here
    finally:
        os.close(here)


class FolderReader:
    """A folder, read with no right to change it.

    `settle_seconds`: a file modified within that time is Unsettled; so is one that changes while it is read.
    `clock`: seconds since the epoch. `skipped_links`: symbolic links met by the last listing; they are not followed.
    """

    def __init__(
        self,
        name: StoreName,
        root: Path,
        quarantine: Path | None = None,
        *,
        settle_seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would follow links, absolute() keeps ".."
        self._quarantine = Path(os.path.abspath(quarantine)) if quarantine else beside(self._root)  # noqa: PTH100
        if self._root == self._quarantine or self._root.is_relative_to(self._quarantine):
            raise Misconfigured(
                f"the quarantine place {shown(str(self._quarantine))} contains the store itself",
                hint="choose a folder beside the store, or one inside it",
            )
        self._inside = str(self._quarantine.relative_to(self._root)) if self._quarantine.is_relative_to(self._root) else None
        self._settle = settle_seconds
        self._clock = clock
        self.skipped_links = 0

    @property
    def name(self) -> StoreName:
        """As `Reader.name`."""
        return self._name

    @property
    def requests(self) -> int:
        """A folder costs no requests."""
        return 0

    def close(self) -> None:
        """Nothing stays open between calls."""

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`. Folders that could not be read are told at the end, as Unreached, after all the others were listed."""
        self.skipped_links = 0
        unread: list[str] = []  # the first few; the rest is only counted
        missed = 0
        page: list[ObjectRef] = []
        pending = [""]  # folders still to be read, relative to the root; depth first, so that it stays short
        with self._opened() as root:
            while pending:
                at = pending.pop()
                inner: list[str] = []
                try:
                    folder = _open_below(root, at.split("/") if at else ())
                except OSError as error:
                    if not at or error.errno not in NOT_THERE:
                        missed += 1
                        unread.append(f"{shown(at)}: {error.strerror}")
                        del unread[3:]
                    continue
                try:
                    for ref in self._entries(folder, f"{at}/" if at else "", inner):
                        page.append(ref)
                        if len(page) == PAGE:
                            yield page
                            page = []
                except OSError as error:
                    missed += 1
                    unread.append(f"{shown(at)}: {error.strerror}")
                    del unread[3:]
                finally:
                    os.close(folder)
                pending.extend(inner)
        if page:
            yield page
        if missed:
            raise Unreached(
                f"{missed} folder{'s' if missed > 1 else ''} of {shown(str(self._root))} could not be read: {'; '.join(unread)}",
                hint="let the account that scans read every folder",
            )

    def between(self, after: str, until: str) -> Iterator[Sequence[ObjectRef]]:
        """As `Ordered.between`: folders that lie wholly outside are not opened. One that cannot be read is told at once."""
        low, high = os.fsencode(after), os.fsencode(until)
        page: list[ObjectRef] = []
        pending = [""]
        with self._opened() as root:
            while pending:
                at = pending.pop()
                inner: list[str] = []
                try:
                    folder = _open_below(root, at.split("/") if at else ())
                    try:
                        found = [*self._entries(folder, f"{at}/" if at else "", inner)]
                    finally:
                        os.close(folder)
                except OSError as error:
                    if at and error.errno in NOT_THERE:
                        continue
                    raise Unreached(f"the folder {shown(at)} could not be read: {error.strerror}") from error
                page += [ref for ref in found if low < os.fsencode(ref.key) < high]
                while len(page) >= PAGE:
                    yield page[:PAGE]
                    page = page[PAGE:]
                for path in inner:
                    below = os.fsencode(path) + b"/"
                    if below < high and (below > low or low.startswith(below)):
                        pending.append(path)
        if page:
            yield page

    def _entries(self, folder: int, prefix: str, inner: MutableSequence[str]) -> Iterator[ObjectRef]:
        """The regular files of one open folder; its folders are appended to `inner`."""
        name = self._name
        epoch = datetime.fromtimestamp
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file(follow_symlinks=False):
                        info = entry.stat(follow_symlinks=False)
                        size, modified = info.st_size, info.st_mtime
                        try:
                            when = epoch(modified, UTC)
                        except (ValueError, OverflowError, OSError):
                            when = None
                        yield ObjectRef(name, prefix + entry.name, size, f"{size}:{info.st_mtime_ns}:{info.st_ctime_ns}", when)
                    elif entry.is_dir(follow_symlinks=False):
                        if (path := prefix + entry.name) != self._inside:
                            inner.append(path)
                    elif entry.is_symlink():
                        self.skipped_links += 1
                except FileNotFoundError:
                    continue  # deleted since the folder was read

    def stat(self, key: str) -> ObjectRef:
        """As `Reader.stat`."""
        with self._reaching(key), self._parent(key) as (folder, last):
            info = os.stat(last, dir_fd=folder, follow_symlinks=False)
            if not modes.S_ISREG(info.st_mode):
                raise Gone(f"{shown(key)} is not a file")
            return self._ref(key, info)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """As `Reader.fetch`."""
        key = ref.key
        with self._reaching(key), self._parent(key) as (folder, last):
            if not modes.S_ISREG(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
                raise Gone(f"{shown(key)} is not a file")
            file = os.open(last, FILE, dir_fd=folder)
            try:
                before = os.fstat(file)
                if not modes.S_ISREG(before.st_mode):
                    raise Gone(f"{shown(key)} is not a file")
                if abs(self._clock() - before.st_mtime) < self._settle:
                    raise Unsettled(f"{shown(key)} was modified just now")
                if before.st_size > limit:
                    raise TooLarge(f"{shown(key)} has {before.st_size} bytes, more than the limit of {limit}")
                data = _read(file, before.st_size)
                if len(data) != before.st_size or _stamp(before) != _stamp(os.fstat(file)):
                    raise Unsettled(f"{shown(key)} changed while it was read")
            finally:
                os.close(file)
        return Blob.of(self._ref(key, before), data)

    def _ref(self, key: str, info: os.stat_result) -> ObjectRef:
        return ObjectRef(self._name, key, info.st_size, _stamp(info), _when(info))

    @contextmanager
    def _opened(self) -> Generator[int]:
        """The root, opened anew each time: a folder that vanished or was unmounted is noticed at once."""
        try:
            root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE):
                raise Unreached(f"the folder {shown(str(self._root))} gave no answer: {error.strerror}") from error
            raise Refused(
                f"the folder {shown(str(self._root))} cannot be opened: {error.strerror}",
                hint="check the path, that it is mounted, and that this account may read it",
            ) from error
        except ValueError as error:
            raise Refused(f"{shown(str(self._root))} cannot be a folder's name") from error
        try:
            yield root
        finally:
            os.close(root)

    @contextmanager
    def _parent(self, key: str) -> Generator[tuple[int, str]]:
        """The open folder that holds `key`, and the key's last component."""
        parts = parts_of(key)
        if parts is None or (self._inside is not None and (key + "/").startswith(self._inside + "/")):
            raise Gone(f"{shown(key)} names nothing in this store")
        with self._opened() as root, _below(root, parts[:-1]) as folder:
            yield folder, parts[-1]

    @contextmanager
    def _reaching(self, key: str) -> Generator[None]:
        """Turn what the system says about `key` into this program's errors."""
        try:
            yield
        except UnicodeEncodeError as error:  # a lone surrogate that no file name could have made
            raise Gone(f"{shown(key)} names nothing in this store") from error
        except OSError as error:
            if error.errno in NOT_THERE:
                raise Gone(f"{shown(key)} is not there") from error
            hint = "let the account that scans read it" if error.errno in FORBIDDEN else ""
            raise Unreached(f"{shown(key)} could not be read: {error.strerror}", hint=hint) from error


class FolderKeeper(FolderReader):
    """A folder with the right to hide. Needs write access to the folders of the objects and to the quarantine folder.

    The quarantine folder lies on the same file system, so that hiding is one rename: content, mode, owner, times and
    extended attributes are not touched, and there is no moment at which the object is in neither place. It is readable by
    its owner only. `public_url` is where a web server shows the root; `probe(url, sha256)` fetches as a stranger, which
    makes sense when the quarantine folder lies below the root.
    """

    def __init__(
        self,
        name: StoreName,
        root: Path,
        quarantine: Path | None = None,
        *,
        settle_seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
        public_url: str = "",
        probe: Callable[[str, str], bool | None] | None = None,
    ) -> None:
        super().__init__(name, root, quarantine, settle_seconds=settle_seconds, clock=clock)
        self._public_url = public_url
        self._probe = probe

    def hide(self, ref: ObjectRef, sha256: Sha256, spot: str) -> Place:
        """As `Keeper.hide`: rename first, hash what was moved, and move it back if it was not what was meant.

        Bytes that someone puts under the key after the rename are theirs: they are left alone, to be looked at next time.
        """
        key = ref.key
        with self._acting(key), self._quarantined() as place, _made(place, _spot(spot)[:-1]) as there:
            last = _spot(spot)[-1]
            held = _hash(there, last)
            with self._parent_or_none(key) as source:
                if held is None:
                    if source is None or not _is_file(*source):
                        raise Gone(f"{shown(key)} is neither in the store nor in its quarantine place")
                    _move(*source, there, last, ours=True)
                    held = self._hash_moved(key, there, last, spot)
                if held != sha256:
                    self._return(key, there, last, spot)
                    raise Changed(f"{shown(key)} holds other bytes now; they were left where they are")
                if source is not None:
                    self._hide_again(key, source, sha256, there, last)
            facts = _facts(there, last) | {"sha256": sha256}
        return Place(self._name, key, "moved", spot, facts)

    def _hide_again(self, key: str, source: tuple[int, str], sha256: Sha256, there: int, last: str) -> None:
        """After a crash the same bytes may lie under the key once more: a second upload, or the other half of a hard link."""
        number = 1
        while _hash(*source) == sha256:
            number += 1
            again = f"{last}.{number}"
            if _info(there, again) is not None:
                continue
            _move(*source, there, again, ours=True)
            if _hash(there, again) != sha256:
                self._return(key, there, again, again)
                return
            first, second = os.stat(last, dir_fd=there), os.stat(again, dir_fd=there)
            if first.st_ino == second.st_ino:
                os.unlink(again, dir_fd=there)

    def _hash_moved(self, key: str, there: int, last: str, spot: str) -> str | None:
        """Hash what was just moved; what cannot be read goes back at once, for nobody knows what it is."""
        try:
            return _hash(there, last)
        except OSError:
            self._return(key, there, last, spot)
            raise

    def _return(self, key: str, there: int, last: str, spot: str) -> None:
        """Put what was moved by mistake back, never over anything."""
        try:
            with self._opened() as root, _made(root, parts_of(key)[:-1], like_parent=True) as folder:  # type: ignore[index]
                _move(there, last, folder, key.rsplit("/", 1)[-1], ours=False)
        except FileExistsError as error:
            raise Changed(
                f"{shown(key)} was replaced twice just now; the bytes in between are kept at {shown(spot)} in the quarantine place",
                hint="compare the two and move the one you want back by hand",
            ) from error

    def remove(self, ref: ObjectRef, sha256: Sha256) -> Place:
        """As `Keeper.remove`. What is to be removed is renamed into the quarantine folder first, and only then unlinked."""
        key = ref.key
        trace = hashlib.sha256(f"{key}\0{sha256}".encode(errors="surrogateescape")).hexdigest()
        with (
            self._acting(key),
            self._quarantined() as place,
            _made(place, (REMOVING,)) as there,
            _made(place, (REMOVED,)) as done,
        ):
            held = _hash(there, trace)
            with self._parent_or_none(key) as source:
                if held is None and source is not None and _is_file(*source):
                    _move(*source, there, trace, ours=True)
                    held = self._hash_moved(key, there, trace, f"{REMOVING}/{trace}")
            if held is not None and held != sha256:
                self._return(key, there, trace, f"{REMOVING}/{trace}")
                held = None
                if _info(done, trace) is None:
                    raise Changed(f"{shown(key)} holds other bytes now; they were left where they are")
            if held is not None:
                _write(done, trace, json.dumps(_facts(there, trace)).encode())
                os.unlink(trace, dir_fd=there)
                os.fsync(there)
            try:
                facts = _load(done, trace)
            except FileNotFoundError as error:
                raise Gone(f"{shown(key)} is not in the store") from error
        return Place(self._name, key, "removed", "", facts)

    def restore(self, place: Place, sha256: Sha256) -> ObjectRef:
        """As `Keeper.restore`. Folders that have gone since are made again, with the mode and owner of the nearest one."""
        key = place.key
        if place.how != "moved" or not place.where:
            raise Gone(f"no hidden copy of {shown(key)} was kept", hint="restore it from the vault")
        parts = self._parts(key)
        with self._acting(key), self._quarantined() as quarantine, _made(quarantine, _spot(place.where)[:-1]) as there:
            last = _spot(place.where)[-1]
            held = _hash(there, last)
            if held is None:
                with self._parent_or_none(key) as source:
                    if source is None or _info(*source) is None:
                        raise Gone(
                            f"{shown(key)} is neither in the quarantine place nor in the store", hint="restore it from the vault"
                        )
                    return self._same(key, *source, sha256)
            if held != sha256:
                raise BadEvidence(f"the hidden copy of {shown(key)} is not what was hidden", hint="restore it from the vault")
            with self._opened() as root, _made(root, parts[:-1], like_parent=True) as folder:
                try:
                    _move(there, last, folder, parts[-1], ours=False)
                except FileExistsError:
                    self._same(key, folder, parts[-1], sha256)
                    os.unlink(last, dir_fd=there)  # the very bytes lie under the key
                    os.fsync(there)
                return self._same(key, folder, parts[-1], sha256)

    def put_back(self, place: Place, data: bytes) -> ObjectRef:
        """As `Keeper.put_back`. The file is finished and synced under a name of ours before it takes its place."""
        key = place.key
        parts = self._parts(key)
        sha256 = Sha256(hashlib.sha256(data).hexdigest())
        trace = hashlib.sha256(f"{key}\0{sha256}".encode(errors="surrogateescape")).hexdigest()
        with self._acting(key), self._quarantined() as quarantine, self._opened() as root:
            with _made(root, parts[:-1], like_parent=True) as folder:
                if _info(folder, parts[-1]) is None:
                    with _made(quarantine, (WRITING,)) as there:
                        _write(there, trace, data, place.facts)
                        try:
                            _move(there, trace, folder, parts[-1], ours=False)
                        except FileExistsError:
                            os.unlink(trace, dir_fd=there)
                back = self._same(key, folder, parts[-1], sha256)
            for left in (f"{REMOVED}/{trace}", f"{WRITING}/{trace}"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(left, dir_fd=quarantine)
        return back

    def hidden_copy(self, place: Place, limit: int) -> bytes:
        """As `Keeper.hidden_copy`."""
        key, parts = place.key, _spot(place.where)
        with self._acting(key), self._quarantined() as quarantine, _made(quarantine, parts[:-1]) as there:
            if not _is_file(there, parts[-1]):
                raise Gone(f"{shown(key)} is not in the quarantine place")
            file = os.open(parts[-1], FILE, dir_fd=there)
            try:
                data = _read(file, min(os.fstat(file).st_size, limit))
            finally:
                os.close(file)
        if len(data) > limit:
            raise TooLarge(f"the hidden copy of {shown(key)} has more bytes than the limit of {limit}")
        return data

    def is_public(self, place: Place) -> bool | None:
        """As `Keeper.is_public`; None unless the quarantine folder lies below the root and `public_url` says where that is shown."""
        if self._inside is None or not self._public_url or self._probe is None or not place.where:
            return None
        path = quote(f"{self._inside}/{place.where}".encode(errors="surrogateescape"))
        return self._probe(f"{self._public_url.rstrip('/')}/{path}", place.facts.get("sha256", ""))

    def _parts(self, key: str) -> tuple[str, ...]:
        parts = parts_of(key)
        if parts is None or (self._inside is not None and (key + "/").startswith(self._inside + "/")):
            raise Gone(f"{shown(key)} names nothing in this store")
        return parts

    def _same(self, key: str, folder: int, last: str, sha256: Sha256) -> ObjectRef:
        """The object as it is now, read back; Occupied if it is anything else than those bytes."""
        if not _is_file(folder, last) or _hash(folder, last) != sha256:
            raise Occupied(f"something else lies under {shown(key)}", hint="move it away first; neither was touched")
        return self._ref(key, os.stat(last, dir_fd=folder, follow_symlinks=False))

    @contextmanager
    def _parent_or_none(self, key: str) -> Generator[tuple[int, str] | None]:
        parts = self._parts(key)
        with self._opened() as root:
            try:
                folder = _open_below(root, parts[:-1])
            except OSError as error:
                if error.errno not in NOT_THERE:
                    raise
                yield None
                return
            try:
                yield folder, parts[-1]
            finally:
                os.close(folder)

    @contextmanager
    def _quarantined(self) -> Generator[int]:
        """The quarantine folder, made on first use, checked each time."""
        path = self._quarantine
        with self._opened() as root:
            device = os.fstat(root).st_dev
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
            place = os.open(path, FOLDER)
        except OSError as error:
            raise Misconfigured(
                f"the quarantine folder {shown(str(path))} cannot be used: {error.strerror}",
                hint="make it, owned by the account that applies, with mode 700, or set `quarantine` to another folder on the same file system",
            ) from error
        try:
            info = os.fstat(place)
            if info.st_dev != device:
                raise Misconfigured(
                    f"the quarantine folder {shown(str(path))} is not on the file system of the store",
                    hint="set `quarantine` to a folder on the same file system; one inside the store is left out of every scan",
                )
            if info.st_mode & 0o077:
                raise Misconfigured(f"the quarantine folder {shown(str(path))} is open to other users", hint="chmod 700 on it")
            yield place
        finally:
            os.close(place)

    @contextmanager
    def _acting(self, key: str) -> Generator[None]:
        """Turn what the system says while something is moved into this program's errors."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise Gone(f"{shown(key)} names nothing in this store") from error
        except OSError as error:
            raise _refusal(key, error) from error


def _refusal(key: str, error: OSError) -> FediwardenError:
    words = f"{shown(key)} could not be moved: {error.strerror}"
    if error.errno in FULL:
        return CannotWrite(words, hint="make room on the store's file system")
    if error.errno == errno.EXDEV:
        return Misconfigured(words, hint="set `quarantine` to a folder on the file system of the store")
    if error.errno in FORBIDDEN:
        return Refused(
            words, hint="the account that applies needs write access to the folder; look at `lsattr` and the mount options too"
        )
    if error.errno in NOT_THERE:
        return Gone(words)
    return Unreached(words)


def beside(root: Path) -> Path:
    """Where hidden objects of a folder lie unless the operator said otherwise: a sibling on the same file system."""
    return root.with_name(f"{root.name or 'root'}.quarantine")


def _spot(spot: str) -> tuple[str, ...]:
    parts = parts_of(spot)
    if parts is None or parts[0].startswith("."):
        raise Misconfigured(f"{shown(spot)} cannot be a place in quarantine")
    return parts


def _read(file: int, size: int) -> bytes:
    """Everything in an open file, or just more than `size` bytes of it; most files need one call and no copy."""
    data = os.read(file, size + 1)
    pieces, got = [data], len(data)
    while got <= size and (more := os.read(file, size + 1 - got)):
        pieces.append(more)
        got += len(more)
    return b"".join(pieces)


def _info(folder: int, last: str) -> os.stat_result | None:
    try:
        return os.stat(last, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise


def _is_file(folder: int, last: str) -> bool:
    info = _info(folder, last)
    return info is not None and modes.S_ISREG(info.st_mode)


def _hash(folder: int, last: str) -> str | None:
    """The SHA-256 of a file, read in pieces; "" for anything that is not a file, None where there is nothing."""
    info = _info(folder, last)
    if info is None:
        return None
    if not modes.S_ISREG(info.st_mode):
        return ""
    try:
        file = os.open(last, FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123 - a descriptor, not a path
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _made(folder: int, parts: Sequence[str], *, like_parent: bool = False) -> Generator[int]:
    """The folder at `parts`, made where it is missing: private, or with the mode and owner of the folder above it."""
    here = os.dup(folder)
    try:
        for part in parts:
            try:
                deeper = os.open(part, FOLDER, dir_fd=here)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=here)
                deeper = os.open(part, FOLDER, dir_fd=here)
                if like_parent:
                    above = os.fstat(here)
                    with contextlib.suppress(PermissionError):
                        os.fchown(deeper, above.st_uid, above.st_gid)
                    os.fchmod(deeper, modes.S_IMODE(above.st_mode))
                os.fsync(here)
            os.close(here)
            here = deeper
        yield here
    finally:
        os.close(here)


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    rename: Callable[[int, bytes, int, bytes, int], int] = call
    return rename


def _move(from_folder: int, name: str, to_folder: int, to: str, *, ours: bool) -> None:
    """Rename without ever replacing anything, and sync both folders. Raises FileExistsError where something is there.

    `ours` says that nobody else writes to the target folder, so that a look and a plain rename are as good. Where the
    system call is missing and the target folder is not ours, a hard link is what does not replace; the name it leaves
    behind is then in the folder that is ours.
    """
    rename = _renameat2()
    if rename is not None:
        failed = rename(from_folder, os.fsencode(name), to_folder, os.fsencode(to), RENAME_NOREPLACE) != 0
        code = ctypes.get_errno() if failed else 0
        if code and code not in UNSUPPORTED:
            raise OSError(code, os.strerror(code), name)
    if rename is None or code:
        if ours:
            if _info(to_folder, to) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to)
            os.rename(name, to, src_dir_fd=from_folder, dst_dir_fd=to_folder)
        else:
            os.link(name, to, src_dir_fd=from_folder, dst_dir_fd=to_folder, follow_symlinks=False)
            os.unlink(name, dir_fd=from_folder)
    os.fsync(to_folder)
    os.fsync(from_folder)


def _facts(folder: int, last: str) -> dict[str, str]:
    """What `put_back` needs to make the file again as it was."""
    file = os.open(last, FILE, dir_fd=folder)
    try:
        info = os.fstat(file)
        facts = {
            "mode": f"{modes.S_IMODE(info.st_mode):04o}",
            "uid": str(info.st_uid),
            "gid": str(info.st_gid),
            "mtime": str(info.st_mtime_ns),
        }
        with contextlib.suppress(OSError):  # a file system without extended attributes
            for attribute in os.listxattr(file):
                with contextlib.suppress(OSError):
                    facts[f"xattr:{attribute}"] = base64.b64encode(os.getxattr(file, attribute)).decode()
        return facts
    finally:
        os.close(file)


def _write(folder: int, last: str, data: bytes, facts: Mapping[str, str] | None = None) -> None:
    """A finished, synced file of ours in a folder of ours; what an earlier try left there is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(last, dir_fd=folder)
    file = os.open(last, NEW, 0o600, dir_fd=folder)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        _dress(file, facts or {})
        os.fsync(file)
    finally:
        os.close(file)
    os.fsync(folder)


def _dress(file: int, facts: Mapping[str, str]) -> None:
    """Give a file the owner, mode, attributes and time it had, as far as this account may."""
    if "uid" in facts and "gid" in facts:
        with contextlib.suppress(PermissionError):
            os.fchown(file, int(facts["uid"]), int(facts["gid"]))
    for name, value in facts.items():
        if name.startswith("xattr:"):
            with contextlib.suppress(OSError, binascii.Error):
                os.setxattr(file, name.removeprefix("xattr:"), base64.b64decode(value))
    if "mode" in facts:
        os.fchmod(file, int(facts["mode"], 8))
    if "mtime" in facts:
        os.utime(file, ns=(int(facts["mtime"]), int(facts["mtime"])))


def _load(folder: int, last: str) -> dict[str, str]:
    file = os.open(last, FILE, dir_fd=folder)
    with open(file, encoding="utf-8") as opened:  # noqa: PTH123 - a descriptor, not a path
        return {str(name): str(value) for name, value in json.load(opened).items()}
