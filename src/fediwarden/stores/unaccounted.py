"""A bucket or folder of pict-rs' files, beside pict-rs itself: lists what pict-rs does not account for, and acts through pict-rs first.

Thumbnails and cached sizes of one picture are not looked at one by one, and no object is deleted behind pict-rs' back.
"""

import mimetypes
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event

from fediwarden.errors import Changed, Gone, Refused, TooLarge, Unreached, Unsettled
from fediwarden.model import Blob, Name, NameKind, ObjectRef, Place, Sha256, StoreName
from fediwarden.platforms.pictrs.hashes import key_time
from fediwarden.platforms.pictrs.repository import Repository
from fediwarden.platforms.pictrs.server import content_of
from fediwarden.platforms.pictrs.words import Item
from fediwarden.stores.interface import Keeper, Reader
from fediwarden.stores.naming import shown
from fediwarden.stores.pictrs import PURGE_SECONDS, PictrsKeeper, facts_of, facts_of_names
from fediwarden.stores.retry import Patience

HEALTH = "health-check"  # an empty object that pict-rs writes when it is asked whether it is well
THROUGH = "pictrs"  # the fact of a place that says: hidden through this pict-rs store


@dataclass(slots=True)
class Saved:
    """Objects that needed no look of their own."""

    originals: int = 0  # looked at as items of pict-rs
    variants: int = 0  # renderings of those: thumbnails and other sizes, the short film beside a picture


