"""One upload's way through the gate: read, known?, looked at, recorded, answered, inside one deadline; speaks no HTTP."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Protocol

import structlog

from fediwarden.config import GateSettings
from fediwarden.errors import FediwardenError, Misconfigured
from fediwarden.gate.recorder import Recorder
from fediwarden.gate.workbench import Job, Workbench
from fediwarden.ledger import GATE, Ledger
from fediwarden.model import (
    Answer,
    AnswerReason,
    Blob,
    Decision,
    EngineVersion,
    Look,
    ObjectRef,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
)
from fediwarden.platforms.pictrs.hashes import Hash, formats_of
from fediwarden.policy import Policy, decide
from fediwarden.vault import Vaults

log = structlog.get_logger("fediwarden")

RESERVE = 1.0  # seconds of the deadline, a third of it at most, that are kept for putting the answer on record
CLOSING = 3.0  # seconds that an answer may take once the gate is being stopped
RESTORING = timedelta(minutes=10)  # how long after a restore of an object began its bytes may come in, at most
NEAR = 0.05  # how far scores of the same picture lie apart when pict-rs has written it anew
SEALED = 10_000  # contents that are remembered as sealed
SEALING = 2  # known bytes that are held against the vault at the same time


class Looks(Protocol):
    """What turns bytes into a look; `pipeline.Looker` is one."""

    @property
    def engine(self) -> EngineVersion: ...
    def look(self, blob: Blob) -> Look: ...


@dataclass(frozen=True, slots=True)
class Body:
    """An upload as it arrived. `data` is None where it was too large to be held, or there was no room."""

    sha256: Sha256
    size: int
    claimed: str
    data: bytes | None
    why: AnswerReason = AnswerReason.LARGE  # why there is no data


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an answer is made of."""

    passed: bool
    why: AnswerReason
    looks: tuple[tuple[Look, Decision | None], ...] = ()
    debt: bool = False
    sealed: bool | None = None
    drill: bool = False
    problem: str = ""


@dataclass
class Counts:
    """What this gate did since it was started; for its own log and for tests."""

    answers: int = 0
    most_held: int = 0  # bytes
    by: dict[tuple[bool, AnswerReason], int] = field(default_factory=dict)


