"""Proves the road that uploads take, at the gate directly and through pict-rs, with harmless pictures; touches no other object.

What it puts into pict-rs is on record before it is sent, so that a drill that was killed is cleaned up by the next one.
"""

import http.client
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from threading import Event
from urllib.parse import urlsplit

from fediwarden.drill import MOST, PREFIX, Station
from fediwarden.errors import FediwardenError, Gone, Refused, Unreached
from fediwarden.ledger import Ledger
from fediwarden.media.samples import SampleFile
from fediwarden.model import Answer, AnswerReason, EngineVersion, Look, ObjectRef, RunId, Sha256, Standing, Step, StoreName
from fediwarden.platforms.pictrs.server import Server, UploadAnswer
from fediwarden.vault import Vault

PNG = "image/png"
PIECE = 8192  # bytes: pict-rs sends what it stores in pieces of this size
PURGING = 30.0  # seconds that pict-rs may take to delete what a drill put into it
ASK_AGAIN = 0.1  # seconds until it is asked whether it has; doubled up to SELDOM
SELDOM = 1.0
UNASKED_FOR = "failed-external-validation"
UNHEARD = "http-client-error"
NOT_A_FORMAT = (
    "command-failure",
    "media-disallowed",
    "video-disabled",
    "invalid-file-extension",
    "decode-image",
    "discover-error",
)
"""What pict-rs answers to a file that it, its settings or its ImageMagick cannot take (recorded of 0.5.16, 0.5.25 and 0.6.0-rc.6)."""

NO_NAME = (
    "pict-rs had no answer from its validator (http-client-error). From 0.5.21 on it finds no private address by its name: give it"
    " numbers, as `fediwarden gate --url` prints them, not http://gate:8970. If it has numbers: nothing answers there, or"
    " PICTRS__MEDIA__EXTERNAL_VALIDATION_TIMEOUT is too short"
)
GIVE_IT = "PICTRS__MEDIA__EXTERNAL_VALIDATION has to be what `fediwarden gate --url` prints"
NOT_ASKED = (
    "pict-rs published it without this gate. Perhaps it asks nobody, or another validator. Perhaps a proxy on the way redirects. Perhaps"
    f" one drops the body, or answers by itself. {GIVE_IT}"
)
ANOTHER_REFUSES = (
    "pict-rs' validator refused it, and that was not this gate. Perhaps a proxy on the way redirects. Perhaps one drops the body, or"
    f" answers by itself. Perhaps the secret is wrong. Perhaps it is another validator. {GIVE_IT}"
)
DROPS = "A proxy on the way drops or alters the body (nginx: `proxy_pass_request_body off`)"
UNREADABLE = (AnswerReason.MISREAD, AnswerReason.UNREAD)


# -- the gate directly ----------------------------------------------------------------------------------------------------


def through_gate(
    listen: str,
    secret: str,
    make: Callable[[], bytes],
    ledger: Ledger,
    vault: Vault | None,
    seconds: float,
    clock: Callable[[], datetime],
    address: str = "",
) -> Iterator[Station]:
    """Send drill pictures to a running gate, as each version of pict-rs would, and see them refused, recorded and sealed; none is stored.

    `make` makes a new drill picture; `address` is where pict-rs asks, if that is not where the gate listens; `seconds` each may take.
    """
    path = f"/validate/{secret}"
    picture = make()
    try:
        status = _post(listen, path, [picture], {"Content-Type": [PNG], "Content-Length": [str(len(picture))]}, seconds)
    except (OSError, http.client.HTTPException) as error:
        yield Station("answered", False, f"nothing answers at {listen} ({type(error).__name__}); is the gate running?")
        return
    known = status != http.client.NOT_FOUND
    yield Station("answered", known, f"at {listen}" if known else "what answers there does not know this installation's secret")
    if not known:
        return
    name = Sha256(sha256(picture).hexdigest())
    answers = ledger.uploads.answers(name)
    yield Station("on record", bool(answers), "the ledger has the answer" if answers else "the ledger knows of no answer")
    if not answers:
        return
    last = answers[-1]
    refused = status >= http.client.BAD_REQUEST and not last.passed
    yield Station(
        "refused", refused, f"{last.why.words}, and {'refused' if refused else 'it passed'}{', as a debt' if last.debt else ''}"
    )
    yield Station("apart", last.drill, "counted as a drill" if last.drill else "it was not recognised as a drill")
    if vault is None:
        yield Station("sealed", True, "left out: the profile keeps metadata only")
    else:
        yield Station("sealed", vault.check(name), "in the drill vault" if vault.check(name) else "it is not in the drill vault")
    yield _sent_as("chunked", "as pict-rs 0.5 sends it", listen, path, make(), ledger, vault, seconds, clock, _raw)
    yield _sent_as("form", "as pict-rs 0.6 sends it", listen, path, make(), ledger, vault, seconds, clock, _form)
    if address and address != listen:
        yield _sent_as("address", f"at {address}, where pict-rs asks", address, path, make(), ledger, vault, seconds, clock, _raw)