class Remainder:
    """Reads a store whose objects are pict-rs' files.

    With pict-rs' database, originals and variants are recognised by their keys and left to the pict-rs store. Without, nothing
    is left out; then an original costs a second fetch, but no second analysis, since the ledger knows its bytes.
    """

    def __init__(
        self,
        reader: Reader,
        repository: Repository | None,
        patience: Patience,
        clock: Callable[[], datetime],
        *,
        overlap: timedelta,
        owed: Callable[[], Collection[str]] = lambda: (),
    ) -> None:
        """
        Args:
            overlap: younger objects that pict-rs does not know may be uploads that it is still at work on.
            owed: keys that are owed already; those are never left out, lest they count as gone.
        """
        self._reader = reader
        self._repository = repository
        self._patience = patience
        self._clock = clock
        self._overlap = overlap
        self._owed = owed
        self.saved = Saved()
        self.accounted = 0  # as `Accounting`

    @property
    def name(self) -> StoreName:
        """As `Reader.name`."""
        return self._reader.name

    @property
    def requests(self) -> int:
        """As `Reader.requests`."""
        return self._reader.requests

    def close(self) -> None:
        """As `Reader.close`."""
        self._reader.close()
        if self._repository is not None:
            self._repository.close()

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`, without what pict-rs accounts for."""
        saved = Saved()
        owed = frozenset(self._owed())
        for page in self._reader.list():
            kinds = self._kinds([ref.key for ref in page])
            left = []
            for ref in page:
                kind = "" if ref.key in owed else kinds.get(ref.key, "")
                if kind == "original":
                    saved.originals += 1
                elif kind:
                    saved.variants += 1
                elif ref.key != HEALTH:
                    left.append(ref)
            if saved.originals + saved.variants > self.saved.originals + self.saved.variants:
                self.saved = replace(saved)  # another listing may be counting at the same time
            if left:
                yield left
        self.accounted = saved.originals + saved.variants

    def stat(self, key: str) -> ObjectRef:
        """As `Reader.stat`."""
        return self._reader.stat(key)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """As `Reader.fetch`; Unsettled for what pict-rs may be taking in just now."""
        made = key_time(ref.key) or ref.modified
        young = made is not None and self._clock() - made < self._overlap
        if young and self._repository is not None and not self._kinds([ref.key]):
            raise Unsettled(f"{shown(ref.key)} is new, and pict-rs does not know it yet")
        return self._reader.fetch(ref, limit)

    def _kinds(self, keys: Sequence[str]) -> dict[str, str]:
        repository = self._repository
        if repository is None:
            return {}
        return {key: kind for key, (kind, _) in self._patience.run(lambda: repository.resolve(keys)).items()}


class PlatformFirst:
    """Acts on a store whose objects are pict-rs' files: through pict-rs where it knows the bytes, else on the object itself.

    A variant is taken away by itself: purging it would take the original with it, which nobody sealed.
    """

    def __init__(
        self,
        keeper: Keeper,
        pictrs: PictrsKeeper,
        patience: Patience,
        *,
        known: Callable[[str], Sequence[Name]] = lambda key: (),
        remember: Callable[[ObjectRef], None] = lambda ref: None,
        holding: Callable[[Sha256], Sequence[str]] = lambda sha256: (),
        doubt: Callable[[Sha256], str] = lambda sha256: "",
        purge_seconds: float = PURGE_SECONDS,
    ) -> None:
        """
        Args:
            known, remember: as `PictrsKeeper`, for the keys of this store.
            holding: keys of the pict-rs store that hold these bytes, as the ledger knows; 0.4 cannot be asked.
            doubt: why pict-rs is not to be believed when it does not know these bytes; "" where it is.
            purge_seconds: how long pict-rs may take to delete the object.
        """
        self._keeper = keeper
        self._pictrs = pictrs
        self._stop: Event = patience.stop
        self._patience = patience
        self._known = known
        self._remember = remember
        self._holding = holding
        self._doubt = doubt
        self._purge_seconds = purge_seconds

    @property
    def name(self) -> StoreName:
        """As `Reader.name`."""
        return self._keeper.name

    @property
    def requests(self) -> int:
        """As `Reader.requests`."""
        return self._keeper.requests + self._pictrs.requests

    def close(self) -> None:
        """As `Reader.close`."""
        self._keeper.close()
        self._pictrs.close()

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`, everything."""
        return self._keeper.list()

    def stat(self, key: str) -> ObjectRef:
        """As `Reader.stat`."""
        return self._keeper.stat(key)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """As `Reader.fetch`; also of an item that was put back through pict-rs."""
        return self._pictrs.fetch(ref, limit) if ref.store == self._pictrs.name else self._keeper.fetch(ref, limit)

    def hide(self, ref: ObjectRef, sha256: Sha256, spot: str) -> Place:
        """As `Keeper.hide`; but what pict-rs knows is removed, so the caller has sealed it."""
        return self._through_pictrs(ref, sha256) or self._whichever(ref, lambda: self._keeper.hide(ref, sha256, spot))

    def remove(self, ref: ObjectRef, sha256: Sha256) -> Place:
        """As `Keeper.remove`."""
        return self._through_pictrs(ref, sha256) or self._whichever(ref, lambda: self._keeper.remove(ref, sha256))

    def _through_pictrs(self, ref: ObjectRef, sha256: Sha256) -> Place | None:
        """Purged through pict-rs, and done when the object is gone here too; None where pict-rs does not know it."""
        item = self._item(ref, sha256)
        if item is None:
            return None
        self._remember(replace(ref, names=item.names))
        place = self._pictrs.remove(ObjectRef(self._pictrs.name, item.key, ref.size, item.key, names=item.names), sha256)
        files = [key for key in place.facts.get("identifiers", "").split("\n") if key not in ("", item.motion)]
        for key in dict.fromkeys((ref.key, *files)):
            if not self._gone_within(key):
                # the same bytes twice, or a job of pict-rs failed: no row of it is left that means this file
                with suppress(Gone):
                    self._keeper.remove(self._keeper.stat(key), sha256)
        return self._place(ref.key, {**facts_of(item), **place.facts})

    def _whichever(self, ref: ObjectRef, act: Callable[[], Place]) -> Place:
        """What the plain keeper does; or, where nothing is left to do it to, what an earlier try had pict-rs do."""
        try:
            return act()
        except Gone:
            names = self._known(ref.key)
            if not any(name.kind is NameKind.ALIAS for name in names):
                raise
            return self._place(ref.key, facts_of_names(names))

    def restore(self, place: Place, sha256: Sha256) -> ObjectRef:
        """As `Keeper.restore`; what went through pict-rs lies in the vault alone. Raises: Gone."""
        return self._pictrs.restore(place, sha256) if THROUGH in place.facts else self._keeper.restore(place, sha256)

    def put_back(self, place: Place, data: bytes) -> ObjectRef:
        """As `Keeper.put_back`; what went through pict-rs comes back through it, and is an item of that store from then on."""
        return self._pictrs.put_back(place, data) if THROUGH in place.facts else self._keeper.put_back(place, data)

    def noted(self, place: Place, sha256: Sha256, earlier: Place | None) -> Place:
        """As `Piecewise.noted`."""
        return self._pictrs.noted(place, sha256, earlier) if THROUGH in place.facts else place

    def take_back(self, place: Place) -> None:
        """As `Piecewise.take_back`."""
        if THROUGH in place.facts:
            self._pictrs.take_back(place)

    def others(self, place: Place, ref: ObjectRef, sha256: Sha256) -> Sequence[str]:
        """As `Piecewise.others`."""
        item = self._item(ref, sha256) if THROUGH in place.facts else None
        return (
            () if item is None else self._pictrs.others(place, ObjectRef(self._pictrs.name, item.key, ref.size, item.key), sha256)
        )

    def hidden_copy(self, place: Place, limit: int) -> bytes:
        """As `Keeper.hidden_copy`."""
        return self._pictrs.hidden_copy(place, limit) if THROUGH in place.facts else self._keeper.hidden_copy(place, limit)

    def is_public(self, place: Place) -> bool | None:
        """As `Keeper.is_public`."""
        return None if THROUGH in place.facts else self._keeper.is_public(place)

    def _item(self, ref: ObjectRef, sha256: Sha256) -> Item | None:
        """What pict-rs knows these bytes as."""
        server = self._pictrs.server
        repository = server.repository
        if repository is not None:
            kind, item = self._patience.run(lambda: repository.resolve([ref.key])).get(ref.key, ("", None))
            if item is not None and kind == "original":
                content = content_of(item.key)
                if content is None or content[0] != sha256:
                    raise Changed(f"{shown(ref.key)} holds other bytes for pict-rs; they were left where they are")
                return item
            if item is not None:
                return None
        claimed = mimetypes.guess_type(ref.key)[0] or ""
        silent: Unreached | None = None
        try:
            found = self._patience.run(lambda: server.find(sha256, ref.size, claimed))
        except Refused:
            raise
        except Unreached as error:  # its listing cannot tell; the names on record may
            found, silent = None, error
        if found is not None and found.aliases:
            return found
        if silent is not None:
            for key in self._holding(sha256):
                with suppress(Gone):
                    return self._pictrs.item(key)
            raise silent
        if self._patience.run(lambda: server.version) == "0.4":
            for key in self._holding(sha256):
                if content_of(key) is not None:  # what the gate calls it, which 0.4 cannot be asked for
                    continue
                try:
                    item = self._pictrs.item(key)
                    if self._pictrs.fetch(self._pictrs.stat(key), max(ref.size, 1)).sha256 == sha256:
                        return item
                except (Gone, TooLarge):  # too large to be these bytes
                    continue
        purged_before = any(name.kind is NameKind.ALIAS for name in self._known(ref.key))  # noted by a try of ours, just before
        if not purged_before and (why := self._doubt(sha256)):
            raise Unreached(
                f"pict-rs does not know {shown(ref.key)}, and it would be hidden behind its back: {why}",
                hint=f"see that pict-rs has its database; then `fediwarden scan {self._pictrs.name}`, and apply again",
            )
        return None

    def _gone_within(self, key: str) -> bool:
        begun, pause = time.monotonic(), 0.05
        while True:
            try:
                self._keeper.stat(key)
            except Gone:
                return True
            if time.monotonic() - begun > self._purge_seconds or self._stop.wait(pause):
                return False
            pause = min(1.0, pause * 2)

    def _place(self, key: str, facts: dict[str, str]) -> Place:
        return Place(self.name, key, "removed", "", facts | {THROUGH: self._pictrs.name})