class Gate:
    """Judges uploads. Everything it needs is given to it; it opens no file and reads no setting by itself."""

    def __init__(
        self,
        settings: GateSettings,
        ledger: Ledger,
        run: RunId,
        looks: Looks,
        policy: Policy,
        vaults: Vaults | None,
        clock: Callable[[], datetime],
        *,
        workers: int,
        store: StoreName | None,
        beside: Sequence[StoreName] = (),
    ) -> None:
        """
        Args:
            vaults: None where the profile keeps no bytes.
            workers: uploads looked at at the same time.
            store: the pict-rs store that uploads end in; None where none is configured.
            beside: the stores whose objects are files of that pict-rs, and come back through it.
        """
        self._settings = settings
        self._ledger = ledger
        self._looks = looks
        self._policy = policy
        self._vaults = vaults
        self._clock = clock
        self._store = store
        self._restorable = () if store is None else (store, *beside)
        self._reserve = min(RESERVE, settings.deadline_seconds / 3)
        self.counts = Counts()
        self.desk = Workbench(
            looks.look, self._finished, workers=workers, queue=settings.queue, in_flight=settings.in_flight_mb << 20
        )
        self.recorder = Recorder(ledger.record, run, self._count)
        self._restored: dict[Sha256, Sha256] = {}  # what is being restored: the altered copy of it that was let in
        self._restoring = Lock()  # two copies at once must not both be let in
        self._in_vault: set[tuple[bool, Sha256]] = (
            set()
        )  # what this gate saw there: Lemmy asks again on every view of a refused picture
        self._sealing = ThreadPoolExecutor(SEALING, thread_name_prefix="gate-seal")
        self._closing: float | None = None
        self.busy = 0  # requests that wait for their answer

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads."""
        self.recorder.start()
        self.desk.start()

    def close(self) -> None:
        """Requests in hand get an answer within CLOSING seconds from now; what was not looked at then is late."""
        self._closing = time.monotonic() + CLOSING

    def end(self) -> None:
        """After the last request: let what is being looked at finish, and record it."""
        self.desk.end(1.0)
        self._sealing.shutdown(wait=False)
        self.recorder.end(1.0)

    # -- one upload ---------------------------------------------------------------------------------------------------

    async def judge(self, face: str, claimed: str, chunks: AsyncIterator[bytes], began: float) -> bool:
        """Whether this upload may pass. Returns within the deadline, and never True before that is on record.

        Cancel it when the client goes away.

        Args:
            face: which protocol asks, for the record.
            claimed: the Content-Type.
            chunks: the picture; may raise Misread where what carries it turns out to be no such thing.
            began: `time.monotonic()` when the request came.

        Raises: Misread, with nothing on record yet: `misread` is called for that.
        """
        self.busy += 1
        deadline = began + self._settings.deadline_seconds
        try:
            body = await self._read(claimed, chunks, began)
            if body is None:
                return await self.unread(face, claimed, began)
            return await self._judge(face, body, began, deadline)
        finally:
            self.busy -= 1

    async def unread(self, face: str, claimed: str, began: float) -> bool:
        """Refuse, and put on record, what did not arrive whole or is no upload at all."""
        answer = self._answer(face, None, _Outcome(False, AnswerReason.UNREAD, problem="it did not arrive whole"), began, claimed)
        await self._recorded((), answer, began + self._settings.deadline_seconds)
        return False

    async def misread(self, face: str, claimed: str, problem: str, began: float) -> bool:
        """Refuse, and put on record, what came whole and is not understood; nobody can tell it from a suspected picture."""
        deadline = began + self._settings.deadline_seconds
        await self._as_long_as_new(began, deadline)
        answer = self._answer(face, None, _Outcome(False, AnswerReason.MISREAD, problem=problem), began, claimed)
        await self._recorded((), answer, deadline)
        return False

    async def _as_long_as_new(self, began: float, deadline: float) -> None:
        """Wait until a new picture would have its answer."""
        moment = min(began + self.desk.usual, self._by(deadline) - self._reserve)
        await asyncio.sleep(max(0.0, moment - time.monotonic()))

    def left_to_read(self, began: float) -> float:
        """Seconds in which the body has to be here."""
        return max(0.0, self._by(began + self._settings.deadline_seconds) - self._reserve - time.monotonic())

    async def _read(self, claimed: str, chunks: AsyncIterator[bytes], began: float) -> Body | None:
        """The body, hashed as it comes; None where it does not come whole in time."""
        digest = hashlib.sha256()
        held: list[bytes] | None = []
        size = taken = 0
        why = AnswerReason.LARGE
        whole = False
        try:
            async with asyncio.timeout(self.left_to_read(began)):
                async for chunk in chunks:
                    size += len(chunk)
                    digest.update(chunk)
                    if held is None:
                        continue
                    if size > self._settings.max_upload_mb << 20:
                        held = None
                    elif not self.desk.take(len(chunk)):
                        held, why = None, AnswerReason.BUSY
                    else:
                        taken += len(chunk)
                        held.append(chunk)
                        self.counts.most_held = max(self.counts.most_held, self.desk.held)
                    if held is None:
                        self.desk.give(taken)
                        taken = 0
            whole = True
        except TimeoutError:
            return None
        finally:
            if not whole:
                self.desk.give(taken)
        return Body(Sha256(digest.hexdigest()), size, claimed, None if held is None else b"".join(held), why)

    async def _judge(self, face: str, body: Body, began: float, deadline: float) -> bool:
        job: Job | None = None
        known: tuple[_Outcome, Decision | None] | None = None
        given = False  # whether the room for the body is another's to give back
        try:
            known = await self._known(body, deadline)
            if known is not None:
                outcome, decision = known
                if decision is not None:
                    given = True
                    outcome = await self._sealed_in_time(body, decision, outcome, deadline)
                if not outcome.passed:
                    await self._as_long_as_new(began, deadline)
            else:
                job = self.desk.join(body.sha256)
                if job is None and body.data is not None:
                    blob = Blob(self._ref(body.sha256, body.size, body.claimed), body.data, body.sha256, body.claimed)
                    job = self.desk.put(blob, began, face=face)
                    given = job is not None
                    if job is None:
                        job = self.desk.join(body.sha256)  # it came between the two
                if job is None:
                    outcome = self._unscanned(body.why if body.data is None else AnswerReason.BUSY, body.claimed)
                else:
                    outcome = await self._waited(job, body, deadline)
        except asyncio.CancelledError:  # whoever asked has gone
            if job is not None:
                self.desk.leave(job)
                if isinstance(job.outcome, _Outcome):
                    self._unheard(face, body, job.outcome, began)
            elif known is not None:
                self._unheard(face, body, known[0], began)
            raise
        finally:
            if not given and body.data is not None:
                self.desk.give(body.size)
        answer = self._answer(face, body, outcome, began, body.claimed)
        try:
            if await self._recorded(outcome.looks, answer, deadline):
                return outcome.passed
        except asyncio.CancelledError:
            self._unheard(face, body, outcome, began)
            raise
        problem = "the ledger could not be written in time"
        refused = replace(outcome, passed=False, why=AnswerReason.UNRECORDED, debt=False, problem=problem)
        self.recorder.put(_of_gate(outcome.looks), (self._answer(face, body, refused, began, body.claimed),))
        return False

    def _unheard(self, face: str, body: Body, outcome: _Outcome, began: float) -> None:
        """Whoever asked has gone, and pict-rs drops the upload: what was seen stays on record, and that it was sealed."""
        answers = () if outcome.passed else (self._answer(face, body, outcome, began, body.claimed),)
        self.recorder.put(_of_gate(outcome.looks), answers)

    async def _known(self, body: Body, deadline: float) -> tuple[_Outcome, Decision | None] | None:
        """What the ledger knows about these bytes, and the decision to seal them for; None where it cannot tell, or not in time."""
        try:
            async with asyncio.timeout(max(0.0, self._by(deadline) - self._reserve - time.monotonic())):
                return await asyncio.to_thread(self._known_now, body.sha256, body.claimed)
        except TimeoutError:
            log.warning("the ledger did not answer in time")
        except FediwardenError as error:
            log.warning("the ledger could not be asked", problem=str(error))
        return None

    def _known_now(self, sha256: Sha256, claimed: str) -> tuple[_Outcome, Decision | None] | None:
        verdict = self._ledger.verdict(sha256)
        look = self._ledger.known(sha256, self._looks.engine)
        decision = verdict or (None if look is None else decide(look, self._policy))
        why = AnswerReason.KNOWN if verdict is None else AnswerReason.PERSON
        hides = decision is not None and decision.step is Step.QUARANTINE
        broken = verdict is None and (look is None or look.standing is Standing.BROKEN)
        if (hides or broken) and sha256 in self._restorings():
            return _Outcome(True, AnswerReason.RESTORING), None  # whatever was said of these bytes: a person puts them back now
        if decision is not None and hides:
            if verdict is None and look is not None and self._is_restored(sha256, look):
                return _Outcome(True, AnswerReason.RESTORING), None
            return _Outcome(False, why, drill=decision.drill), decision
        if verdict is None and look is None:
            return None
        if broken:
            return self._unscanned(AnswerReason.BROKEN, claimed), None
        return _Outcome(True, why, drill=decision is not None and decision.drill), None

    async def _sealed_in_time(self, body: Body, decision: Decision, outcome: _Outcome, deadline: float) -> _Outcome:
        """Known bytes, refused, with whether the vault has them; a vault that is not done in time makes no answer late.

        The room for the body is given back when the vault is done with it.
        """
        sealing = self._sealing.submit(self._sealed, body, decision)
        if body.data is not None:
            sealing.add_done_callback(lambda _: self.desk.give(body.size))
        waiting = asyncio.wrap_future(sealing)
        waiting.add_done_callback(_heard)
        await self._until(waiting, self._by(deadline) - self._reserve)
        if not waiting.done():
            return replace(outcome, sealed=False, problem="the vault was not done in time")
        return replace(outcome, sealed=waiting.result())

    def _sealed(self, body: Body, decision: Decision) -> bool | None:
        """Whether known bytes are in the vault: a scan, or an earlier policy, may have met them without sealing them."""
        if self._vaults is None:
            return None
        vault = self._vaults.of(drill=decision.drill)
        if (decision.drill, body.sha256) in self._in_vault:
            return True
        try:
            if vault.check(body.sha256):
                self._remember_sealed(body.sha256, drill=decision.drill)
                return True
        except FediwardenError as error:
            log.warning("the vault could not be asked", sha256=body.sha256, problem=str(error))
        if body.data is None:
            return False
        ref = self._ref(body.sha256, body.size, body.claimed)
        return self._seal(Blob(ref, body.data, body.sha256, body.claimed), decision)

    async def _waited(self, job: Job, body: Body, deadline: float) -> _Outcome:
        """What came of a job; the caller no longer waits for it when this returns (but still does when it is cancelled)."""
        waiting = asyncio.wrap_future(job.future)
        waiting.add_done_callback(_heard)
        await self._until(waiting, self._by(deadline) - self._reserve)
        if not waiting.done():
            late = self._unscanned(AnswerReason.LATE, body.claimed)
            if not late.passed:
                job.told = True
                self.desk.leave(job)
                return late
            if self.desk.let_through(job):
                return late
            await self._until(waiting, self._by(deadline))
        self.desk.leave(job)
        if waiting.done() and waiting.exception() is None and isinstance(job.outcome, _Outcome):
            return job.outcome
        problem = waiting.exception() if waiting.done() else "it was not settled in time"
        return replace(self._unscanned(AnswerReason.FAILED, body.claimed), problem=str(problem))

    async def _until(self, waiting: "asyncio.Future[Any]", moment: float) -> None:
        """Wait for it until then, or until the gate is being stopped."""
        while not waiting.done() and (left := min(moment, self._by(moment)) - time.monotonic()) > 0:
            await asyncio.wait([waiting], timeout=min(left, 0.5))

    def _unscanned(self, why: AnswerReason, claimed: str) -> _Outcome:
        """Could not be looked at: the settings say whether it passes as a debt."""
        chosen = {
            AnswerReason.LATE: self._settings.late,
            AnswerReason.BUSY: self._settings.busy,
            AnswerReason.LARGE: self._settings.large,
            AnswerReason.BROKEN: self._settings.broken,
            AnswerReason.FAILED: self._settings.failed,
        }[why]
        if claimed.lower().startswith("video/"):
            chosen = self._settings.videos or chosen
        return _Outcome(chosen == "debt", why, debt=chosen == "debt")

    async def _recorded(self, looks: tuple[tuple[Look, Decision | None], ...], answer: Answer, deadline: float) -> bool:
        """Put on record what will be answered; False where that cannot be done in time."""
        future = self.recorder.put(looks, (answer,))
        try:
            async with asyncio.timeout(max(0.05, self._by(deadline) - time.monotonic() - 0.05)):
                await asyncio.wrap_future(future)
        except TimeoutError:
            future.cancel()
            return False
        except FediwardenError as error:
            log.warning("an answer could not be recorded", problem=str(error))
            return False
        return True

    def _answer(self, face: str, body: Body | None, outcome: _Outcome, began: float, claimed: str) -> Answer:
        if body is None:
            ref = ObjectRef(GATE, "", 0, "")
        else:
            ref = self._ref(body.sha256, body.size, claimed)
            if not outcome.passed:
                ref = replace(ref, store=GATE)
        return Answer(
            ref=ref,
            at=self._clock(),
            face=face,
            passed=outcome.passed,
            why=outcome.why,
            sha256=body.sha256 if body else None,
            claimed=claimed,
            debt=outcome.debt,
            sealed=outcome.sealed,
            drill=outcome.drill,
            problem=outcome.problem,
            milliseconds=round((time.monotonic() - began) * 1000),
        )

    def _by(self, deadline: float) -> float:
        return deadline if self._closing is None else min(deadline, self._closing)

    def _ref(self, sha256: Sha256, size: int, claimed: str, frames: int = 1) -> ObjectRef:
        """Where pict-rs will have it: its key is the hash that pict-rs makes of it."""
        formats = formats_of(claimed)
        content = Hash(sha256, size, formats[-1] if frames > 1 else formats[0])
        return ObjectRef(self._store or GATE, content.hex, size, content.hex)

    # -- in the threads that look -------------------------------------------------------------------------------------

    def _finished(self, job: Job, looked: Look | FediwardenError) -> None:
        """Decide, seal, and record what nobody waits for any more."""
        if not isinstance(looked, Look):
            return
        blob = job.blob
        decision = decide(looked, self._policy, self._ledger.verdict(blob.sha256))
        outcome = self._decided(blob, looked, decision)
        frames = looked.kind.frames if looked.kind else 1
        ref = blob.ref if job.fetched else self._ref(blob.sha256, blob.ref.size, blob.claimed, frames)
        passed = self.desk.decide(job)
        look = replace(looked, ref=ref if passed or outcome.passed else replace(ref, store=GATE))
        job.outcome = replace(outcome, looks=() if passed else ((look, decision),))
        if passed or job.waiting == 0:
            answers: tuple[Answer, ...] = ()
            if not (passed or outcome.passed or job.told):  # all hung up, and the vault has the bytes
                body = Body(blob.sha256, blob.ref.size, blob.claimed, None)
                answers = (self._answer(job.face, body, outcome, job.began, blob.claimed),)
            self.recorder.put(((look, decision),), answers)
            log.info(
                "debt looked at",
                sha256=blob.sha256,
                standing=look.standing.value,
                decision=decision.step.value if decision else None,
            )

    def _decided(self, blob: Blob, look: Look, decision: Decision | None) -> _Outcome:
        if decision is None or decision.step is not Step.QUARANTINE:
            if look.standing is Standing.BROKEN and (decision is None or decision.by == "policy"):
                return replace(self._unscanned(AnswerReason.BROKEN, blob.claimed), problem=look.problem)
            return _Outcome(True, AnswerReason.LOOKED)
        if decision.by != "policy":
            return _Outcome(False, AnswerReason.PERSON, sealed=self._seal(blob, decision))
        if self._is_restored(blob.sha256, look):
            return _Outcome(True, AnswerReason.RESTORING)
        return _Outcome(False, AnswerReason.LOOKED, sealed=self._seal(blob, decision), drill=decision.drill)

    def _seal(self, blob: Blob, decision: Decision) -> bool | None:
        """Refused bytes go into the vault before pict-rs deletes them; a vault that fails stops no refusal."""
        if self._vaults is None:
            return None
        vault = self._vaults.of(drill=decision.drill)
        because = {
            "rule": decision.rule,
            "because": decision.because,
            "policy": decision.policy,
            "content-type": blob.claimed,
            "refused": "by the gate",
        }
        try:
            vault.seal(blob.data, blob.sha256, store=GATE, key=blob.ref.key, at=self._clock(), because=because)
        except FediwardenError as error:
            log.warning("refused bytes could not be sealed", sha256=blob.sha256, problem=str(error))
            return False
        self._remember_sealed(blob.sha256, drill=decision.drill)
        return True

    def _remember_sealed(self, sha256: Sha256, *, drill: bool) -> None:
        if len(self._in_vault) >= SEALED:
            self._in_vault.clear()
        self._in_vault.add((drill, sha256))

    def _restorings(self) -> set[Sha256]:
        """The bytes that are being put back just now; no word lets them pass, and none is left when it fails."""
        if not self._restorable:
            return set()
        try:
            return set(self._ledger.uploads.restoring(self._restorable, self._clock() - RESTORING))
        except Misconfigured as error:
            log.warning("nothing is let in for being restored: who is at it cannot be asked", problem=str(error))
            return set()

    def _is_restored(self, sha256: Sha256, look: Look) -> bool:
        """Whether this is a copy of what is being put back, written anew by pict-rs on the way: one copy for each, as often as it comes."""
        with self._restoring:
            restoring = self._restorings()
            self._restored = {original: altered for original, altered in self._restored.items() if original in restoring}
            if sha256 in self._restored.values():
                return True  # under the next alias
            for original in sorted(restoring - self._restored.keys()):
                known = self._ledger.known(original, self._looks.engine)
                if known is not None and _alike(known, look):
                    self._restored[original] = sha256
                    return True
        return False

    def _count(self, answer: Answer) -> None:
        self.counts.answers += 1
        kind = (answer.passed, answer.why)
        self.counts.by[kind] = self.counts.by.get(kind, 0) + 1
        log.info(
            "upload answered",
            face=answer.face,
            sha256=answer.sha256,
            size=answer.ref.size,
            passed=answer.passed,
            why=answer.why.value,
            debt=answer.debt,
            sealed=answer.sealed,
            ms=answer.milliseconds,
            problem=answer.problem,
        )


def _alike(known: Look, look: Look) -> bool:
    """Whether two looks are of one picture, as far as shape and findings tell."""
    if known.kind is None or look.kind is None:
        return False
    shapes = [(kind.width, kind.height, kind.frames) for kind in (known.kind, look.kind)]
    scores = [sorted((found.concept, found.analyser, found.score) for found in one.findings) for one in (known, look)]
    if shapes[0] != shapes[1] or len(scores[0]) != len(scores[1]):
        return False
    return all(a[:2] == b[:2] and abs(a[2] - b[2]) <= NEAR for a, b in zip(*scores, strict=True))


def _of_gate(looks: tuple[tuple[Look, Decision | None], ...]) -> tuple[tuple[Look, Decision | None], ...]:
    """The same looks, about an upload that does not live: it lies in no store."""
    return tuple((replace(look, ref=replace(look.ref, store=GATE)), decision) for look, decision in looks)


def _heard(waiting: "asyncio.Future[Any]") -> None:
    """Without this asyncio would complain about errors that nobody waits for any more."""
    if not waiting.cancelled():
        waiting.exception()
