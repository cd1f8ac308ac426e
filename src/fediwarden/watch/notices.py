"""Who is told what: a heartbeat while all is well, a note when something needs a person, a daily digest. Counts only.

No key, name, hash, address or picture is in a notice: it travels over other people's servers. Nothing is contacted that the
operator did not name.
"""

import json
import smtplib
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from threading import Event
from typing import Protocol

import httpx2
import structlog

from fediwarden.backoff import Backoff
from fediwarden.errors import FediwardenError
from fediwarden.ledger import Ledger, Totals
from fediwarden.model import EngineVersion
from fediwarden.watch.state import Board

log = structlog.get_logger("fediwarden")

TICK = 10.0  # seconds between two looks at whether something is to be told
DOUBTS = 60.0  # seconds between two questions whether a listing is not believed
QUIET = 900.0  # seconds between two notes of the same kind, so that a flood is one note
TIMEOUT = 20.0
MARK = "notices"
UPLOADS_MARK = "notices of the gate"
SUBJECTS = {
    "flagged": "Fediwarden: suspected media",
    "allowance": "Fediwarden: the allowance is used up",
    "blind": "Fediwarden: it cannot see",
    "doubted": "Fediwarden: a store lists far too little",
    "seeing": "Fediwarden: it sees again",
    "digest": "Fediwarden: daily digest",
    "unreadable": "Fediwarden: uploads that cannot be looked at",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice."""

    kind: str  # a key of SUBJECTS
    lines: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)


class Channel(Protocol):
    """One way to reach a person."""

    def send(self, note: Notice, at: datetime) -> None:
        """Raises: OSError, httpx2.HTTPError, smtplib.SMTPException."""
        ...


@dataclass(frozen=True, slots=True)
class Webhook:
    """Posts a notice as JSON. The address may hold a secret: it is in no log."""

    url: str = field(repr=False)

    def send(self, note: Notice, at: datetime) -> None:
        """As `Way.send`."""
        body = {"kind": note.kind, "title": SUBJECTS[note.kind], "text": "\n".join(note.lines), "counts": dict(note.counts)}
        answer = httpx2.post(self.url, json={**body, "at": at.isoformat()}, timeout=TIMEOUT, follow_redirects=False)
        answer.raise_for_status()


@dataclass(frozen=True, slots=True)
class Mail:
    """Sends a notice by mail."""

    host: str
    port: int
    security: str  # "none", "starttls", "tls"
    sender: str
    to: str
    login: tuple[str, str] | None = field(default=None, repr=False)

    def send(self, note: Notice, at: datetime) -> None:
        """As `Way.send`."""
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = self.sender, self.to, SUBJECTS[note.kind]
        mail["Date"] = format_datetime(at)
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content("\n".join(note.lines) + "\n")
        context = ssl.create_default_context()
        server: smtplib.SMTP
        if self.security == "tls":
            server = smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT, context=context)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT)
        with server:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.login is not None:
                server.login(*self.login)
            server.send_message(mail)


@dataclass(frozen=True, slots=True)
class Occasions:
    """When something is told, as the settings say."""

    digest_hour: int = 7
    ask: bool = False  # suspected objects wait for a person's word
    heartbeat: str = field(default="", repr=False)
    heartbeat_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class DayTotals:
    """What notices count."""

    totals: Totals
    allowance: int
    used: int


class Post:
    """What is to be told and has not arrived yet, with what was told: in a mark of the ledger, so that no life loses or repeats it."""

    def __init__(
        self,
        ledger: Ledger,
        mark: str,
        ways: Sequence[Channel],
        told: Callable[[str], None],
        clock: Callable[[], datetime],
        ticks: Callable[[], float],
        stop: Event,
    ) -> None:
        """
        Args:
            mark: the name under which this is remembered; each process has its own.
            told: hears "delivered" or "failed" for each try.
        """
        self._ledger = ledger
        self._name = mark
        self.ways = ways
        self._told = told
        self._clock = clock
        self._ticks = ticks
        self._stop = stop
        self.mark = dict(ledger.watching.mark(mark))
        self._waiting = [*self._left_over()]
        self._again = Backoff(60.0, 3600.0)
        self._again_at = 0.0

    def queue(self, note: Notice) -> None:
        """Tell this by every way. `remember` comes next, or it may be lost."""
        self._waiting += [(way, note) for way in self.ways]
        del self._waiting[:-50]  # what could not be delivered for days is told by the numbers of the newer ones

    def deliver(self) -> None:
        """Send what waits, each way until it fails; that one is tried again later."""
        if not self._waiting or self._ticks() < self._again_at:
            return
        waiting, self._waiting = self._waiting, []
        failed: set[int] = set()
        for way, note in waiting:
            if id(way) in failed or self._stop.is_set():
                self._waiting.append((way, note))
                continue
            try:
                way.send(note, self._clock())
            except (OSError, httpx2.HTTPError, httpx2.InvalidURL, smtplib.SMTPException) as error:
                # its words could hold the address, and with it a secret
                log.warning("notice not delivered", kind=note.kind, way=type(way).__name__, error=type(error).__name__)
                self._told("failed")
                self._waiting.append((way, note))
                failed.add(id(way))
            else:
                log.info("notice delivered", kind=note.kind, way=type(way).__name__, counts=json.dumps(dict(note.counts)))
                self._told("delivered")
        self.remember()
        if self._waiting:
            self._again_at = self._ticks() + self._again.failed()
        else:
            self._again.worked()

    def remember(self, **facts: object) -> None:
        """Together with what waits to be delivered, so that no end of the process loses a notice that counts as told."""
        waiting = [
            {"way": type(way).__name__, "kind": note.kind, "lines": [*note.lines], "counts": dict(note.counts)}
            for way, note in self._waiting
        ]
        self.mark.update(facts, waiting=waiting)
        self._ledger.watching.remember(self._name, self.mark, self._clock())

    def _left_over(self) -> Iterator[tuple[Channel, Notice]]:
        """What an earlier life could not deliver, to the ways there are now."""
        kept = self.mark.get("waiting")
        for one in kept if isinstance(kept, list) else []:
            for way in self.ways:
                if type(way).__name__ == one["way"] and one["kind"] in SUBJECTS:
                    yield way, Notice(one["kind"], tuple(one["lines"]), dict(one["counts"]))


class Notices:
    """Tells. Call `run` in a thread, or `turn` from a test."""

    def __init__(
        self,
        ledger: Ledger,
        engine: EngineVersion,
        board: Board,
        ways: Sequence[Channel],
        occasions: Occasions,
        standing: Callable[[], DayTotals],
        clock: Callable[[], datetime],
        ticks: Callable[[], float],
        stop: Event,
    ) -> None:
        self._ledger = ledger
        self._engine = engine
        self._board = board
        self._occasions = occasions
        self._standing = standing
        self._clock = clock
        self._ticks = ticks
        self._stop = stop
        self._post = Post(ledger, MARK, ways, board.told, clock, ticks, stop)
        self._mark = self._post.mark
        self._remember, self._queue = self._post.remember, self._post.queue
        self._quiet_until: dict[str, float] = {}
        self._beat_at = 0.0
        if "flagged" not in self._mark:  # what was suspected before anybody watched is in `status`, not in a notice
            self._remember(flagged=ledger.watching.flagged(0).last)

    def run(self) -> None:
        """Tell what is to be told, until the stop."""
        while not self._stop.is_set():
            self.turn()
            self._stop.wait(TICK)

    def turn(self) -> None:
        """One look at whether something is to be told."""
        blind = self._board.blind
        self._beat()
        if self._post.ways:
            self._about_blindness(blind)
            self._about_flags()
            self._about_allowance()
            self._about_doubts()
            self._about_the_day(blind)
            self._post.deliver()

    # -- occasions ----------------------------------------------------------------------------------------------------

    def _about_blindness(self, blind: Sequence[str]) -> None:
        told = self._mark.get("blind") == 1
        if blind and not told and self._may("blind"):
            self._queue(Notice("blind", ("New media are not looked at just now:", *_listed(blind)), {"blind": len(blind)}))
            self._remember(blind=1)
        elif told and self._board.sees:  # not merely begun anew
            self._queue(Notice("seeing", ("New media are looked at again. What came in meanwhile is being looked at.",)))
            self._remember(blind=0)

    def _about_flags(self) -> None:
        if self._ticks() < self._quiet_until.get("flagged", 0.0):
            return
        flagged = self._ledger.watching.flagged(_number(self._mark.get("flagged")))
        if not flagged.objects:
            if flagged.last != self._mark.get("flagged"):
                self._remember(flagged=flagged.last)
            return
        self._may("flagged")
        noun = "object is" if flagged.objects == 1 else "objects are"
        lines = [
            f"{flagged.objects:,} more {noun} suspected. That is a lead, not a fact.",
            "`fediwarden status` tells how things stand.",
        ]
        if self._occasions.ask:
            lines.append("They wait for your word: `fediwarden apply`.")
        self._queue(Notice("flagged", tuple(lines), {"flagged": flagged.objects}))
        self._remember(flagged=flagged.last)

    def _about_allowance(self) -> None:
        today = self._clock().date().isoformat()
        if self._mark.get("allowance") == today or self._ticks() < self._quiet_until.get("allowance", 0.0):
            return
        self._quiet_until["allowance"] = self._ticks() + 60.0  # the numbers of the ledger are not for free
        now = self._standing()
        if now.allowance and now.used >= now.allowance and now.totals.owed:
            line = (
                f"Today's allowance of {now.allowance:,} is used up; {now.totals.owed:,} suspected objects stay where they are."
            )
            self._queue(Notice("allowance", (line,), {"allowance": now.allowance, "owed": now.totals.owed}))
            self._remember(allowance=today)

    def _about_doubts(self) -> None:
        """Once about each listing that is not believed, whichever command met it."""
        if self._ticks() < self._quiet_until.get("doubted", 0.0):
            return
        self._quiet_until["doubted"] = self._ticks() + DOUBTS
        doubts = self._ledger.watching.doubts()
        now = {doubt.store: doubt.since.isoformat() for doubt in doubts}
        told = self._mark.get("doubted")
        told = told if isinstance(told, dict) else {}
        fresh = [doubt for doubt in doubts if told.get(doubt.store) != now[doubt.store]]
        if fresh:
            lines = (
                "Is the disk mounted, and is it the right server with its database? Nothing is taken for gone:",
                *_listed([doubt.words for doubt in fresh]),
                "If they are gone indeed: `fediwarden scan STORE --accept-gone`.",
            )
            self._queue(Notice("doubted", lines, {"doubted": len(doubts)}))
        if now != told:
            self._remember(doubted=now)

    def _about_the_day(self, blind: Sequence[str]) -> None:
        now = self._clock()
        if self._occasions.digest_hour < 0 or now.hour < self._occasions.digest_hour:
            return
        today = now.date().isoformat()
        if self._mark.get("digest") == today:
            return
        standing, totals = self._standing(), self._standing().totals
        debts = self._ledger.uploads.totals(self._engine, now - timedelta(days=1))
        doubts = self._ledger.watching.doubts()
        counts = {
            "not_scanned": totals.not_scanned,
            "objects": totals.objects,
            "flagged": totals.flagged,
            "review": totals.review,
            "owed": totals.owed,
            "hidden": totals.hidden,
            "debts": debts.debts,
            "uploads_refused": sum(debts.refused.values()),
            "blind": len(blind),
            "doubted": len(doubts),
        }
        lines = (
            f"{totals.not_scanned:,} of {totals.objects:,} objects are not scanned.",
            f"{totals.flagged:,} suspected, {totals.review:,} to review, {totals.owed:,} owed, {totals.hidden:,} hidden.",
            f"{debts.debts:,} uploads passed unscanned and are not looked at yet; {counts['uploads_refused']:,} refused since yesterday.",
            f"{standing.used:,} of today's allowance of {standing.allowance:,} used.",
            *_listed(blind),
            *_listed([doubt.words for doubt in doubts]),
        )
        self._queue(Notice("digest", lines, counts))
        self._remember(digest=today)

    def _may(self, kind: str) -> bool:
        """Whether a note of this kind may go out now; if so, the next may not for a while."""
        if self._ticks() < self._quiet_until.get(kind, 0.0):
            return False
        self._quiet_until[kind] = self._ticks() + QUIET
        return True

    # -- telling ------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Fetch the heartbeat's address. While this is blind it falls silent, which is what makes the other side speak; so it
        is in a life in which no answer came yet, or a process that dies again and again would look well.
        """
        if not self._occasions.heartbeat or self._ticks() < self._beat_at or not self._board.well:
            return
        self._beat_at = self._ticks() + self._occasions.heartbeat_seconds
        try:
            httpx2.get(self._occasions.heartbeat, timeout=TIMEOUT, follow_redirects=False).raise_for_status()
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            log.warning("heartbeat not delivered", error=type(error).__name__)
            self._board.told("heartbeat failed")
            self._beat_at = self._ticks() + min(60.0, self._occasions.heartbeat_seconds)
        else:
            self._board.told("heartbeat")


class UploadNotices:
    """Tells for the gate that uploads cannot be looked at. The gate sends this one and no other, a watch all others and not this one."""

    def __init__(
        self, ledger: Ledger, ways: Sequence[Channel], clock: Callable[[], datetime], ticks: Callable[[], float], stop: Event
    ) -> None:
        self._ledger = ledger
        self._post = Post(ledger, UPLOADS_MARK, ways, lambda _: None, clock, ticks, stop)
        self._ticks = ticks
        self._stop = stop
        self._quiet_until = 0.0

    def run(self) -> None:
        """Tell what is to be told, until the stop."""
        while not self._stop.wait(TICK):
            try:
                self.turn()
            except FediwardenError as error:  # a ledger that is locked for long; the next turn finds the same
                log.warning("the gate's answers could not be counted", problem=str(error))
            except Exception:  # the unknown: whoever is to be told of the next trouble must still be told
                log.exception("the gate's notices failed")

    def turn(self) -> None:
        """One look at whether something is to be told. Raises: FediwardenError."""
        last = self._ledger.uploads.last_ten()
        told = self._post.mark.get("unreadable") == 1
        if last.alarming and not told and self._ticks() >= self._quiet_until:
            self._quiet_until = self._ticks() + QUIET
            log.warning("uploads cannot be looked at", broken=last.broken, misread=last.misread, of=last.answers)
            lines = (
                f"Of the last {last.answers} uploads that the gate answered, {last.broken} could not be decoded "
                f"and {last.misread} came in a form that was not understood.",
                "That says nothing about these pictures. Perhaps pict-rs, or a proxy before the gate, sends them otherwise than before.",
                "`fediwarden status` tells what became of them, `fediwarden drill gate` proves the road.",
            )
            self._post.queue(
                Notice("unreadable", lines, {"broken": last.broken, "misread": last.misread, "answers": last.answers})
            )
            self._post.remember(unreadable=1)
        elif told and not last.alarming:
            self._post.remember(unreadable=0)
        self._post.deliver()


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _listed(lines: Sequence[str]) -> tuple[str, ...]:
    """Reasons for blindness as they are: they name stores as the operator does, and nothing else."""
    return tuple(f"- {line}" for line in lines)