def _sent_as(
    name: str,
    words: str,
    where: str,
    path: str,
    picture: bytes,
    ledger: Ledger,
    vault: Vault | None,
    seconds: float,
    clock: Callable[[], datetime],
    shape: "Callable[[bytes], tuple[Iterable[bytes], Mapping[str, Sequence[str]]]]",
) -> Station:
    """One drill picture in another shape, or at another address, held to everything at once."""
    body, headers = shape(picture)
    began = clock()
    try:
        status = _post(where, path, body, headers, seconds)
    except (OSError, http.client.HTTPException) as error:
        return Station(name, False, f"{words}: no answer ({type(error).__name__})")
    digest = Sha256(sha256(picture).hexdigest())
    if 300 <= status < 400:
        return Station(name, False, f"{words}: it redirects ({status}). pict-rs may follow that, and then everything passes")
    answers = ledger.uploads.answers(digest)
    if not answers:
        unread = _unread(ledger.uploads.since(began))
        return Station(name, False, f"{words}: not on record under the picture's own hash (answered with {status}){unread}")
    last = answers[-1]
    if status < http.client.BAD_REQUEST or last.passed:
        return Station(name, False, f"{words}: it passed ({last.why.words})")
    if not last.drill:
        return Station(name, False, f"{words}: refused ({last.why.words}), and not recognised as a drill")
    if vault is not None and not vault.check(digest):
        return Station(name, False, f"{words}: refused, and not sealed in the drill vault")
    return Station(name, True, f"{words}: refused, on record and apart")


def _unread(answers: Iterable[Answer]) -> str:
    """What this gate was sent and could not read, after other words; "" where there is nothing of the kind."""
    problems = [answer.problem or answer.why.words for answer in answers if answer.why in UNREADABLE]
    return f". Meanwhile this gate refused what it could not read: {problems[-1]}. {DROPS}" if problems else ""


def _raw(picture: bytes) -> tuple[Iterable[bytes], Mapping[str, Sequence[str]]]:
    """The stored bytes in pieces, as every 0.5 sends them."""
    return _pieces(picture), {"Content-Type": [PNG], "Transfer-Encoding": ["chunked"]}


def _form(picture: bytes) -> tuple[Iterable[bytes], Mapping[str, Sequence[str]]]:
    """A form of one part whose name is the key in pict-rs' store, under two Content-Type lines (recorded of 0.6.0-rc.6)."""
    boundary = "-".join(secrets.token_hex(8) for _ in range(4))
    key = "%2F".join([*(secrets.token_hex(1) for _ in range(10)), f"{secrets.token_hex(6)}.png"])
    head = f"--{boundary}\r\nContent-Disposition: form-data; name*=utf-8''{key}\r\n\r\n"
    body = [head.encode(), *_pieces(picture), f"\r\n--{boundary}--\r\n".encode()]
    return body, {"Content-Type": [PNG, f"multipart/form-data; boundary={boundary}"], "Transfer-Encoding": ["chunked"]}


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + PIECE] for start in range(0, len(data), PIECE)]


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _post(listen: str, path: str, body: Iterable[bytes], headers: Mapping[str, Sequence[str]], seconds: float) -> int:
    if listen.startswith("unix:"):
        connection: http.client.HTTPConnection = _Unix(listen.removeprefix("unix:"), seconds)
    else:
        host, _, port = listen.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=seconds)
    with closing(connection):
        connection.putrequest("POST", path, skip_accept_encoding=True)
        for name, values in headers.items():
            for value in values:  # a line each: pict-rs 0.6 sends two of a kind
                connection.putheader(name, value)
        connection.endheaders(body, encode_chunked="Transfer-Encoding" in headers)
        return connection.getresponse().status


