"""pict-rs as a store: one item for each content, however many aliases and variants it has; hidden and restored through pict-rs itself.

Nothing is decided here, and no object of the bucket or folder behind pict-rs is touched: see `remainder` for what only that knows.

The key of an item is its hash (0.5), which tells SHA-256 and size; on 0.4, whose API knows no hashes, it is the alias that sorts
first. A read-only scan needs no API key where pict-rs' database may be read: originals are public.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256 as digest
from typing import TypeVar

from fediwarden.errors import Changed, Gone, Lost, Misconfigured, NotHidden, Occupied, Refused, TooLarge, Unreached
from fediwarden.model import Blob, Name, NameKind, ObjectRef, Place, Sha256, StoreName
from fediwarden.platforms.pictrs.hashes import Hash, namesakes
from fediwarden.platforms.pictrs.server import Server, content_of
from fediwarden.platforms.pictrs.words import Item
from fediwarden.stores.interface import IMPORTING
from fediwarden.stores.naming import shown
from fediwarden.stores.pictrs_walk import Walk
from fediwarden.stores.retry import Patience

T = TypeVar("T")

PURGE_SECONDS = 30.0  # how long a purge may wait in pict-rs' queue before it is left for the next `apply`
ASK_AGAIN = 0.05  # seconds until it is asked the first time whether the purge is done; doubled up to SELDOM
SELDOM = 1.0
TOKENLESS = (
    "it stays owed; the next `fediwarden apply` asks again. If it stays so: pict-rs deletes no alias without a delete token "
    "(docs/pict-rs.md), and one whose file is lost answers only when that is back"
)
CACHED = "a cache or CDN still has a copy: purge it there, then `fediwarden apply` again; it stays owed until then"


class PictrsReader:
    """Looks at one pict-rs."""

    def __init__(
        self,
        name: StoreName,
        server: Server,
        patience: Patience,
        *,
        overlap: timedelta = timedelta(seconds=60),
        aliases: Callable[[], Iterator[str]] | None = None,
        holding: Callable[[Sha256], Sequence[str]] = lambda sha256: (),
        known: Callable[[str], Sequence[Name]] = lambda key: (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        Args:
            overlap: how far listings by time reach back; at least pict-rs' external_validation_timeout.
            aliases: every alias there is, for 0.4, whose API lists nothing.
            holding: keys of this store under which these bytes were met, for 0.4, which cannot be asked for a content.
            known: the names that are on record for a key; they tell the aliases of what pict-rs cannot list any more, and after a
                crash what a purged item was.
            clock: the time, aware.
        """
        self._name = name
        self.server = server
        self._patience = patience
        self._overlap = overlap
        self._aliases = aliases
        self._holding = holding
        self._known = known
        self._clock = clock

    @property
    def name(self) -> StoreName:
        """As `Reader.name`."""
        return self._name

    @property
    def requests(self) -> int:
        """As `Reader.requests`; questions to pict-rs' database count as well."""
        return self.server.requests

    def close(self) -> None:
        """As `Reader.close`."""
        self.server.close()

    # -- listing ------------------------------------------------------------------------------------------------------

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`, the newest first (0.5). A listing that cannot be finished raises, so that nothing counts as gone.

        Items without any alias are left out: their purge is under way.
        """
        repository = self.server.repository
        if repository is not None:
            items, cursor = self._ask(repository.page)
            yield from self._refs(items)
            while cursor is not None:
                items, cursor = self._ask(lambda cursor=cursor: repository.page(cursor))  # type: ignore[misc]
                yield from self._refs(items)
        elif self._ask(lambda: self.server.version) == "0.4":
            yield from self._list_aliases()
        else:
            yield from self._list_hashes()

    def newest(self) -> Iterator[Sequence[ObjectRef]]:
        """As `NewestFirst.newest`. Raises: Refused for 0.4, which keeps no order."""
        if self._ask(lambda: self.server.version) == "0.4":
            raise Refused(f"{self._name} is a pict-rs 0.4, which cannot tell what is new")
        return self.list()

    def _refs(self, items: Sequence[Item]) -> Iterator[Sequence[ObjectRef]]:
        refs = [self._ref(item) for item in items if item.aliases]
        if refs:
            yield refs

    def _list_hashes(self) -> Iterator[Sequence[ObjectRef]]:
        """Walk by slug. A row of which pict-rs cannot tell is an object of its own page: what can be known of it is its key."""
        for step in Walk(self._name, self.server, self._ask, self._clock, self._overlap).steps():
            if step.unreadable:
                yield [self._ref(Item(step.unreadable, ()))]
            else:
                yield from self._refs(step.items)

    def _list_aliases(self) -> Iterator[Sequence[ObjectRef]]:
        """What 0.4 holds, as far as somebody else knows its aliases."""
        if self._aliases is None:
            raise Refused(
                f"{self._name} is a pict-rs 0.4, which cannot list what it holds",
                hint="tell [lemmy] how to reach Lemmy's database or API, which know the aliases; or scan the bucket or folder",
            )
        several: set[str] = set()  # of contents with more than one alias: the first
        page: list[ObjectRef] = []
        for alias in self._aliases():
            all_of_them = self._ask(lambda alias=alias: self.server.aliases(alias))  # type: ignore[misc]
            if not all_of_them:
                continue
            item = Item(min(all_of_them), tuple(sorted(all_of_them)))
            if len(all_of_them) > 1:
                if item.key in several:
                    continue
                several.add(item.key)
            try:
                page.append(self._measured(item))
            except Gone:
                continue
            if len(page) == 100:
                yield page
                page = []
        if page:
            yield page

    # -- single items -------------------------------------------------------------------------------------------------

    def stat(self, key: str) -> ObjectRef:
        """As `Reader.stat`."""
        item = self.item(key)
        return self._ref(item) if content_of(key) is not None else self._measured(item)

    def item(self, key: str) -> Item:
        """What pict-rs has under this key; where its listing cannot tell, by the aliases on record. Raises: Gone, Lost, Unreached, Refused."""
        try:
            item = None if not key or "\0" in key or len(key) > 1024 else self._ask(lambda: self._look_up(key))
        except Unreached as error:
            answered = error.__cause__ is None  # else no answer came at all, and none would come to this
            found = self._by_aliases(key) if answered and not isinstance(error, Refused) else None
            if found is None:
                raise
            return found
        if item is None or not item.aliases:
            raise Gone(f"pict-rs holds no {shown(key)}")
        return item

    def _by_aliases(self, key: str) -> Item | None:
        """The item as its aliases on record tell it, without the listing, which one object may fail; None where none of them is it."""
        for name in self._known(key):
            if name.kind is not NameKind.ALIAS:
                continue
            aliases = self._ask(lambda name=name: self.server.aliases(name.text))  # type: ignore[misc]
            if aliases and not self._names_another(name.text, key):
                return Item(key, aliases)
        return None

    def _names_another(self, alias: str, key: str) -> bool:
        """Whether an alias of the purged content was given to other bytes since."""
        try:
            item = self._ask(lambda: self.server.find_alias(alias))
        except Lost:
            return False
        return item is not None and content_of(item.key) != content_of(key)

    def _look_up(self, key: str) -> Item | None:
        old = self.server.version == "0.4"
        content = content_of(key)
        if content is not None:
            if old:
                return self._met_as(key, *content)
            found = (self.server.find_hash(name) for name in namesakes(bytes.fromhex(key)))
            return next((item for item in found if item is not None), None)
        if not old:
            return None
        item = self.server.find_alias(key)
        return None if item is None else replace(item, key=key)

    def _met_as(self, key: str, sha256: Sha256, size: int) -> Item | None:
        """What 0.4 has of bytes that the gate knows by their hash alone: under the aliases that a scan met them under."""
        aliases = [alias for alias in self._holding(sha256) if content_of(alias) is None]
        if not aliases:
            raise Refused("pict-rs 0.4 cannot be asked for a content by its hash", hint="a scan meets it under its alias")
        for alias in aliases:
            item = self.server.find_alias(alias)
            if item is None:
                continue
            try:
                data, _ = self.server.fetch(item.aliases[0], size)
            except (Gone, TooLarge):  # too large to be these bytes
                continue
            if digest(data).hexdigest() == sha256:
                return replace(item, key=key)
        return None

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """As `Reader.fetch`: by whichever alias answers. What comes is held to the hash that the key tells."""
        if ref.size > limit:
            raise TooLarge(f"{shown(ref.key)} has {ref.size} bytes, more than the limit of {limit}")
        content = content_of(ref.key)
        aliases = [name.text for name in ref.names if name.kind is NameKind.ALIAS]
        if content is not None and aliases:
            found = self._fetched(ref, aliases, content[0], limit)
            if found is not None:
                return found
        now = self.stat(ref.key)  # nobody told the aliases, or none of them is any more
        again = [name.text for name in now.names if name.kind is NameKind.ALIAS]
        found = self._fetched(now, again, content[0] if content else None, limit)
        if found is None:
            # 0.6 answers 404 for what its bucket has lost, as for what it does not know: whether it knows it tells the two apart
            if any(self._ask(lambda alias=alias: self.server.aliases(alias)) for alias in again):  # type: ignore[misc]
                raise self._lost(ref)
            raise Gone(f"pict-rs hands {shown(ref.key)} out under none of its aliases")
        return found

    def prove(self, ref: ObjectRef) -> None:
        """As `Proving.prove`, by the first alias that pict-rs knows: a file that is lost is so under all of them."""
        for name in ref.names or self.stat(ref.key).names:
            if name.kind is not NameKind.ALIAS:
                continue
            try:
                self._ask(lambda name=name: self.server.head(name.text))  # type: ignore[misc]
            except Gone:
                if self._ask(lambda name=name: self.server.aliases(name.text)):  # type: ignore[misc]
                    raise self._lost(ref) from None
                continue
            except TooLarge:  # the answer to the first byte was all of it
                return
            return
        raise Gone(f"pict-rs hands {shown(ref.key)} out under none of its aliases")

    def _lost(self, ref: ObjectRef) -> Lost:
        return Lost(f"pict-rs knows {shown(ref.key)}, and hands it out under none of its aliases: its file is not there")

    def _fetched(self, ref: ObjectRef, aliases: Sequence[str], sha256: Sha256 | None, limit: int) -> Blob | None:
        other = False
        for alias in aliases:
            try:
                data, content_type = self._ask(lambda alias=alias: self.server.fetch(alias, limit))  # type: ignore[misc]
            except Gone:
                continue
            blob = Blob.of(replace(ref, size=len(data)), data, content_type)
            if sha256 is None or blob.sha256 == sha256:
                return blob
            other = True
        if other:
            raise Unreached(f"pict-rs hands out other bytes for {shown(ref.key)} than those it is named after")
        return None

    def _ref(self, item: Item) -> ObjectRef:
        content = content_of(item.key)
        return ObjectRef(self._name, item.key, content[1] if content else 0, item.key, item.created, item.names)

    def _measured(self, item: Item) -> ObjectRef:
        """An item of 0.4, whose size only the original tells."""
        head = self._ask(lambda: self.server.head(item.aliases[0]))
        return ObjectRef(self._name, item.key, head.size, item.key, head.modified, item.names)

    def _ask(self, call: Callable[[], T]) -> T:
        return self._patience.run(call)


class PictrsKeeper(PictrsReader):
    """A pict-rs whose API key is known: purges and imports.

    pict-rs has no place to hide things in, so what is taken away lies in the vault alone; `hide` refuses.
    """

    def __init__(
        self,
        name: StoreName,
        server: Server,
        patience: Patience,
        *,
        overlap: timedelta = timedelta(seconds=60),
        holding: Callable[[Sha256], Sequence[str]] = lambda sha256: (),
        known: Callable[[str], Sequence[Name]] = lambda key: (),
        remember: Callable[[ObjectRef], None] = lambda ref: None,
        purge_seconds: float = PURGE_SECONDS,
    ) -> None:
        """
        Args:
            remember: puts the names of an item on record, before it is purged.
            purge_seconds: how long a purge may take.
        """
        super().__init__(name, server, patience, overlap=overlap, holding=holding, known=known)
        self._remember = remember
        self._purge_seconds = purge_seconds

    def hide(self, ref: ObjectRef, sha256: Sha256, spot: str) -> Place:
        """Refuses: nothing in pict-rs keeps an object and does not serve it. Raises: Misconfigured."""
        raise Misconfigured(
            f"pict-rs ({self._name}) has no place to hide {shown(ref.key)} in",
            hint="what is hidden there lies in the vault alone",
        )

    def remove(self, ref: ObjectRef, sha256: Sha256) -> Place:
        """As `Keeper.remove`: purged by alias, through pict-rs, with every alias and variant.

        An item that is not there any more and whose names are on record was purged by an earlier try: then this returns the same
        place again. pict-rs queues a purge; one that takes too long is Unreached, and stays owed. It is done when pict-rs knows none
        of the aliases and hands nothing out under them, and nothing lies at the public address of the file, noted beforehand.
        """
        try:
            item = self.item(ref.key)
        except Gone:
            names = self._known(ref.key)
            if not any(name.kind is NameKind.ALIAS for name in names):
                raise
            self._wait_until_gone(ref.key, _texts(names, NameKind.ALIAS), _texts(names, NameKind.ADDRESS))
            return self._place(ref.key, facts_of_names(names))
        content = content_of(item.key)
        blob = None if content else self.fetch(ref, max(ref.size, 256 << 20))
        if (content[0] if content else blob.sha256 if blob else "") != sha256:
            raise Changed(f"{shown(ref.key)} holds other bytes now; they were left where they are")
        item = self._whole(item, blob.claimed if blob else "")
        addresses = sorted({*_texts(self._known(ref.key), NameKind.ADDRESS), *self._addresses(item.aliases)})
        names = (*item.names, *(Name(NameKind.ADDRESS, address) for address in addresses))
        self._remember(replace(self._ref(item), key=ref.key, names=names))
        for alias in item.aliases:
            try:
                self._ask(lambda alias=alias: self.server.purge(alias))  # type: ignore[misc]
            except Gone:
                continue  # deleted meanwhile; the others name the same content
            break
        self._wait_until_gone(ref.key, item.aliases, addresses)
        return self._place(ref.key, facts_of(item))

    def _whole(self, item: Item, content_type: str) -> Item:
        """The item with what a listing does not tell."""
        if not item.identifier:
            item = replace(item, identifier=self._ask(lambda: self.server.identifier(item.aliases[0])) or "")
        return replace(item, content_type=item.content_type or content_type)

    def _addresses(self, aliases: Sequence[str]) -> list[str]:
        """Where the file is served from, if not by pict-rs itself: the first alias that answers tells."""
        for alias in aliases:
            try:
                address = self._ask(lambda alias=alias: self.server.address(alias))  # type: ignore[misc]
            except (Gone, Lost):
                continue
            return [address] if address else []
        return []

    def _wait_until_gone(self, key: str, aliases: Sequence[str], addresses: Sequence[str]) -> None:
        """Until nothing of it is to be had by anybody. Of a row without aliases nobody gets anything, so that is not waited for longer."""
        left: tuple[str, str] | None = None

        def gone() -> bool:
            nonlocal left
            left = self._left(key, aliases)
            return left is None and not self._served(addresses) and self._is_unlisted(key)

        self._wait(gone)
        if left is not None:
            raise Unreached(f"pict-rs took the purge of {shown(key)} and has not done it yet: {left[0]}", hint=left[1])
        if served := self._served(addresses):
            raise NotHidden(f"pict-rs has deleted {shown(key)}, and its file is still served from {shown(served)}", hint=CACHED)

    def _served(self, addresses: Sequence[str]) -> str:
        """The first of these addresses from which anybody can still fetch the file; "" where there is none."""
        return next((address for address in addresses if self._ask(lambda address=address: self.server.is_served(address))), "")  # type: ignore[misc]

    def _wait(self, done: Callable[[], bool]) -> None:
        """Until it is done, or the time of a purge is over."""
        begun = time.monotonic()
        pause = ASK_AGAIN
        while not done():
            if time.monotonic() - begun > self._purge_seconds or self._patience.stop.is_set():
                return
            self._patience.stop.wait(pause)
            pause = min(SELDOM, pause * 2)

    def _left(self, key: str, aliases: Sequence[str]) -> tuple[str, str] | None:
        """What pict-rs can still be asked for, and what to do about it. Whatever the listing says, each alias is asked for."""
        hashed = content_of(key) is not None and self._ask(lambda: self.server.version) != "0.4"
        for alias in aliases:
            if self._is_alive(alias) and not (hashed and self._names_another(alias, key)):
                return f"the alias {shown(alias)} is still there", TOKENLESS
        if hashed:
            try:
                item = self._ask(lambda: self.server.find_hash(bytes.fromhex(key)))
            except Refused:
                raise
            except Unreached:  # the listing cannot tell; the aliases did
                item = None
            if item is not None and item.aliases:
                return f"it is there under {shown(item.aliases[0])}", TOKENLESS
        return None

    def _is_alive(self, alias: str) -> bool:
        """Whether pict-rs knows the alias, or hands anything out under it. Lost is alive: its file may come back."""
        if self._ask(lambda: self.server.aliases(alias)):
            return True
        try:
            self._ask(lambda: self.server.head(alias))
        except Gone:
            return False
        except Lost:
            return True
        return True

    def _is_unlisted(self, key: str) -> bool:
        """Whether pict-rs is done with the row too, and with its files as far as can be asked; nothing of them is served any more."""
        if content_of(key) is None or self._ask(lambda: self.server.version) == "0.4":
            return True
        name = bytes.fromhex(key)
        repository = self.server.repository
        if repository is not None and self._ask(lambda: repository.holds(name)):
            return False
        return not self._ask(lambda: self.server.has_hash(name))

    def restore(self, place: Place, sha256: Sha256) -> ObjectRef:
        """As `Keeper.restore`; there is never a hidden copy. Raises: Gone."""
        raise Gone(f"no hidden copy of {shown(place.key)} was kept", hint="restore it from the vault")

    def noted(self, place: Place, sha256: Sha256, earlier: Place | None) -> Place:
        """As `Piecewise.noted`: which aliases will be imported. Those that hold these bytes already are left as they are."""
        begun = _lines(earlier, IMPORTING) if earlier is not None else []
        importing = []
        shell = self._shell(place)
        for alias in self._aliases_of(place):
            if alias in begun or alias in shell or not self._in_use(alias):
                importing.append(alias)
            elif self._stored(alias)[0] != sha256:
                raise Occupied(f"other bytes lie under the alias {shown(alias)}", hint="compare the two; nothing was imported")
        return replace(place, facts={**place.facts, IMPORTING: _joined(importing)})

    def take_back(self, place: Place) -> None:
        """As `Piecewise.take_back`: alias by alias, so that a content that others have too stays with them."""
        ours = _lines(place, IMPORTING)
        old = bool(ours) and self._ask(lambda: self.server.version) == "0.4"
        for alias in ours:
            all_of_them = self._ask(lambda alias=alias: self.server.aliases(alias))  # type: ignore[misc]
            if not all_of_them:
                continue
            if not old:
                self._ask(lambda alias=alias: self.server.delete(alias))  # type: ignore[misc]
            elif set(all_of_them) <= set(ours):  # 0.4 cannot delete one alias alone
                self._ask(lambda alias=alias: self.server.purge(alias))  # type: ignore[misc]
        left: list[str] = []

        def gone() -> bool:
            left[:] = [alias for alias in ours if self._is_alive(alias)]
            return not left

        self._wait(gone)
        if left:
            raise Unreached(f"pict-rs still has the alias {shown(left[0])}, which an unfinished restore imported", hint=TOKENLESS)

    def others(self, place: Place, ref: ObjectRef, sha256: Sha256) -> Sequence[str]:
        """As `Piecewise.others`."""
        try:
            aliases = self.item(ref.key).aliases
        except Gone:
            return ()
        return [alias for alias in aliases if alias not in _lines(place, IMPORTING)]

    def put_back(self, place: Place, data: bytes) -> ObjectRef:
        """As `Keeper.put_back`: imported under each of its aliases; returns what came of it, which may be other bytes.

        pict-rs may re-encode what it imports, as its settings say, and always muxes a video anew; then the returned item has another
        hash. Delete tokens are new, variants are made anew on demand, and a cached copy of a remote picture is an ordinary image from
        now on. What lies under an alias that was noted is of this restoring, or of an earlier try of it.
        """
        self._wait(lambda: not self._is_dying(place.key))
        self._cleared(place)
        try:
            return self._imported(place, data)
        except Lost:  # it was counted as the same content as a row that a killed purge had left, whose file is gone
            if not self._cleared(place):
                raise
            return self._imported(place, data)

    def _is_dying(self, key: str) -> bool:
        """Whether a row without aliases is left of it: the end of its purge is queued, and would take what is imported now along."""
        if content_of(key) is None or self._ask(lambda: self.server.version) == "0.4":
            return False
        try:
            item = self._ask(lambda: self.server.find_hash(bytes.fromhex(key)))
        except Refused:
            raise
        except Unreached:  # its file is lost, so that no listing tells of it
            return False
        return item is not None and not item.aliases

    def _cleared(self, place: Place) -> bool:
        """Have pict-rs delete rows of it whose file is gone; whether there were any. Raises: Unreached."""
        shell = self._shell(place)
        if shell:
            self._ask(lambda: self.server.purge(next(iter(shell))))
            self._wait(lambda: not any(map(self._is_alive, shell)) and self._is_unlisted(place.key))
        return bool(shell)

    def _imported(self, place: Place, data: bytes) -> ObjectRef:
        importing = _lines(place, IMPORTING)
        came = {Sha256(digest(data).hexdigest())}
        back: tuple[str, Sha256, int, str] | None = None
        for alias in sorted(
            self._aliases_of(place), key=self._in_use
        ):  # free ones first: they show what pict-rs makes of the bytes
            imported = not self._in_use(alias) and self._ask(
                lambda alias=alias: self.server.import_(alias, data, place.facts.get("content-type", ""))  # type: ignore[misc]
            )
            now, size, content_type = self._stored(alias, len(data))
            if not imported and now not in came and alias not in importing:
                raise Occupied(f"other bytes lie under the alias {shown(alias)}", hint="compare the two; neither was touched")
            came.add(now)
            back = back or (alias, now, size, content_type)
        assert back is not None  # noqa: S101 - there is an alias at least
        alias, now, size, content_type = back
        if self._ask(lambda: self.server.version) == "0.4":
            return self.stat(min(self._ask(lambda: self.server.aliases(alias))))
        item = self._ask(lambda: self.server.find_alias(alias))
        if item is None:
            raise Unreached(f"pict-rs imported {shown(place.key)} and does not list it")
        return self._ref(item)

    def _shell(self, place: Place) -> frozenset[str]:
        """The aliases of what is hidden, where pict-rs has them again and no file: it died over the purge, and its repository forgot that.

        What is imported would count as the same content and get no file either. Empty where somebody else has an alias of it too.
        """
        if self._ask(lambda: self.server.version) == "0.4":
            return frozenset()
        if content_of(place.key) is not None and not self._ask(lambda: self.server.has_hash(bytes.fromhex(place.key))):
            return frozenset()  # whatever lies under these aliases by now, it is other bytes
        ours = self._aliases_of(place)
        for alias in ours:
            known = frozenset(self._ask(lambda alias=alias: self.server.aliases(alias)))  # type: ignore[misc]
            if not known or not known <= set(ours):
                continue
            try:
                self._ask(lambda alias=alias: self.server.head(alias))  # type: ignore[misc]
            except Lost:
                return known
            except Gone:  # 0.6 answers 404 for what its bucket has lost
                return known
            except TooLarge:
                continue
        return frozenset()

    def _aliases_of(self, place: Place) -> list[str]:
        aliases = _lines(place, "aliases")
        if not aliases:
            raise Gone(f"nobody recorded under which aliases {shown(place.key)} was served", hint="import it by hand")
        return aliases

    def _stored(self, alias: str, size: int = 0) -> tuple[Sha256, int, str]:
        """The hash, the size and the type of what lies under an alias; `size` is that of what was sent, and may grow."""
        stored, content_type = self._ask(lambda: self.server.fetch(alias, max(size * 8, 1 << 28)))
        return Sha256(digest(stored).hexdigest()), len(stored), content_type

    def _in_use(self, alias: str) -> bool:
        return bool(self._ask(lambda: self.server.aliases(alias)))

    def hidden_copy(self, place: Place, limit: int) -> bytes:
        """As `Keeper.hidden_copy`; there is never one. Raises: Gone."""
        raise Gone(f"no hidden copy of {shown(place.key)} was kept", hint="the vault has it")

    def is_public(self, place: Place) -> bool | None:
        """As `Keeper.is_public`: there is no hidden copy."""
        return None

    def _place(self, key: str, facts: Mapping[str, str]) -> Place:
        return Place(self._name, key, "removed", "", facts)


def changed_by_import(key: str, place: Place) -> list[str]:
    """What cannot come back the same when this is imported, a line each; said before it is."""
    told = []
    if _is_video(key, place):
        told.append(
            "a video: pict-rs muxes it anew, so it comes back with other bytes, and without its sound where audio is not allowed"
        )
    if proxied := _lines(place, "proxied"):
        told.append(f"a cached copy of {shown(proxied[0])}: it comes back as an upload, and pict-rs fetches it anew all the same")
    if not _lines(place, "aliases"):
        told.append("nobody recorded under which aliases it was served: it cannot be imported")
    return told


def _is_video(key: str, place: Place) -> bool:
    """By the type that pict-rs served it as, or the format that its hash ends in; HEIC is a video to pict-rs."""
    if place.facts.get("content-type", "").startswith("video/"):
        return True
    try:
        return content_of(key) is not None and Hash.from_hex(key).content_type.startswith("video/")
    except ValueError:
        return False  # a format that is not known here


def facts_of(item: Item) -> dict[str, str]:
    """What a place has to remember of an item; several of a kind each on a line."""
    facts = {
        "aliases": _joined(item.aliases),
        "content-type": item.content_type,
        "created": item.created.isoformat() if item.created else "",
        "identifiers": _joined(key for key in (item.identifier, item.motion) if key),
        "variants": _joined(identifier for _, identifier in item.variants),
        "proxied": _joined(url for _, url in item.proxied),
    }
    return {name: value for name, value in facts.items() if value}


def facts_of_names(names: Sequence[Name]) -> dict[str, str]:
    """The same of an item that only its names on record tell about."""
    kinds = {
        "aliases": NameKind.ALIAS,
        "identifiers": NameKind.IDENTIFIER,
        "variants": NameKind.VARIANT,
        "proxied": NameKind.PROXIED,
    }
    found = {fact: _joined(name.text for name in names if name.kind is kind) for fact, kind in kinds.items()}
    return {fact: text for fact, text in found.items() if text}


def _texts(names: Iterable[Name], kind: NameKind) -> list[str]:
    return [name.text for name in names if name.kind is kind]


def _lines(place: Place, fact: str) -> list[str]:
    """A fact of several lines, as `facts_of` makes it."""
    return place.facts[fact].split("\n") if place.facts.get(fact) else []


def _joined(names: Iterable[str]) -> str:
    return "\n".join(sorted(set(names)))
