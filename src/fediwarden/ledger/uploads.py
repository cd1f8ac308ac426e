"""What the gate answered and what it owes, in the ledger's tables; a debt is paid by any seen look at its bytes."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from fediwarden.ledger.hands import Hands
from fediwarden.ledger.queries import queries
from fediwarden.ledger.rows import Columns, Row, clean, decoded, encoded, iso, kind_of, moment, notes_of
from fediwarden.model import Answer, AnswerReason, Debt, Decision, EngineVersion, Look, ObjectRef, Sha256, Standing, StoreName

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE = 500
UNREADABLE = 5  # of the last ten answers
UNSCANNED = (
    AnswerReason.LATE,
    AnswerReason.BUSY,
    AnswerReason.LARGE,
    AnswerReason.BROKEN,
    AnswerReason.FAILED,
)  # what passed for one of these is a debt
UNWRAPPED = "unwrapped"  # the face of what was taken out of an envelope: the gate was not asked about it
HEAD = range(
    150, 401
)  # bytes that an envelope has besides the picture: 240 to 262 as pict-rs 0.6 makes it, fewer where the end is no mark
LEAST = HEAD.start  # bytes: no envelope is smaller
VIDEOS = frozenset({"mp4", "webm", "mov"})
PICTURES = frozenset({"jpeg", "png", "apng", "gif", "webp", "avif", "bmp", "tiff"})
_FORMAT = re.compile(
    r"(?:(?P<family>picture|video) \((?P<strange>\S+)\)|(?P<known>\w+)) is not a picture or video"
)  # as a look says it
GATE = StoreName("gate")  # the pseudo-store of uploads that were refused, or that lie in no store we know


@dataclass(frozen=True, slots=True)
class LastTen:
    """The gate's last ten answers, or as many as there are; drills are left out."""

    answers: int = 0
    broken: int = 0  # "cannot be decoded", passed or refused
    misread: int = 0  # not understood

    @property
    def unreadable(self) -> int:
        """About how many of them nothing could be seen, for what they are and not for want of time."""
        return self.broken + self.misread

    @property
    def alarming(self) -> bool:
        """Whether a person is told. One broken file tried again is fewer; where pict-rs speaks otherwise than before it is all ten."""
        return self.unreadable >= UNREADABLE


@dataclass(frozen=True, slots=True)
class Envelope:
    """Bytes that look like a whole form of pict-rs 0.6, which the gate of an earlier version took for the picture."""

    sha256: Sha256
    size: int
    at: datetime
    claimed: str
    sealed: bool
    drill: bool
    debt: int | None  # the number of the open debt
    present: bool  # the ledger holds it for an object that is there: no complete listing came since


@dataclass(frozen=True, slots=True)
class UploadTotals:
    """The gate in numbers; drills are left out."""

    passed: Mapping[AnswerReason, int] = field(default_factory=dict)
    refused: Mapping[AnswerReason, int] = field(default_factory=dict)
    unsealed: int = 0  # refused, and the vault could not take the bytes
    debts: int = 0  # unpaid
    debts_broken: int = 0  # of these: looked at since, and not to be decoded by this engine version
    oldest_debt: datetime | None = None
    lapsed: int = 0  # debts that ended without a look, ever
    last_ten: LastTen = LastTen()
    unopened: Mapping[str, int] = field(default_factory=dict)  # debts of formats that this engine version cannot open, by format
    undecoded: Mapping[str, int] = field(default_factory=dict)  # debts that are no picture or video known here, by Content-Type
    enveloped: int = 0  # debts that look like envelopes