# -- through pict-rs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    """One harmless file that a drill puts into pict-rs. `alias` is "" until pict-rs has named it."""

    alias: str
    sha256: Sha256  # of the bytes as sent
    size: int
    content_type: str
    key: str = ""  # of the item that came of it

    @property
    def contents(self) -> set[Sha256]:
        """As sent, and as stored where that is known."""
        return {self.sha256} | ({Sha256(self.key[:64])} if self.key else set())

    def row(self) -> list[object]:
        """As it is remembered."""
        return [self.alias, self.sha256, self.size, self.content_type, self.key]


@dataclass(frozen=True, slots=True)
class Formats:
    """What a pict-rs did with one file of each format at a drill."""

    opened: tuple[str, ...] = ()  # taken, and looked at by the gate
    unopened: tuple[str, ...] = ()  # taken or stopped by the gate, which cannot open it
    not_taken: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()  # refused by this installation's own policy
    at: datetime | None = None

    @classmethod
    def last(cls, ledger: Ledger, store: StoreName) -> "Formats | None":
        """Those of the last drill through this store; None where there was none."""
        at, told = ledger.watching.dated_mark(f"drill formats {store}")
        if at is None:
            return None
        opened, unopened, not_taken, stopped = (
            tuple(str(name) for name in _list(told.get(what))) for what in ("opened", "unopened", "not taken", "stopped")
        )
        return cls(opened, unopened, not_taken, stopped, at)


