"""Does what the ledger says is owed, within the allowance, and undoes it; decides nothing and looks at no picture.

The order never changes: the ledger first (begun), then the vault (sealed), then the store (moved), then a reading back (done).
After a crash anywhere, the same call with the same deed finds its own traces and completes them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256 as digest
from pathlib import Path

import structlog

from fediwarden.acting.plan import Plan
from fediwarden.config import Profile
from fediwarden.errors import (
    BadEvidence,
    CannotWrite,
    Changed,
    FediwardenError,
    Gone,
    Lost,
    Misconfigured,
    NotHidden,
    Unreached,
)
from fediwarden.ledger import Ledger
from fediwarden.model import (
    Act,
    Decision,
    DeedEvent,
    DeedState,
    Look,
    ObjectRef,
    Owed,
    Place,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
    TraceRecord,
)
from fediwarden.stores.interface import Keeper, Piecewise
from fediwarden.vault import Vault, Vaults

log = structlog.get_logger("fediwarden")

RESTORED = "restored by a person"  # the rule of the word that a restore gives
DOWN_AFTER = 3  # deeds in a row that met no answer after which a store is left alone for the run; each has waited for its tries


class Outcome(StrEnum):
    """What came of one deed."""

    DONE = "done"
    CHANGED = "changed"  # other bytes lie there now; looked at again by the next scan
    GONE = "gone"  # somebody else took it away before anything was sealed
    FAILED = "failed"  # still owed
    SHARED = "shared"  # what a restore had left is taken back; others have these bytes too, and that is still owed


@dataclass(frozen=True, slots=True)
class Result:
    """One deed's outcome in words."""

    store: StoreName
    key: str
    sha256: Sha256
    outcome: Outcome
    problem: str = ""
    hint: str = ""
    drill: bool = False
    unreached: bool = False  # it failed because the store gave no answer, or refused
    silent: bool = False  # it gave none at all, after every try
    trace: str = ""  # why no trace could be sealed; hiding goes on without
    altered: Sha256 | None = None  # what a platform made of the bytes that were put back, where it wrote them anew


class _Others(FediwardenError):
    """What an unfinished restoring had brought back is taken away; the same bytes are there for others, and nobody agreed to that."""