class Uploads:
    """Questions about the gate. Writing answers is `Ledger.record`, in one transaction with the looks behind them."""

    def __init__(
        self,
        reading: "Callable[[], AbstractContextManager[Connection]]",
        writing: "Callable[[], AbstractContextManager[Connection]]",
        hands: Hands,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._hands = hands

    def debts(self, engine: EngineVersion) -> Iterator[Debt]:
        """Unpaid debts, oldest first, page by page."""
        after = 0
        while True:
            with self._reading() as connection:
                page = connection.execute(queries()["debts"], {"after": after, "limit": PAGE, "engine": engine}).all()
            for row in page:
                after = row.id
                yield _debt(row)
            if len(page) < PAGE:
                return

    def lapse(self, debts: Sequence[Debt | int], problem: str, at: datetime) -> None:
        """End debts whose object will never be there to look at, and say why. One that was paid meanwhile stays paid."""
        numbers = [debt if isinstance(debt, int) else debt.id for debt in debts]
        rows = [{"debt": number, "at": iso(at), "look": None, "problem": clean(problem)} for number in numbers]
        if rows:
            with self._writing() as connection:
                connection.execute(queries()["add_payment"], rows)

    def restoring(self, stores: Sequence[StoreName], since: datetime) -> list[Sha256]:
        """Bytes that a person is putting back into these stores just now: begun since then, not ended, and the command still at it.

        A command that was killed has nothing in hand, whatever the record tells. Raises: Misconfigured.
        """
        facts = {"stores": [clean(store) for store in stores], "since": iso(since)}
        with self._reading() as connection:
            rows = connection.execute(queries()["restoring"], facts).all()
        return [Sha256(row.sha256) for row in rows if self._hands.has(StoreName(row.store), decoded(row.key), Sha256(row.sha256))]

    def answers(self, sha256: Sha256) -> list[Answer]:
        """Every answer about these bytes, as stored or as uploaded, oldest first."""
        with self._reading() as connection:
            return [_answer(row) for row in connection.execute(queries()["answers_about"], {"sha256": sha256})]

    def since(self, moment: datetime) -> list[Answer]:
        """Answers since a moment, the oldest first; only the newest page of them."""
        with self._reading() as connection:
            rows = connection.execute(queries()["answers_since"], {"since": iso(moment), "limit": PAGE}).all()
        return [_answer(row) for row in rows]

    def was_debt(self, sha256: Sha256) -> bool:
        """Whether these bytes were ever let through unscanned."""
        with self._reading() as connection:
            return connection.execute(queries()["was_debt"], {"sha256": sha256}).first() is not None

    def totals(self, engine: EngineVersion, since: datetime) -> UploadTotals:
        """Answers since a moment, and debts as they stand now."""
        with self._reading() as connection:
            answers = connection.execute(queries()["totals_answers"], {"since": iso(since)}).all()
            debts = connection.execute(queries()["totals_debts"], {"engine": engine}).one()
            lapsed = int(connection.execute(queries()["totals_lapsed"]).scalar_one())
            unopened = (
                connection.execute(queries()["unopened_debts"], {"engine": engine, "least": LEAST}).all() if debts.broken else []
            )
        return UploadTotals(
            passed={AnswerReason(row.why): int(row.number) for row in answers if row.passed},
            refused={AnswerReason(row.why): int(row.number) for row in answers if not row.passed},
            unsealed=sum(int(row.unsealed or 0) for row in answers),
            debts=int(debts.number),
            debts_broken=int(debts.broken),
            oldest_debt=moment(debts.oldest) if debts.oldest else None,
            lapsed=lapsed,
            last_ten=self.last_ten(),
            unopened=_summed((_lacking(row), row) for row in unopened),
            undecoded=_summed((_said(row), row) for row in unopened if not _lacking(row) and not _enveloped(row)),
            enveloped=sum(int(row.number) for row in unopened if _enveloped(row)),
        )

    def envelopes(self) -> list[Envelope]:
        """What was judged, sealed or let through with a form around it, oldest first. Nobody can be sure without a private key."""
        with self._reading() as connection:
            rows = connection.execute(queries()["envelopes"]).all()
        return [_envelope(row) for row in rows if _is_envelope(row)]

    def unwrapped(self) -> set[Sha256]:
        """The envelopes whose picture was sealed by itself."""
        with self._reading() as connection:
            return {Sha256(row.original) for row in connection.execute(queries()["unwrapped"])}

    def last_ten(self) -> LastTen:
        """What the gate answered last."""
        with self._reading() as connection:
            whys = [row.why for row in connection.execute(queries()["last_ten_answers"])]
        return LastTen(len(whys), whys.count(AnswerReason.BROKEN), whys.count(AnswerReason.MISREAD))


def leave_gate(connection: "Connection", entries: Sequence[tuple[Look, Decision | None]]) -> None:
    """What was looked at for the gate alone lies in no store, and is never owed."""
    rows = [
        {"store": clean(look.ref.store), "key": encoded(look.ref.key), "at": iso(look.at)}
        for look, _ in entries
        if look.ref.store == GATE
    ]
    if rows:
        connection.execute(queries()["leave_gate"], rows)


def add_answers(connection: "Connection", run: int, answers: Sequence[Answer]) -> None:
    """Rows for answers and their debts. Bytes over which a debt is open make no second one."""
    if not answers:
        return
    new = list({answer.sha256 for answer in answers if answer.debt})
    open_already = (
        {row.sha256 for row in connection.execute(queries()["unpaid_of_page"], {"digests": new})} if new else set[str]()
    )
    ids = connection.execute(queries()["last_upload_ids"]).one()
    number, next_debt = int(ids.answers), int(ids.debts)
    rows: list[Columns] = []
    debts: list[Columns] = []
    for answer in answers:
        number += 1
        where: Columns = {"store": clean(answer.ref.store), "key": encoded(answer.ref.key), "at": iso(answer.at)}
        rows.append(
            {
                "id": number,
                "run": run,
                "at": iso(answer.at),
                "face": clean(answer.face),
                "sha256": answer.sha256,
                "original": answer.original,
                "size": answer.ref.size,
                "claimed": clean(answer.claimed),
                "passed": int(answer.passed),
                "why": answer.why.value,
                "sealed": None if answer.sealed is None else int(answer.sealed),
                "drill": int(answer.drill),
                "problem": clean(answer.problem),
                "milliseconds": answer.milliseconds,
            }
        )
        if answer.debt:
            if not answer.passed or answer.sha256 is None:
                raise ValueError("only what passed, with its bytes known, is a debt")
            if answer.sha256 in open_already:
                continue
            open_already.add(answer.sha256)
            next_debt += 1
            facts: Columns = {"size": answer.ref.size, "claimed": clean(answer.claimed), "why": answer.why.value}
            debts.append({"id": next_debt, "answer": number, "sha256": answer.sha256, **where, **facts})
    for name, what in (("add_answer", rows), ("add_debt", debts)):
        if what:
            connection.execute(queries()[name], what)


def pay(connection: "Connection", looks: Sequence[Look], rows: Sequence[Columns]) -> None:
    """End the debts over bytes that were seen; `rows` are these looks as recorded."""
    paid = {look.sha256: row for look, row in zip(looks, rows, strict=True) if look.standing is Standing.SEEN and look.sha256}
    digests = list(paid)
    for start in range(0, len(digests), 1000):
        unpaid = connection.execute(queries()["unpaid_of_page"], {"digests": digests[start : start + 1000]}).all()
        payments = [
            {"debt": debt.id, "at": paid[debt.sha256]["at"], "look": paid[debt.sha256]["id"], "problem": ""} for debt in unpaid
        ]
        if payments:
            connection.execute(queries()["add_payment"], payments)


def _enveloped(row: Row) -> bool:
    """Whether it was said to be a picture or a video, its bytes begin as none, and a form with a picture could be that small."""
    unknown = str(row.problem).startswith("unknown (unknown)")
    return unknown and not row.small and str(row.claimed).startswith(("image/", "video/"))


def _lacking(row: Row) -> str:
    """The format that the bytes have and this engine cannot open, as a type; "" where they are no picture and no video.

    What they were said to be does not count: eight letters said to be a PNG show no lack of the engine.
    """
    if said := _FORMAT.match(row.problem):
        format = said["strange"] or (said["known"] if said["known"] in PICTURES | VIDEOS else "")
        video = said["family"] == "video" or format in VIDEOS
    else:  # the decoder knows the format, and nothing of what is in it
        kind = kind_of(row.kind)
        format, video = (kind.format, kind.format in VIDEOS) if kind and kind.format != "unknown" else ("", False)
    return f"{'video' if video else 'image'}/{format}" if format else ""


def _said(row: Row) -> str:
    return row.claimed.partition(";")[0] or "without a type"


def _summed(rows: Iterable[tuple[str, Row]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind, row in rows:
        if kind:
            found[kind] = found.get(kind, 0) + int(row.number)
    return found


def _is_envelope(row: Row) -> bool:
    """The picture found inside ends where the form does; one that is found by no mark (a bare JPEG XL) has no such note."""
    if row.size < LEAST:
        return False
    inside = [note.size for note in notes_of(row.notes) if note.where == "inside"]
    return not inside or any(row.size - size in HEAD for size in inside)


def _envelope(row: Row) -> Envelope:
    facts = (bool(row.sealed), bool(row.drill), row.debt, bool(row.objects))
    return Envelope(Sha256(row.sha256), int(row.size), moment(row.at), row.claimed, *facts)


def _debt(row: Row) -> Debt:
    ref = ObjectRef(StoreName(row.store), decoded(row.key), row.size, "")
    return Debt(row.id, ref, Sha256(row.sha256), moment(row.at), AnswerReason(row.why), row.claimed, bool(row.broken))


def _answer(row: Row) -> Answer:
    return Answer(
        ref=ObjectRef(GATE, "", row.size, ""),
        at=moment(row.at),
        face=row.face,
        passed=bool(row.passed),
        why=AnswerReason(row.why),
        sha256=row.sha256,
        claimed=row.claimed,
        debt=bool(row.passed) and AnswerReason(row.why) in UNSCANNED,
        original=row.original,
        sealed=None if row.sealed is None else bool(row.sealed),
        drill=bool(row.drill),
        problem=row.problem,
        milliseconds=row.milliseconds,
    )
