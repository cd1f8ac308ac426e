"""The two promises a store can make: Reader looks and never changes anything, Keeper hides and restores.

What every implementation owes (`tests/contract/test_stores.py` holds it to that):

- Errors: `Unreached` for anything that may pass (time-outs, 5xx, SlowDown after back-off), `Refused` for an answer that
  will not change (credentials, missing bucket, host key), `Gone` only when the store is reachable and says that this
  object is not there. A missing bucket or root folder is `Refused`, never `Gone`.
- Keys are data: `..`, newlines, a thousand characters or bytes that are not UTF-8 name exactly one object or nothing.
- Thread safety: `list`, `fetch` and `stat` may be called from many threads at once (a scan lists, and counts ahead).
- Nothing prompts, and nothing is opened before the first call. `close` may be called twice.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from fediwarden.model import Blob, ObjectRef, Place, Sha256, StoreName

PAGE = 1000
IMPORTING = "importing"  # the fact of a place that is being restored: the pieces (aliases) that it brings, a line each


@runtime_checkable
class Reader(Protocol):
    """Looks at a store with credentials that need no right to change it."""

    @property
    def name(self) -> StoreName:
        """The name under which the ledger knows this store."""
        ...

    @property
    def requests(self) -> int:
        """Requests sent so far (round trips that a provider may bill; 0 for a folder)."""
        ...

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """Every object in pages of at most PAGE, lazily, the quarantine place left out; memory stays flat.

        Raises: Unreached, Refused. What was yielded before an error stands.
        """
        ...

    def stat(self, key: str) -> ObjectRef:
        """The object as it is now. Raises: Gone, Unreached, Refused."""
        ...

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """The whole object, at most `limit` bytes; the blob's ref carries the stamp of the bytes really read.

        Raises: Gone, TooLarge (before or while reading), Unsettled (still being written), Unreached, Refused. A body that
        is shorter than the store said is Unreached, never a Blob.
        """
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


@runtime_checkable
class Ordered(Protocol):
    """A reader that can list a stretch of its keys; what lies outside the stretch costs next to nothing."""

    def between(self, after: str, until: str) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`, of the keys whose UTF-8 bytes come after those of `after` and before those of `until`."""
        ...


@runtime_checkable
class Accounting(Protocol):
    """A reader that leaves out of its listing what another store accounts for."""

    @property
    def accounted(self) -> int:
        """How many objects the last listing that came to its end left out so."""
        ...


@runtime_checkable
class Proving(Protocol):
    """A reader of a store that lists from elsewhere than where its files lie, and so may list what it cannot read."""

    @property
    def name(self) -> StoreName:
        """As `Reader.name`."""
        ...

    def prove(self, ref: ObjectRef) -> None:
        """Have the store open the object's file, for a few requests and no more than its first byte.

        Raises: Gone, Lost (it knows the object and cannot read the file), Unreached, Refused.
        """
        ...


@runtime_checkable
class NewestFirst(Protocol):
    """A reader that can list what came in last, first; a caller that has seen enough stops reading."""

    def newest(self) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`, in the order in which objects came in, the newest first; their `modified` says about when."""
        ...


@runtime_checkable
class Keeper(Reader, Protocol):
    """Hides and restores, with credentials of its own. Only `actions` holds one.

    Every method may be called again after a crash at any point inside it, with the same arguments, and then completes or
    confirms what was begun: `spot` is chosen by the caller from the deed, so that the same deed finds its own traces.
    """

    def hide(self, ref: ObjectRef, sha256: Sha256, spot: str) -> Place:
        """Move the object, all versions of it, to `spot` in the quarantine place.

        Only bytes whose hash is `sha256` are moved. When this returns the key is gone at the source, the copy at the spot
        was read back and hashed, and metadata is kept. Raises: Changed (other bytes are there; they stay or are back
        there untouched), Gone (neither at the source nor at the spot), Unreached, Refused.
        """
        ...

    def remove(self, ref: ObjectRef, sha256: Sha256) -> Place:
        """Take the object away without a quarantine copy; the caller has sealed it. Errors as `hide`."""
        ...

    def restore(self, place: Place, sha256: Sha256) -> ObjectRef:
        """Move a hidden object back to its key, byte for byte, with its metadata; returns it as read back.

        Raises: Occupied (other bytes lie under the key), Gone (not at the spot nor at the key), Unreached, Refused.
        """
        ...

    def put_back(self, place: Place, data: bytes) -> ObjectRef:
        """Write `data` (opened from the vault) to the place's key with its metadata. Errors as `restore`."""
        ...

    def hidden_copy(self, place: Place, limit: int) -> bytes:
        """The bytes that lie at the spot of an object that was moved, whatever they are by now; nothing is changed.

        Raises: Gone (nothing is there), TooLarge, Unreached, Refused.
        """
        ...

    def is_public(self, place: Place) -> bool | None:
        """Whether a stranger without credentials can fetch the hidden copy; None where that cannot be asked."""
        ...


@runtime_checkable
class Piecewise(Keeper, Protocol):
    """A keeper that puts back piece by piece, as pict-rs imports alias after alias: what is back halfway can be taken away again."""

    def noted(self, place: Place, sha256: Sha256, earlier: Place | None) -> Place:
        """The place with a note of the pieces that `put_back` will bring, made before the first; nothing is changed.

        `earlier` is what was noted for a try that did not end: its pieces are ours, though they are there already.
        Raises: Occupied (other bytes lie where a piece belongs), Gone, Unreached, Refused.
        """
        ...

    def take_back(self, place: Place) -> None:
        """Take away again what an unfinished `put_back` of this noted place brought; returns once none of it is to be had.

        May be called again. Raises: Unreached (something is still there), Refused.
        """
        ...

    def others(self, place: Place, ref: ObjectRef, sha256: Sha256) -> Sequence[str]:
        """What else these bytes are to be had under, that is no piece of this noted place: of other people. Raises: Unreached, Refused."""
        ...