def spot_of(store: StoreName, key: str, sha256: Sha256) -> str:
    """Where in the quarantine place an object lies: told by its content and its name, so that a rerun finds it."""
    name = digest(f"{store}\n{key}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{sha256[:2]}/{sha256}-{name}"


@dataclass(frozen=True, slots=True)
class Custody:
    """A keeper, and what it does to what it hides.

    `removes` says that hidden objects are kept in the vault only. `platform` says that a program such as pict-rs does it:
    it may remove whatever was chosen, and may write pictures anew when they are put back.
    """

    keeper: Keeper
    removes: bool = False
    platform: bool = False


class Executor:
    """The sole holder of keepers and vaults."""

    def __init__(
        self,
        ledger: Ledger,
        run: RunId,
        hold: Callable[[StoreName], Custody],
        vaults: Vaults | None,
        profile: Profile,
        clock: Callable[[], datetime],
        actor: str,
        object_limit: int,
        seal_trace: Callable[[Owed], str] | None = None,
    ) -> None:
        """
        Args:
            hold: opens the keeper of a store when it is first needed.
            vaults: None where nothing is sealed.
            profile: says whether bytes are sealed at all.
            actor: who does it, for the record.
            object_limit: the largest object in bytes, as in the scan.
            seal_trace: seals who is behind an object before it is hidden, and says why it could not; "" where it could.
        """
        self._ledger = ledger
        self._run = run
        self._hold = hold
        self._vaults = vaults
        self._profile = profile
        self._clock = clock
        self._actor = actor
        self._limit = object_limit
        self._seal_trace = seal_trace

    @property
    def run(self) -> RunId:
        """The run that everything done here is recorded under."""
        return self._run

    # -- hiding -------------------------------------------------------------------------------------------------------

    def apply(self, plan: Plan, agreed: Callable[[Owed], bool] = lambda _: False) -> Iterator[Result]:
        """Hide what the plan holds, one after another; a failure is a result and the next goes on.

        What a restoring left is taken back alias by alias; what others have under aliases of their own goes with it only where a
        person agreed to that (`agreed`), and is SHARED otherwise.

        Raises:
            CannotWrite: ledger or vault can take no more. The object at hand was not touched.
            Misconfigured: a vault or a keeper's credentials are missing; raised when all others were tried.
        """
        unfit: list[Misconfigured] = []
        silent: Counter[StoreName] = Counter()
        for planned in plan.todo:
            owed = self._still(planned)
            if silent[planned.ref.store] >= DOWN_AFTER:
                result = Result(
                    planned.ref.store,
                    planned.ref.key,
                    planned.sha256,
                    Outcome.FAILED,
                    "the store stopped answering",
                    unreached=True,
                )
            elif owed is None:
                problem = "decided anew since this was planned; nothing was done"
                result = Result(planned.ref.store, planned.ref.key, planned.sha256, Outcome.CHANGED, problem)
            else:
                result = self._hide(owed, unfit, agreed=agreed(planned))
                silent[result.store] = silent[result.store] + 1 if result.silent else 0
            _log(result)
            yield result
        if unfit:
            raise unfit[0]

    def _still(self, planned: Owed) -> Owed | None:
        """What the ledger says of it now: a scan, a new policy or a person may have spoken since the plan was made."""
        entry = self._ledger.entry(planned.ref.store, planned.ref.key)
        if entry is None or entry.sha256 != planned.sha256 or entry.decision is None or entry.decision_id is None:
            return None
        if entry.decision.step is not Step.QUARANTINE or entry.decision.drill != planned.decision.drill:
            return None
        return replace(planned, decision=entry.decision, decision_id=entry.decision_id)

    def _hide(self, owed: Owed, unfit: list[Misconfigured], *, agreed: bool) -> Result:
        ref, sha256, drill = owed.ref, owed.sha256, owed.decision.drill
        event = DeedEvent(
            Act.HIDE, DeedState.BEGUN, ref.store, ref.key, sha256, owed.decision_id, self._actor, self._clock(), drill
        )
        self._did(event, DeedState.BEGUN)
        trace = ""
        left = None if owed.last is None else self._ledger.left_by_restore(ref.store, ref.key, sha256)
        try:
            hold = self._hold(ref.store)
            if self._profile.keep != "preserve":
                self._may_remove(hold, ref.store)
            else:
                self._seal(event, owed, hold.keeper)
                trace = "" if left else self._traced(owed)
            place = self._take_away(hold, owed, left, agreed=agreed or drill)
            self._did(event, DeedState.MOVED, place)
            self._confirm_hidden(hold.keeper, place, sha256)
        except Changed as error:
            self._did(event, DeedState.CHANGED, problem=str(error))
            return _result(event, Outcome.CHANGED, error)
        except Gone as error:
            if self._moved_before(ref, sha256):
                lost = FediwardenError(
                    f"an earlier try hid it, and it is not in the quarantine place now: {error}",
                    hint="if stores.NAME.quarantine was changed, set it back; what was sealed can be restored from the vault",
                )
                self._did(event, DeedState.FAILED, problem=str(lost))
                return _result(event, Outcome.FAILED, lost)
            if (doubt := self._ledger.watching.doubt(ref.store)) is not None:
                missing = Unreached(f"{error}; but {doubt.words}", hint="it stays owed until the store can be believed")
                self._did(event, DeedState.FAILED, problem=str(missing))
                return _result(event, Outcome.FAILED, missing)
            self._did(event, DeedState.CHANGED, problem=f"gone before it was sealed: {error}")
            self._ledger.record(self._run, [(Look(ref, Standing.GONE, self._clock(), problem=str(error)), None)])
            return _result(event, Outcome.GONE, error)
        except CannotWrite:
            raise
        except _Others as error:
            self._did(event, DeedState.FAILED, problem=str(error))
            return _result(event, Outcome.SHARED, error)
        except FediwardenError as error:
            if isinstance(error, Misconfigured):
                unfit.append(error)
            self._did(event, DeedState.FAILED, problem=str(error))
            return _result(event, Outcome.FAILED, error)
        except Exception as error:  # the unknown: this object stays owed, the others go on
            log.exception("hiding failed", store=ref.store, key=ref.key, sha256=sha256)
            ours = FediwardenError(f"an error of ours while hiding ({type(error).__name__})", hint="the log has the details")
            self._did(event, DeedState.FAILED, problem=str(ours))
            return _result(event, Outcome.FAILED, ours)
        self._did(event, DeedState.DONE, place)
        return replace(_result(event, Outcome.DONE), trace=trace)

    def _may_remove(self, hold: Custody, store: StoreName) -> None:
        """Nothing is sealed: only what is moved may be hidden. Raises: Misconfigured."""
        if hold.platform:
            raise Misconfigured(
                f"store {store} is hidden through pict-rs, which destroys, and profile {self._profile.name} seals nothing: "
                "the only copy would be lost",
                hint="a profile that keeps evidence is a legal decision (docs/profiles.md); without, remove it by hand in pict-rs",
            )
        if hold.removes:
            raise Misconfigured(
                f'store {store} has hide = "remove", and profile {self._profile.name} seals nothing: the only copy would be destroyed',
                hint='set hide = "move" for this store',
            )

    def _traced(self, owed: Owed) -> str:
        """Seal who is behind it; what goes wrong is put on record and never keeps an object in public reach."""
        if self._seal_trace is None or owed.decision.drill:
            return ""
        try:
            return self._seal_trace(owed)
        except Exception as error:  # the unknown, in something that hiding does not depend on
            log.exception("no trace was sealed", store=owed.ref.store, key=owed.ref.key, sha256=owed.sha256)
            problem = str(error) if isinstance(error, FediwardenError) else f"an error of ours ({type(error).__name__})"
            record = TraceRecord(self._clock(), self._actor, "it is being hidden", owed.ref.key, owed.sha256, problem=problem)
            self._ledger.platforms.traced(self._run, record)
            return problem

    def _vault(self, *, drill: bool) -> Vault:
        if self._vaults is None:
            raise Misconfigured("this profile keeps no bytes, so there is no vault", hint="`keep` of the profile says so")
        return self._vaults.of(drill=drill)

    def _moved_before(self, ref: ObjectRef, sha256: Sha256) -> bool:
        hidden = self._ledger.hidden(key=ref.key, store=ref.store)
        return any(earlier.sha256 == sha256 for earlier in hidden)

    def _seal(self, event: DeedEvent, owed: Owed, keeper: Keeper) -> None:
        vault = self._vault(drill=owed.decision.drill)
        try:
            blob = keeper.fetch(owed.ref, self._limit)
        except (Gone, Lost):
            if vault.check(owed.sha256):
                return  # an earlier try sealed it and moved it, or pict-rs died over the purge and kept the row; `hide` confirms that
            raise
        if blob.sha256 != owed.sha256:
            if owed.last is not None and vault.check(owed.sha256):
                return  # an earlier try may have moved it before these bytes came; `hide` knows, and leaves them alone
            raise Changed(f"other bytes lie under this key now (sha256 {blob.sha256[:12]})", hint="the next scan looks at them")
        because = {
            "rule": owed.decision.rule,
            "because": owed.decision.because,
            "policy": owed.decision.policy,
            "content-type": blob.claimed,
        }
        vault.seal(blob.data, blob.sha256, store=owed.ref.store, key=owed.ref.key, at=self._clock(), because=because)
        self._did(event, DeedState.SEALED)

    def _take_away(self, hold: Custody, owed: Owed, left: tuple[DeedEvent, DeedEvent] | None, *, agreed: bool) -> Place:
        """Hide it. Where an unfinished restoring left some of it back (`left`), that goes first, and it is on record as hidden before.

        Raises: _Others, where others have it too and nobody agreed to that.
        """
        if left is None:
            return self._hidden_at(hold, owed)
        restoring, hidden = (event.place for event in left)
        if restoring is not None and isinstance(hold.keeper, Piecewise):
            hold.keeper.take_back(restoring)
            others = () if agreed else hold.keeper.others(restoring, owed.ref, owed.sha256)
            if others:
                raise _Others(
                    f"what the restore had brought back is gone again; others have the same bytes, under {len(others):,} of their own",
                    hint="`fediwarden apply --shared` hides that too",
                )
        place = self._hidden_at(hold, owed)
        if hidden is not None and hidden.how == place.how == "removed":
            facts = {**place.facts, **hidden.facts}
            for fact in (
                place.facts.keys() & hidden.facts.keys() & {"aliases", "proxied"}
            ):  # all its names, not those alone that were back
                facts[fact] = "\n".join(sorted({*place.facts[fact].split("\n"), *hidden.facts[fact].split("\n")}))
            return replace(place, facts=facts)
        return place

    def _hidden_at(self, hold: Custody, owed: Owed) -> Place:
        ref, sha256 = owed.ref, owed.sha256
        try:
            if hold.removes:
                return hold.keeper.remove(ref, sha256)
            return hold.keeper.hide(ref, sha256, spot_of(ref.store, ref.key, sha256))
        except Gone:
            # an earlier try sealed it, and was cut off, or not waited for, while the store removed it
            if owed.last is not None and (hold.removes or hold.platform) and self._vault(drill=owed.decision.drill).check(sha256):
                return Place(ref.store, ref.key, "removed", "")
            raise

    def _confirm_hidden(self, keeper: Keeper, place: Place, sha256: Sha256) -> None:
        """Read back: gone at the source (or other bytes came since), and nothing a stranger can fetch."""
        try:
            again = keeper.fetch(keeper.stat(place.key), self._limit)
        except Gone:
            pass
        else:
            if again.sha256 == sha256:
                raise NotHidden("the object can still be read at its place after it was hidden")
        if place.how == "moved" and keeper.is_public(place):
            raise NotHidden(
                "the hidden copy can be fetched by anybody",
                hint="make that place not public (docs/stores.md says how), then apply again",
            )

    # -- restoring ----------------------------------------------------------------------------------------------------

    def restore(self, hidden: DeedEvent, identities: Sequence[Path], because: str) -> Result:
        """Put a hidden object back, byte for byte, from the quarantine place, or from the vault with one of its private keys.

        The begun deed lets these bytes pass the gate, while this runs and this process lives. A person's word that they pass for good goes into the
        ledger together with *done*. What a failed restore brought back is hidden again at once, and owed where that fails.

        Raises:
            CannotWrite: the ledger can take no more; what may be back is owed.
            Misconfigured: only the vault holds the bytes and no identity was given, or none that opens it.
            BadEvidence: what the vault holds is not what was sealed.
            Busy: somebody else is at it.
        """
        if hidden.place is None:
            raise BadEvidence(f"the record of {hidden.key!r} does not say where it lies", hint="run `fediwarden vault verify`")
        event = replace(
            hidden, act=Act.RESTORE, state=DeedState.BEGUN, actor=self._actor, at=self._clock(), place=None, problem=""
        )
        with self._ledger.restoring(event):
            return self._restore(hidden, event, identities, because)

    def _restore(self, hidden: DeedEvent, event: DeedEvent, identities: Sequence[Path], because: str) -> Result:
        assert hidden.place is not None  # noqa: S101 - `restore` has seen to it
        self._did(event, DeedState.BEGUN)
        told = False  # whether anything may be back
        try:
            hold = self._hold(hidden.store)
            data = self._opened(hidden.place, hidden.sha256, identities, drill=hidden.drill)
            place = self._noted(hold.keeper, hidden, hidden.place)
            self._did(event, DeedState.MOVED, place)
            told = True
            ref = self._bring_back(hold.keeper, place, hidden.sha256, data, identities, drill=hidden.drill)
            blob = hold.keeper.fetch(ref, self._limit)
            if blob.sha256 != hidden.sha256 and not hold.platform:
                raise Changed("what was read back is not what was hidden")  # noqa: TRY301 - one answer for all that can go wrong here
        except CannotWrite:
            raise
        except FediwardenError as error:
            result = self._not_restored(event, hidden.place, error, told=told)
            if isinstance(error, BadEvidence | Misconfigured):
                raise
        except Exception as error:  # the unknown: no word was given, and what may be back is taken away again
            log.exception("restoring failed", store=hidden.store, key=hidden.key, sha256=hidden.sha256)
            ours = FediwardenError(f"an error of ours while restoring ({type(error).__name__})", hint="the log has the details")
            result = self._not_restored(event, hidden.place, ours, told=told)
        else:
            result = self._restored(event, hidden.place, ref, blob.sha256, because)
        _log(result)
        return result

    def _restored(self, event: DeedEvent, place: Place, ref: ObjectRef, sha256: Sha256, because: str) -> Result:
        """Done, with a person's word on the bytes, and on what a platform made of them: else the next scan hides it again."""
        word = Decision(Step.PASS, RESTORED, because, by=self._actor)
        result = _result(event, Outcome.DONE)
        if sha256 != event.sha256:
            problem = f"the platform wrote it anew: it came back with other bytes (sha256 {sha256[:12]})"
            result = replace(result, problem=problem, altered=sha256)
        done = replace(event, state=DeedState.DONE, at=self._clock(), place=place, problem=result.problem)
        words = dict.fromkeys((event.sha256, sha256), word)
        self._ledger.restored(self._run, done, words, ref if result.altered else None)
        return result

    def _not_restored(self, event: DeedEvent, place: Place, error: FediwardenError, *, told: bool) -> Result:
        """Failed, without a word; and what may be back is hidden again."""
        self._did(event, DeedState.FAILED, place, str(error))
        result = _result(event, Outcome.FAILED, error)
        verdict = self._ledger.verdict(event.sha256)
        passes = verdict is not None and verdict.step is Step.PASS
        if passes and verdict is not None and verdict.rule == RESTORED and not self._ledger.maintenance.came_back(event.sha256):
            words = "an earlier try left a word that these bytes pass, though they did not come back"
            result = replace(result, problem=f"{result.problem}; {words}")
        if not told or passes:
            return result
        return replace(result, problem=f"{result.problem}; {self._hidden_again(event)}")

    def _hidden_again(self, event: DeedEvent) -> str:
        """Hide what an unfinished restoring brought back, in words; where that fails it stays owed."""
        entry = self._ledger.entry(event.store, event.key)
        if entry is None or entry.sha256 != event.sha256 or entry.decision is None or entry.decision_id is None:
            return "look at what lies there now"
        if entry.decision.step is not Step.QUARANTINE:
            return "what came back was left, as it is not suspected now"
        last = replace(event, state=DeedState.FAILED)
        again = self._hide(Owed(entry.ref, event.sha256, entry.decision_id, entry.decision, last), [], agreed=False)
        if again.outcome is Outcome.DONE:
            return "nothing of it is back"
        if again.outcome is Outcome.SHARED:
            return f"{again.problem}: that is owed, and `fediwarden apply --shared` hides it"
        return (
            f"some of it may be back and could not be hidden again ({again.problem}): it is owed, `fediwarden apply` tries again"
        )

    def _opened(self, place: Place, sha256: Sha256, identities: Sequence[Path], *, drill: bool) -> bytes | None:
        """The bytes, where only the vault has them; opened before the store is touched."""
        if place.how == "moved":
            return None
        if not identities:
            raise Misconfigured(
                f"only the vault holds {sha256[:12]}",
                hint="give one of the private keys: fediwarden restore KEY --identity /media/usb/officer-1.key",
            )
        return self._vault(drill=drill).open(sha256, identities)

    def _noted(self, keeper: Keeper, hidden: DeedEvent, place: Place) -> Place:
        """The place with what a keeper has to know to undo an unfinished restoring; an earlier one's notes are kept."""
        if not isinstance(keeper, Piecewise):
            return place
        left = self._ledger.left_by_restore(hidden.store, hidden.key, hidden.sha256)
        return keeper.noted(place, hidden.sha256, left[0].place if left else None)

    def _bring_back(
        self, keeper: Keeper, place: Place, sha256: Sha256, data: bytes | None, identities: Sequence[Path], *, drill: bool
    ) -> ObjectRef:
        if data is None:
            try:
                return keeper.restore(place, sha256)
            except Gone:
                if not identities:
                    raise
                data = self._vault(drill=drill).open(sha256, identities)
        return keeper.put_back(place, data)

    # -- the record ---------------------------------------------------------------------------------------------------

    def _did(self, event: DeedEvent, state: DeedState, place: Place | None = None, problem: str = "") -> None:
        self._ledger.did(replace(event, state=state, at=self._clock(), place=place, problem=problem))


def _result(event: DeedEvent, outcome: Outcome, error: FediwardenError | None = None) -> Result:
    return Result(
        event.store,
        event.key,
        event.sha256,
        outcome,
        str(error or ""),
        error.hint if error else "",
        event.drill,
        isinstance(error, Unreached),
        isinstance(error, Unreached) and error.retry,
    )


def _log(result: Result) -> None:
    log.info(
        "object acted on",
        store=result.store,
        key=result.key,
        sha256=result.sha256,
        outcome=result.outcome.value,
        problem=result.problem,
    )
