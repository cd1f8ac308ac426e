"""A store in a dictionary that keeps every promise of the interface, for tests; nothing in it survives the process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from threading import RLock

from fediwarden.errors import BadEvidence, Changed, Gone, Occupied, TooLarge, Unsettled
from fediwarden.model import Blob, ObjectRef, Place, Sha256, StoreName
from fediwarden.stores.interface import PAGE
from fediwarden.stores.naming import shown

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Kept:
    """One object as the memory store holds it."""

    data: bytes
    claimed: str = ""
    stamp: str = ""
    modified: datetime = EPOCH
    settled: bool = True

    @property
    def hash(self) -> Sha256:
        """The SHA-256 of the bytes."""
        return Sha256(sha256(self.data).hexdigest())


class MemoryStore:
    """Reader and Keeper at once.

    `before`, when set, is called as `before(step, key)` ahead of every step ("list", "stat", "fetch", "copy", "delete",
    "write"); what it raises goes to the caller, which is how tests make a bad day or a crash between any two steps.
    """

    def __init__(
        self,
        name: str = "memory",
        objects: Mapping[str, bytes] | None = None,
        *,
        before: Callable[[str, str], None] | None = None,
    ) -> None:
        self._name = StoreName(name)
        self._lock = RLock()
        self._objects: dict[str, Kept] = {}
        self._hidden: dict[str, Kept] = {}
        self._removed: dict[tuple[str, Sha256], Place] = {}
        self._changes = 0
        self._requests = 0
        self.before = before
        self.public = False  # whether a stranger could fetch from the quarantine place
        for key, data in (objects or {}).items():
            self.put(key, data)

    @property
    def name(self) -> StoreName:
        """As `Reader.name`."""
        return self._name

    @property
    def requests(self) -> int:
        """As `Reader.requests`; every step counts as one."""
        return self._requests

    @property
    def hidden(self) -> dict[str, bytes]:
        """What lies in the quarantine place, by spot."""
        with self._lock:
            return {spot: kept.data for spot, kept in self._hidden.items()}

    @property
    def objects(self) -> dict[str, bytes]:
        """What lies in the store, by key."""
        with self._lock:
            return {key: kept.data for key, kept in self._objects.items()}

    def put(self, key: str, data: bytes, claimed: str = "", *, settled: bool = True, modified: datetime = EPOCH) -> ObjectRef:
        """Write an object as an uploader would; `settled=False` makes `fetch` say that it is still being written."""
        with self._lock:
            self._changes += 1
            self._objects[key] = Kept(data, claimed, f"v{self._changes}", modified, settled)
            return self._ref(key)

    def settle(self, key: str) -> None:
        """Let the upload of `key` be finished."""
        with self._lock:
            self._objects[key] = replace(self._objects[key], settled=True)

    def delete(self, key: str) -> None:
        """Delete an object as its owner would."""
        with self._lock:
            self._objects.pop(key, None)

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`."""
        with self._lock:
            keys = list(self._objects)
        for start in range(0, len(keys), PAGE):
            self._step("list", "")
            with self._lock:
                page = [self._ref(key) for key in keys[start : start + PAGE] if key in self._objects]
            yield page

    def stat(self, key: str) -> ObjectRef:
        """As `Reader.stat`."""
        self._step("stat", key)
        with self._lock:
            return self._ref(key)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """As `Reader.fetch`."""
        self._step("fetch", ref.key)
        with self._lock:
            now = self._ref(ref.key)
            kept = self._objects[ref.key]
        if not kept.settled:
            raise Unsettled(f"{shown(ref.key)} is still being written")
        if now.size > limit:
            raise TooLarge(f"{shown(ref.key)} has {now.size} bytes, more than the limit of {limit}")
        return Blob.of(now, kept.data, kept.claimed)

    def close(self) -> None:
        """Nothing to give back."""

    def hide(self, ref: ObjectRef, sha256: Sha256, spot: str) -> Place:
        """As `Keeper.hide`."""
        key = ref.key
        place = Place(self._name, key, "moved", spot)
        self._step("copy", key)
        with self._lock:
            source, copy = self._objects.get(key), self._hidden.get(spot)
            if source is None and (copy is None or copy.hash != sha256):
                raise Gone(f"{shown(key)} is neither in the store nor in its quarantine place")
            if source is not None:
                if source.hash == sha256:
                    self._hidden[spot] = source
                elif copy is None or copy.hash != sha256:
                    raise Changed(f"{shown(key)} holds other bytes now")
        self._step("delete", key)
        with self._lock:
            now = self._objects.get(key)
            if now is not None and now.hash == sha256:
                del self._objects[key]
        return place

    def remove(self, ref: ObjectRef, sha256: Sha256) -> Place:
        """As `Keeper.remove`."""
        key = ref.key
        self._step("delete", key)
        with self._lock:
            source = self._objects.get(key)
            if source is None:
                if (key, sha256) in self._removed:
                    return self._removed[key, sha256]
                raise Gone(f"{shown(key)} is not in the store")
            if source.hash != sha256:
                if (key, sha256) in self._removed:
                    return self._removed[key, sha256]
                raise Changed(f"{shown(key)} holds other bytes now")
            place = Place(self._name, key, "removed", "", {"content-type": source.claimed})
            self._removed[key, sha256] = place
            del self._objects[key]
        return place

    def restore(self, place: Place, sha256: Sha256) -> ObjectRef:
        """As `Keeper.restore`."""
        self._step("copy", place.key)
        with self._lock:
            source, copy = self._objects.get(place.key), self._hidden.get(place.where)
            if source is not None and source.hash != sha256:
                raise Occupied(f"other bytes lie under {shown(place.key)}")
            if source is None:
                if copy is None:
                    raise Gone(f"{shown(place.key)} is neither in the quarantine place nor in the store")
                if copy.hash != sha256:
                    raise BadEvidence(f"the hidden copy of {shown(place.key)} is not what was hidden")
                self._changes += 1
                self._objects[place.key] = replace(copy, stamp=f"v{self._changes}")
        self._step("delete", place.key)
        with self._lock:
            self._hidden.pop(place.where, None)
            return self._ref(place.key)

    def put_back(self, place: Place, data: bytes) -> ObjectRef:
        """As `Keeper.put_back`."""
        self._step("write", place.key)
        with self._lock:
            source = self._objects.get(place.key)
            if source is None:
                self.put(place.key, data, place.facts.get("content-type", ""))
            elif source.data != data:
                raise Occupied(f"other bytes lie under {shown(place.key)}")
            self._removed.pop((place.key, self._objects[place.key].hash), None)
            return self._ref(place.key)

    def hidden_copy(self, place: Place, limit: int) -> bytes:
        """As `Keeper.hidden_copy`."""
        self._step("fetch", place.key)
        with self._lock:
            copy = self._hidden.get(place.where)
        if copy is None:
            raise Gone(f"{shown(place.key)} is not in the quarantine place")
        if len(copy.data) > limit:
            raise TooLarge(f"the hidden copy of {shown(place.key)} has {len(copy.data)} bytes, more than the limit of {limit}")
        return copy.data

    def is_public(self, place: Place) -> bool | None:
        """As `Keeper.is_public`: what the test set."""
        self._step("probe", place.key)
        return self.public

    def _step(self, step: str, key: str) -> None:
        with self._lock:
            self._requests += 1
        if self.before is not None:
            self.before(step, key)

    def _ref(self, key: str) -> ObjectRef:
        kept = self._objects.get(key)
        if kept is None:
            raise Gone(f"{shown(key)} is not in the store")
        return ObjectRef(self._name, key, len(kept.data), f"{len(kept.data)}:{kept.stamp}", kept.modified)
