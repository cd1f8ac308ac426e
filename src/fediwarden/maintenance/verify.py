"""Holds ledger, vault and stores against one another and says what does not agree; changes nothing but for what `mend` is told to."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256 as digest
from pathlib import Path

from fediwarden.errors import Exit, FediwardenError, Gone, Misconfigured, TooLarge, Unreached, Unsettled
from fediwarden.ledger import Ledger
from fediwarden.model import DeedEvent, DeedState, Sha256, StoreName
from fediwarden.stores.interface import Keeper
from fediwarden.vault import Examined, Manifest, Vaults, examine

DOWN_AFTER = 3  # objects in a row without an answer after which a store is asked no more


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One thing that does not agree, or could not be asked."""

    where: str  # "ledger", "vault" or "store"
    what: str  # a few stable words
    words: str
    exit: Exit  # what it makes of the command: INTERNAL where evidence is at stake, OK for a remark
    hint: str = ""
    store: StoreName | None = None
    key: str = ""
    sha256: Sha256 | None = None
    mended: bool = False


class Verify:
    """One comparison of everything. `findings` is called once; `counts` says afterwards how much was held against how much."""

    def __init__(
        self,
        ledger: Ledger,
        folders: Mapping[bool, Path],
        hold: Callable[[StoreName], Keeper],
        limit: int,
        *,
        stores: Collection[StoreName] | None = None,
        mend: Vaults | None = None,
    ) -> None:
        """
        Args:
            folders: the vault's folder under False, the one of drill pictures under True.
            hold: opens the keeper of a store; only its reading half is used.
            limit: the largest object in bytes, as in the scan.
            stores: ask these only; None asks every one that the record names.
            mend: the vaults to seal anew into what is damaged and still lies in a quarantine place; None mends nothing.
        """
        self.counts: Counter[str] = Counter()
        self._ledger = ledger
        self._folders = folders
        self._hold = hold
        self._limit = limit
        self._stores = stores
        self._mend = mend
        self._whole: dict[bool, set[Sha256]] = {False: set(), True: set()}
        self._lost: dict[tuple[bool, Sha256], tuple[Disagreement, Manifest | None]] = {}
        self._silent: Counter[StoreName] = Counter()
        self._automatic: dict[StoreName, tuple[FediwardenError, int]] = {}

    def findings(self) -> Iterator[Disagreement]:
        """Everything that does not agree. Raises: CannotWrite while mending."""
        yield from self._of_ledger()
        yield from self._of_vaults()
        self._of_sealings()
        yield from self._of_stores()
        for finding, _ in self._lost.values():
            yield finding
        for store, (error, number) in self._automatic.items():
            yield Disagreement(
                "store",
                "not asked",
                f"store {store}: {number:,} objects could not be asked for: {error}",
                error.exit,
                error.hint,
                store,
            )

    # -- ledger -------------------------------------------------------------------------------------------------------

    def _of_ledger(self) -> Iterator[Disagreement]:
        for line in self._ledger.maintenance.damage():
            yield Disagreement(
                "ledger",
                "damaged",
                f"the database says: {line}",
                Exit.INTERNAL,
                "keep the file aside, and bring back the last backup (`fediwarden backup FOLDER --restore`)",
            )
        for line in self._ledger.verify():
            yield Disagreement(
                "ledger", "record broken", line, Exit.INTERNAL, "keep the file, and compare it with a backup: somebody changed it"
            )
        for owed in self._ledger.owed():
            if owed.last is not None and owed.last.state is not DeedState.CHANGED:
                words = f"hiding was begun and got as far as {owed.last.state.value}" + (
                    f": {owed.last.problem}" if owed.last.problem else ""
                )
                yield Disagreement(
                    "ledger", "unfinished", words, Exit.FLAGGED, "`fediwarden apply` completes it", *_of(owed.last)
                )
        for event in self._ledger.maintenance.unfinished():
            words = f"restoring was begun and got as far as {event.state.value}" + (f": {event.problem}" if event.problem else "")
            hint = (
                "`fediwarden restore` completes it; what it may have brought back is owed, and `fediwarden apply` hides it again"
            )
            yield Disagreement("ledger", "unfinished", words, Exit.NOT_SCANNED, hint, *_of(event))
        for event in self._ledger.maintenance.words_left():
            yield Disagreement(
                "ledger",
                "word left over",
                "a restore that failed left a word that these bytes pass, though they never came back",
                Exit.NOT_SCANNED,
                "scans and the gate let them pass by it: `fediwarden restore` brings them back; docs/pict-rs.md says how to take the word back",
                *_of(event),
            )

    # -- vault --------------------------------------------------------------------------------------------------------

    def _of_vaults(self) -> Iterator[Disagreement]:
        for drill, folder in self._folders.items():
            left = 0
            for found in examine(folder):
                left += found.left_over
                if found.sha256 is None:
                    if not found.left_over:
                        yield Disagreement(
                            "vault",
                            "manifest unreadable",
                            found.problem,
                            Exit.INTERNAL,
                            f"put {found.path.name} back from a backup",
                        )
                    continue
                self.counts["sealed"] += 1
                if found.problem:
                    self._lost[drill, found.sha256] = (_altered(found), found.manifest)
                    continue
                self._whole[drill].add(found.sha256)
                if not self._ledger.maintenance.knows(found.sha256):
                    told = found.manifest
                    yield Disagreement(
                        "vault",
                        "no record",
                        "sealed, and the ledger does not know of it",
                        Exit.OK,
                        "the ledger is older than the vault, or a crash came between: its manifest says what it was",
                        told.store if told else None,
                        told.key if told else "",
                        found.sha256,
                    )
            if left:
                yield self._tidied(drill, left)

    def _tidied(self, drill: bool, left: int) -> Disagreement:
        words = f"{left:,} files that a crash left unfinished in {self._folders[drill]}"
        if self._mend is None:
            return Disagreement("vault", "left over", words, Exit.OK, "the next sealing, or --mend, completes or removes them")
        self._mend.of(drill=drill).tidy()
        return Disagreement("vault", "left over", words + "; completed or removed", Exit.OK, mended=True)

    def _of_sealings(self) -> None:
        for record in self._ledger.maintenance.sealed():
            self.counts["sealings"] += 1
            vaults = (False, True) if record.what in ("trace", "picture") else (record.drill,)
            if record.restored or any(record.sha256 in self._whole[drill] for drill in vaults):
                continue
            finding = Disagreement(
                "vault",
                "not sealed",
                f"a {record.what} is on record as sealed, and the vault does not have it",
                Exit.INTERNAL,
                f"put the files that begin with {record.sha256} back into the vault from a backup",
                record.store,
                record.key,
                record.sha256,
            )
            self._lost.setdefault((record.drill, record.sha256), (finding, None))

    # -- stores -------------------------------------------------------------------------------------------------------

    def _of_stores(self) -> Iterator[Disagreement]:
        keeping = self._ledger.maintenance
        for event in self._ledger.hidden():
            if event.state is DeedState.DONE and self._asked(event.store):
                self.counts["hidden"] += 1
                for finding in self._answers(event, self._hidden):
                    if keeping.stands(event):  # else somebody restored it meanwhile
                        yield finding
        for event in keeping.restored():
            if event.problem:
                continue  # a platform wrote it anew: those bytes lie nowhere
            entry = self._ledger.entry(event.store, event.key)
            if entry is None or entry.gone or entry.hidden or entry.sha256 != event.sha256 or not self._asked(event.store):
                continue  # deleted or replaced since, as the last listing saw
            self.counts["restored"] += 1
            for finding in self._answers(event, self._restored):
                if keeping.stands(event):
                    yield finding

    def _asked(self, store: StoreName) -> bool:
        return self._stores is None or store in self._stores

    def _answers(self, event: DeedEvent, ask: Callable[[Keeper, DeedEvent], Iterator[Disagreement]]) -> list[Disagreement]:
        store = event.store
        if store in self._automatic:
            error, number = self._automatic[store]
            if not isinstance(error, Unreached) or not error.retry or self._silent[store] >= DOWN_AFTER:
                self._automatic[store] = (error, number + 1)
                return []
        try:
            found = list(ask(self._hold(store), event))
        except (Unreached, Misconfigured) as error:
            self._silent[store] += 1
            self._automatic[store] = (error, self._automatic.get(store, (error, 0))[1] + 1)
            return []
        self._silent[store] = 0
        return found

    def _hidden(self, keeper: Keeper, event: DeedEvent) -> Iterator[Disagreement]:
        if self._lies(keeper, event.key, event.sha256):
            yield Disagreement(
                "store",
                "visible again",
                "it was hidden, and the very bytes lie under its key again",
                Exit.INTERNAL,
                "somebody uploaded or copied it again: `fediwarden scan`, then `fediwarden apply`",
                *_of(event),
            )
        place = event.place
        sealed = event.sha256 in self._whole[event.drill]
        if place is None:
            yield Disagreement(
                "ledger", "no place", "the record does not say where it was hidden", Exit.INTERNAL, "", *_of(event)
            )
        elif place.how == "moved":
            yield from self._copy(keeper, event, sealed=sealed)
            if keeper.is_public(place):
                yield Disagreement(
                    "store",
                    "public",
                    "the hidden copy can be fetched by anybody",
                    Exit.INTERNAL,
                    "make the quarantine place not public (docs/stores.md says how)",
                    *_of(event),
                )
        elif not sealed and (event.drill, event.sha256) not in self._lost:
            yield Disagreement(
                "vault",
                "only copy lost",
                "the store keeps no copy, and the vault does not have it",
                Exit.INTERNAL,
                "put it back into the vault from a backup",
                *_of(event),
            )

    def _copy(self, keeper: Keeper, event: DeedEvent, *, sealed: bool) -> Iterator[Disagreement]:
        assert event.place is not None  # noqa: S101 - the caller looked
        rest = (
            "the vault has it: `fediwarden restore KEY --identity FILE` brings it back from there"
            if sealed
            else "the vault does not have it either: look into a backup of the store or the vault"
        )
        try:
            data = keeper.hidden_copy(event.place, self._limit)
        except Gone:
            yield Disagreement("store", "copy missing", "its hidden copy is not there", Exit.INTERNAL, rest, *_of(event))
            return
        except TooLarge as error:
            yield Disagreement("store", "not compared", str(error), Exit.NOT_SCANNED, "raise [scan] max_object_mb", *_of(event))
            return
        if digest(data).hexdigest() != event.sha256:
            yield Disagreement("store", "copy altered", "its hidden copy has other bytes", Exit.INTERNAL, rest, *_of(event))
            return
        self._seal_again(event, data)

    def _seal_again(self, event: DeedEvent, data: bytes) -> None:
        """Put into the vault what it has lost or what is damaged there, from the hidden copy, whose hash was compared."""
        lost = self._lost.get((event.drill, event.sha256))
        if lost is None:
            return
        finding, manifest = lost
        vault = None if self._mend is None else self._mend.of(drill=event.drill)
        if vault is None:
            hint = "its hidden copy is whole: --mend seals it again from there"
            self._lost[event.drill, event.sha256] = (replace(finding, hint=hint), manifest)
            return
        if not finding.mended:  # else another object with these bytes came before, and lacks its manifest only
            vault.set_aside(event.sha256)
        because = dict(manifest.because) if manifest is not None else {"because": "sealed again from its hidden copy"}
        vault.seal(data, event.sha256, store=event.store, key=event.key, at=event.at, because=because)
        self._whole[event.drill].add(event.sha256)
        words = finding.words.partition(";")[0] + "; sealed again from its hidden copy"
        self._lost[event.drill, event.sha256] = (replace(finding, words=words, hint="", mended=True), manifest)

    def _restored(self, keeper: Keeper, event: DeedEvent) -> Iterator[Disagreement]:
        if not self._lies(keeper, event.key, event.sha256):
            yield Disagreement(
                "store",
                "not there",
                "it was restored, and those bytes do not lie under its key now",
                Exit.NOT_SCANNED,
                "`fediwarden scan` records it where its owner deleted or replaced it",
                *_of(event),
            )

    def _lies(self, keeper: Keeper, key: str, sha256: Sha256) -> bool:
        try:
            return keeper.fetch(keeper.stat(key), self._limit).sha256 == sha256
        except (Gone, TooLarge):  # what is larger than the scan fetches is not what was hidden
            return False
        except Unsettled as error:
            raise Unreached(f"{error}; ask again later") from error


def worst(codes: Collection[Exit]) -> Exit:
    """The exit code of several findings: evidence first, then the order of docs/exit-codes.md."""
    order = (Exit.INTERNAL, Exit.CONFIGURATION, Exit.UNREACHED, Exit.CANNOT_WRITE, Exit.FLAGGED, Exit.NOT_SCANNED)
    return next((code for code in order if code in codes), Exit.OK)


def _of(event: DeedEvent) -> tuple[StoreName, str, Sha256]:
    return event.store, event.key, event.sha256


def _altered(found: Examined) -> Disagreement:
    told = found.manifest
    return Disagreement(
        "vault",
        "sealed copy altered" if told is not None else "no manifest",
        found.problem,
        Exit.INTERNAL,
        f"put the files that begin with {found.sha256} back from a backup",
        told.store if told else None,
        told.key if told else "",
        found.sha256,
    )