@dataclass
class Through:
    """The drill through one pict-rs. Run `stations`, and then, whatever happened, `clean_up`."""

    server: Server  # with the keeper's key
    store: StoreName
    ledger: Ledger
    engine: EngineVersion
    clock: Callable[[], datetime]
    stop: Event
    given: str = ""  # host and port that pict-rs should ask, to compare with what it tells
    purging: float = PURGING  # seconds
    proved: bool = False  # whether every station was passed, and at least one format
    _puts: list[Put] = field(default_factory=list)
    _contents: set[Sha256] = field(default_factory=set)  # all that was ever put, as sent and as stored
    _passed: dict[Sha256, tuple[int, str]] = field(default_factory=dict)  # let through by the gate and declined by pict-rs after

    def stations(self, samples: Iterable[SampleFile], drill: bytes) -> Iterator[Station]:
        """A harmless file of each format, then the drill picture; stops where pict-rs does not ask this gate at all."""
        self._keep(self._remembered())
        if self._puts:
            yield self._swept("left over", "of a drill that was cut off")
        found: dict[str, list[str]] = {"opened": [], "unopened": [], "not taken": [], "stopped": []}
        failed = False
        try:
            yield Station("pict-rs", True, f"{self.store}, {self.server.generation}")
            for number, sample in enumerate(samples):
                if sample.data is None:
                    yield Station(sample.format, True, f"not tried: {sample.why}")
                    continue
                station, what, goes_on = self._one(sample, sample.data, imported=number > 0)
                if what:
                    found[what].append(sample.format)
                failed |= not station.passed
                yield station
                if not goes_on:
                    return
            if not found["opened"] and not found["stopped"]:
                failed = True
                yield Station("formats", False, "pict-rs took none of these harmless files")
            station = self._refused(drill)
            yield station
            self.proved = station.passed and not failed
        except FediwardenError as error:
            yield Station("pict-rs", False, f"{error}. {error.hint}" if error.hint else str(error))
            return
        self.ledger.watching.remember(f"drill formats {self.store}", found, self.clock())

    def _one(self, sample: SampleFile, data: bytes, *, imported: bool) -> tuple[Station, str, bool]:
        """One format: what to say of it, what it is counted as, and whether it is worth going on.

        The first is sent as Lemmy sends an upload. The others are imported: every version validates both alike (recorded), and an
        import has a name of our choice, which is on record before anything is sent.
        """
        alias = f"{PREFIX}{secrets.token_hex(8)}.{sample.ending}" if imported else ""
        began = self.clock()
        put = Put(alias, Sha256(sha256(data).hexdigest()), len(data), sample.content_type)
        self._note(put)
        told = self.server.upload(data, sample.content_type, alias=alias)
        if not told.alias:
            return self._declined(sample.format, told, put, began)
        put = self._note(Put(told.alias, put.sha256, put.size, put.content_type), instead_of=put)
        stored, content_type = self.server.fetch(told.alias, MOST)
        name = Sha256(sha256(stored).hexdigest())
        if self.server.version != "0.4":
            item = self.server.find(name, len(stored), content_type)
            if item is None:
                words = "pict-rs hands out other bytes than it lists; is there a proxy between it and this machine?"
                return Station(sample.format, False, words), "", True
            self._note(Put(told.alias, put.sha256, put.size, content_type, item.key), instead_of=put)
        answers = self.ledger.uploads.answers(name)
        if not answers:
            return Station(sample.format, False, self._instead(NOT_ASKED, began)), "", False
        last = answers[-1]
        if not last.passed:
            words = f"the gate refused it ({last.why.words}), and pict-rs published it all the same: what answers for the gate?"
            return Station(sample.format, False, words), "", False
        if last.ref.size != len(stored):
            words = f"the gate has {last.ref.size} bytes on record, and pict-rs {len(stored)}"
            return Station(sample.format, False, words), "", True
        words = f"on record as pict-rs lists it: {name[:12]}…, {len(stored):,} bytes"
        if last.why is AnswerReason.BROKEN:
            return Station(sample.format, True, f"{words}. CANNOT BE OPENED HERE: it passes as a debt"), "unopened", True
        return Station(sample.format, True, words + (f"; as a debt ({last.why.words})" if last.debt else "")), "opened", True

    def _declined(self, format: str, told: UploadAnswer, put: Put, began: datetime) -> tuple[Station, str, bool]:
        """What an upload that pict-rs did not take says."""
        mine = self._about(put, began)
        for answer in mine:
            if answer.passed and answer.sha256 is not None and (answer.sha256 == put.sha256 or answer.why is AnswerReason.BROKEN):
                self._passed[answer.sha256] = (answer.ref.size, answer.claimed)
        self._forget(put)
        if told.code == UNHEARD:
            return Station(format, False, self._instead(NO_NAME, began)), "", False
        if told.refused_by_validator:
            refused = [answer for answer in mine if not answer.passed]
            if not refused:
                return Station(format, False, self._instead(ANOTHER_REFUSES, began)), "", False
            last = refused[-1]
            if last.why in UNREADABLE:
                return (
                    Station(format, False, f"this gate could not read it: {last.problem or last.why.words}. {DROPS}"),
                    "",
                    False,
                )
            if last.why is AnswerReason.BROKEN:
                return Station(format, True, "refused by the gate: it cannot be opened here"), "unopened", True
            rule = self._rule(last)
            if rule:
                words = f"refused here by your own policy, rule {rule}; on record, so uploads reach this gate"
                return Station(format, True, words), "stopped", True
            return Station(format, False, f"the gate refused this harmless file ({last.why.words})"), "", True
        if told.code in NOT_A_FORMAT or told.code.startswith("validate-") or (not told.code and self.server.version == "0.4"):
            return Station(format, True, f"not taken here: {told.words}"), "not taken", True
        return Station(format, False, f"pict-rs did not take it: {told.words}"), "", True

    def _about(self, put: Put, began: datetime) -> list[Answer]:
        """What the gate answered about it since then. Others upload meanwhile: the same bytes tell, else the same type."""
        since = [answer for answer in self._since(began) if not answer.drill]
        same = [answer for answer in since if answer.sha256 == put.sha256]
        alike = [answer for answer in since if answer.claimed.startswith(put.content_type)]
        return same or alike or [answer for answer in since if not answer.passed]

    def _rule(self, answer: Answer) -> str:
        """The rule of the policy that refused these bytes; "" where it was none."""
        if answer.sha256 is None or answer.why not in (AnswerReason.LOOKED, AnswerReason.KNOWN):
            return ""
        for store, key in self.ledger.platforms.holding(answer.sha256):
            entry = self.ledger.entry(store, key)
            if entry is not None and entry.decision is not None and entry.decision.step is Step.QUARANTINE:
                return entry.decision.rule
        return ""

    def _refused(self, drill: bytes) -> Station:
        """The drill picture, as Lemmy sends an upload."""
        began = self.clock()
        put = self._note(Put("", Sha256(sha256(drill).hexdigest()), len(drill), PNG))
        told = self.server.upload(drill, PNG)
        answers = [answer for answer in self._since(began) if answer.drill and not answer.passed]
        if told.alias:
            self._note(Put(told.alias, put.sha256, put.size, PNG), instead_of=put)
            instead = "the gate refused the drill picture and pict-rs published it: what answers for the gate?"
            return Station("drill", False, instead if answers else self._instead(NOT_ASKED, began))
        self._forget(put)
        if told.code == UNHEARD:
            return Station("drill", False, self._instead(NO_NAME, began))
        if not told.refused_by_validator:
            return Station("drill", False, f"pict-rs did not take the drill picture, and asked nobody: {told.words}")
        if not answers:
            return Station("drill", False, self._instead(ANOTHER_REFUSES, began))
        return Station("drill", True, "the drill picture was refused through pict-rs, and is on record")

    def _since(self, began: datetime) -> list[Answer]:
        return self.ledger.uploads.since(began)

    def _instead(self, words: str, began: datetime) -> str:
        """With what the gate was sent meanwhile, and what pict-rs itself tells, from 0.6 on, of whom it asks; never the secret."""
        words += _unread(self._since(began))
        try:
            limits = self.server.limits()
        except FediwardenError:
            return words
        if limits is None:
            return words
        if not limits.validator:
            return f"{words}. It says that it asks nobody"
        asked = asked_at(limits.validator)
        return f"{words}. It says that it asks {asked}" + ("" if not self.given or asked == self.given else f", not {self.given}")

    # -- what is left behind ----------------------------------------------------------------------------------------------

    def clean_up(self, run: RunId) -> Station | None:
        """Have pict-rs delete what this drill put into it; None where it put nothing. Bounded by `purging`.

        What the ledger holds of it ends as well: objects that are no more, and debts over what nobody will ever look at.
        """
        station = None
        if self._puts:
            try:
                station = self._swept("cleaned up", "of this drill")
            except FediwardenError as error:
                station = Station("cleaned up", False, f"{error}; the next `fediwarden drill gate` tries again")
        now = self.clock()
        ended = (self._contents | self._gone_again()) - {digest for put in self._puts for digest in put.contents}
        for digest in sorted(ended):
            for store, key in self.ledger.platforms.holding(digest):
                entry = self.ledger.entry(store, key) if store == self.store else None
                if entry is not None and not entry.gone:
                    ref = ObjectRef(store, key, 0, key)
                    self.ledger.record(run, [(Look(ref, Standing.GONE, now, problem="the drill is over"), None)])
        debts = [debt for debt in self.ledger.uploads.debts(self.engine) if debt.sha256 in ended]
        self.ledger.uploads.lapse(debts, "the drill is over", now)
        return station

    def _gone_again(self) -> set[Sha256]:
        """What the gate let through, pict-rs declined after that, and does not have now under another's name."""
        ended = set[Sha256]()
        for digest, (size, claimed) in self._passed.items():
            with suppress(Unreached):  # it may be there: the debt stays until somebody has looked
                if self.server.version == "0.4" or self.server.find(digest, size, claimed) is None:
                    ended.add(digest)
        return ended

    def _swept(self, name: str, whose: str) -> Station:
        """Purge what is on record as put, and see it gone.

        Raises: Refused. What does not answer, or with an error, in the middle of a purge has not done it yet.
        """
        end: float | None = None  # counted from when all is asked for
        pause = ASK_AGAIN
        asked, shared = set[Sha256](), list[Put]()
        number = 0
        while True:
            problem = ""
            left = list[Put]()
            for put in list(self._puts):
                try:
                    if put.sha256 not in asked:
                        put, alone = self._purged(put)
                        asked.add(put.sha256)
                        number += bool(put.alias) and alone
                        if not alone:
                            shared.append(put)
                    if put not in shared and not self._is_gone(put):
                        left.append(put)
                except Refused:
                    raise
                except Unreached as error:
                    problem = str(error)
                    left.append(put)
            self._keep(left)
            end = time.monotonic() + self.purging if end is None else end
            if not left or time.monotonic() >= end or self.stop.is_set():
                break
            self.stop.wait(pause)
            pause = min(SELDOM, pause * 2)
        if shared:
            names = ", ".join(put.alias for put in shared)
            self._contents -= {digest for put in shared for digest in put.contents}  # they are another's as well
            return Station(name, False, f"others have uploaded the same bytes as {names}: that alias is left; delete it by hand")
        if left:
            of = f"{len(left)} of {_files(max(number, len(left)))} left ({left[0].alias or left[0].key})"
            words = f"pict-rs took the purge and has not done it after {self.purging:g} s: {of}"
            words += f". It said last: {problem}" if problem else ""
            return Station(name, False, f"{words}; the next `fediwarden drill gate` asks again")
        return Station(name, True, f"pict-rs has deleted {_files(number)} {whose}")

    def _purged(self, put: Put) -> tuple[Put, bool]:
        """Ask for one to be deleted, and whether that was done: not where it would take what others uploaded along."""
        if not put.alias:  # cut off before pict-rs had named it
            item = None if self.server.version == "0.4" else self.server.find(put.sha256, put.size, put.content_type)
            if item is None or not item.aliases:
                return put, True
            put = self._note(Put(item.aliases[0], put.sha256, put.size, put.content_type, item.key), instead_of=put)
        ours = {put.alias for put in self._puts}
        aliases = self.server.aliases(put.alias)
        if set(aliases) - ours:
            return put, False
        if aliases:
            with suppress(Gone):  # by itself, meanwhile
                self.server.purge(put.alias)
        return put, True

    def _is_gone(self, put: Put) -> bool:
        if not put.alias:
            return True  # it was not there to be purged
        try:
            self.server.head(put.alias)
        except Gone:
            return True
        return False

    def _remembered(self) -> list[Put]:
        rows = _list(self.ledger.watching.mark(self._mark).get("put"))
        return [Put(*row) for row in rows if isinstance(row, list) and len(row) == 5]

    @property
    def _mark(self) -> str:
        return f"drill put {self.store}"

    def _note(self, put: Put, instead_of: Put | None = None) -> Put:
        self._keep([*(one for one in self._puts if one != instead_of), put])
        return put

    def _forget(self, put: Put) -> None:
        self._keep([one for one in self._puts if one != put])

    def _keep(self, puts: list[Put]) -> None:
        self._contents.update(*(put.contents for put in puts))
        if puts != self._puts or not puts:
            self._puts = puts
            self.ledger.watching.remember(self._mark, {"put": [one.row() for one in puts]}, self.clock())


def asked_at(address: str) -> str:
    """Host and port of a validator's address, without its secret."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "no address at all"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _files(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
