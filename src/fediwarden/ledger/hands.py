"""Which deeds a living command is at just now, told by locks of the kernel, which end with the command however it ends; nothing here is on record."""

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from fediwarden.errors import Busy, CannotWrite, Misconfigured
from fediwarden.ledger.rows import clean, encoded
from fediwarden.model import Sha256, StoreName

_FLOCK = "hhqqi"  # struct flock: type, whence, start, length, process; of open file descriptions, the process is 0
_PLACES = 1 << 62  # bytes of the file that may be locked; none of them is ever written


class Hands:
    """The deeds in hand, each a locked byte of a file beside the ledger.

    Asking takes no lock, so it never makes a command fail. It answers for every process of this machine, containers included; a ledger
    that another machine reads too is not seen through: there, nothing is in hand.
    """

    def __init__(self, path: str | None) -> None:
        """
        Args:
            path: the file; None keeps it in memory, for a ledger that lies there as well.
        """
        self._path = path
        self._here: set[int] = set()

    @contextmanager
    def taken(self, store: StoreName, key: str, sha256: Sha256) -> Iterator[None]:
        """Have a deed in hand. Raises: Busy (somebody has it), CannotWrite."""
        place = _place(store, key, sha256)
        if self._path is None:
            self._here.add(place)
            try:
                yield
            finally:
                self._here.discard(place)
            return
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotWrite(
                f"cannot make {self._path}: {error.strerror}", hint="check who owns the folder of the ledger"
            ) from error
        try:
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, _at(fcntl.F_WRLCK, place))
            except BlockingIOError as error:
                raise Busy("another command is at the same object", hint="wait until it has ended") from error
            except OSError as error:
                raise CannotWrite(f"cannot lock {self._path}: {error.strerror}", hint="the ledger needs a local disk") from error
            try:
                yield
            finally:  # not left to closing: a child of ours may have the file too
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, _at(fcntl.F_UNLCK, place))
        finally:
            os.close(file)

    def has(self, store: StoreName, key: str, sha256: Sha256) -> bool:
        """Whether a living command has this deed in hand. Raises: Misconfigured."""
        place = _place(store, key, sha256)
        if self._path is None:
            return place in self._here
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Misconfigured(
                f"cannot read {self._path}: {error.strerror}", hint="it belongs to who owns the ledger"
            ) from error
        try:
            told = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _at(fcntl.F_WRLCK, place))
        except OSError as error:
            raise Misconfigured(
                f"cannot ask who locks {self._path}: {error.strerror}", hint="the ledger needs a local disk"
            ) from error
        finally:
            os.close(file)
        return bool(struct.unpack(_FLOCK, told)[0] != fcntl.F_UNLCK)


def _place(store: StoreName, key: str, sha256: Sha256) -> int:
    name = hashlib.sha256(b"\0".join((encoded(clean(store)), encoded(key), sha256.encode()))).digest()
    return int.from_bytes(name[:8], "big") % _PLACES


def _at(kind: int, place: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0)
