"""The drill through a pict-rs: what it says where uploads do not reach this gate, and that nothing of it is left behind."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from threading import Event
from typing import Any

import pytest
from tests.support.core import Core
from tests.support.fake_pictrs import KEY, RECORDED, FakePictrs, Refusal, Row, Seen, running_pictrs

from fediwarden.cli.common import Run
from fediwarden.cli.drill import _ended
from fediwarden.drill import Station
from fediwarden.drill_uploads import Formats, Through, asked_at
from fediwarden.errors import Exit, Gone
from fediwarden.ledger import GATE
from fediwarden.media.samples import SampleFile, samples
from fediwarden.model import (
    Answer,
    AnswerReason,
    Decision,
    EngineVersion,
    Look,
    ObjectRef,
    Reason,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
)
from fediwarden.platforms.pictrs.server import Server

MEDIA = StoreName("media")
ONE = [SampleFile("png", "image/png", b"stands for a picture")]
DRILL = b"stands for a drill picture"


@pytest.fixture(params=RECORDED)
def fake(request: pytest.FixtureRequest) -> Iterator[FakePictrs]:
    with running_pictrs(FakePictrs(version=request.param)) as running:
        yield running


Made = Callable[[FakePictrs, Core], Through]


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Makes drills, which wait less than real ones; what they opened is closed at the end."""
    monkeypatch.setattr("fediwarden.drill_uploads.ASK_AGAIN", 0.01)
    monkeypatch.setattr("fediwarden.drill_uploads.SELDOM", 0.05)
    servers: list[Server] = []

    def make(fake: FakePictrs, core: Core) -> Through:
        servers.append(Server(fake.url, key=KEY, seconds=5))
        return Through(servers[-1], MEDIA, core.ledger, EngineVersion("1"), lambda: datetime.now(UTC), Event(), purging=0.3)

    yield make
    for server in servers:
        server.close()


def told(drill: Through, made: list[SampleFile] = ONE) -> list[Station]:
    return list(drill.stations(made, DRILL))


def left(fake: FakePictrs) -> dict[bytes, Row]:
    """What it still has once its queue is done."""
    fake.tick()
    return fake.rows


@contextmanager
def answering(status: int | Callable[[bytes], int], place: str = "") -> Iterator[str]:
    """Another validator, which answers everything alike, or as it is told for a picture; its address."""

    class Always(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size + 2)[:-2]
            self.rfile.readline()
            if body.startswith(b"--"):  # the form of 0.6
                body = body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
            self.send_response(status if isinstance(status, int) else status(body))
            if place:
                self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:  # where 0.5.16 comes after a redirect
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Always) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/validate/somebody"
        finally:
            server.shutdown()
            thread.join()


def test_a_pict_rs_that_asks_nobody_is_told_and_the_file_that_it_published_is_deleted(fake: FakePictrs, through: Made) -> None:
    core = Core()
    drill = through(fake, core)

    stations = told(drill)
    cleaned = drill.clean_up(core.begun("drill gate"))

    assert [(station.name, station.passed) for station in stations] == [("pict-rs", True), ("png", False)]
    assert stations[-1].detail.startswith("pict-rs published it without this gate")
    assert cleaned == Station("cleaned up", True, "pict-rs has deleted 1 file of this drill")
    assert not drill.proved
    assert left(fake) == {}


@pytest.mark.parametrize(("status", "words"), [(200, "published it without this gate"), (403, "that was not this gate")])
def test_a_pict_rs_that_asks_another_validator_is_told_whatever_that_one_answers(
    fake: FakePictrs, through: Made, status: int, words: str
) -> None:
    core = Core()
    drill = through(fake, core)
    with answering(status) as fake.validator:
        last = told(drill)[-1]
    drill.clean_up(core.begun("drill gate"))

    assert not last.passed
    assert words in last.detail
    assert ("It says that it asks 127.0.0.1:" in last.detail) == fake.version.startswith("0.6")
    assert "somebody" not in last.detail  # the other one's secret
    assert left(fake) == {}


def test_a_validator_that_redirects_is_told_whether_pict_rs_follows_and_publishes_or_not(fake: FakePictrs, through: Made) -> None:
    core = Core()
    drill = through(fake, core)
    with answering(200) as target, answering(301, target) as fake.validator:
        last = told(drill)[-1]
    drill.clean_up(core.begun("drill gate"))

    assert not last.passed
    assert ("published it without this gate" in last.detail) == (fake.version == "0.5.16")  # it passes there
    assert "redirects" in last.detail
    assert left(fake) == {}


def test_a_validator_that_has_a_name_in_place_of_numbers_is_explained(fake: FakePictrs, through: Made) -> None:
    with answering(200) as validator:
        fake.validator = validator.replace("127.0.0.1", "localhost")
        drill = through(fake, Core())
        last = told(drill)[-1]
        drill.clean_up(Core().begun("drill gate"))

    assert not last.passed
    assert ("finds no private address by its name" in last.detail) == (fake.version != "0.5.16")


def test_a_validator_that_cannot_be_reached_is_explained_with_private_addresses_by_name(fake: FakePictrs, through: Made) -> None:
    fake.validator = "http://127.0.0.1:9/validate/nobody"
    drill = through(fake, Core())

    last = told(drill)[-1]

    assert not last.passed
    assert "From 0.5.21 on it finds no private address by its name" in last.detail
    assert drill.clean_up(Core().begun("drill gate")) is None


def test_what_a_killed_drill_left_is_deleted_by_the_next_and_nothing_else(fake: FakePictrs, through: Made) -> None:
    core = Core()
    fake.put(b"somebody's picture", "image/png", alias="theirs.png")

    killed = through(fake, core)
    killed.server.fetch = lambda alias, limit: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        told(killed)
    assert len(fake.rows) == 2
    # and one that pict-rs had not even answered yet: only its hash tells
    cut = through(fake, core)
    cut.server.upload = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        told(cut, [SampleFile("png", "image/png", b"another picture")])
    fake.put(b"another picture", "image/png")

    after = through(fake, core)
    stations = told(after)
    after.clean_up(core.begun("drill gate"))

    assert stations[0].name == "left over"
    assert stations[0].passed
    assert [alias for row in fake.rows.values() for alias in row.aliases] == ["theirs.png"]


def test_a_purge_that_is_slow_is_said_and_asked_for_again_by_the_next_drill(fake: FakePictrs, through: Made) -> None:
    core = Core()
    fake.job_delay = None
    drill = through(fake, core)
    told(drill)

    cleaned = drill.clean_up(core.begun("drill gate"))

    assert cleaned is not None
    assert not cleaned.passed
    assert "has not done it after 0.3 s: 1 of 1 file left" in cleaned.detail
    fake.job_delay = 0.02
    assert told(through(fake, core))[0] == Station("left over", True, "pict-rs has deleted 1 file of a drill that was cut off")


def test_bytes_that_somebody_else_uploaded_too_are_not_purged(fake: FakePictrs, through: Made) -> None:
    core = Core()
    drill = through(fake, core)
    told(drill)
    fake.put(b"stands for a picture", "image/png", alias="theirs.png")

    cleaned = drill.clean_up(core.begun("drill gate"))

    assert cleaned is not None
    assert not cleaned.passed
    assert "delete it by hand" in cleaned.detail
    assert fake.data("theirs.png") == b"stands for a picture"


@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/image/original/"), ("GET", "/internal/aliases"), ("POST", "/internal/purge")]
)
def test_a_pict_rs_that_answers_500_in_the_middle_of_a_purge_is_asked_again_and_only_then_said_to_fail(
    fake: FakePictrs, through: Made, method: str, path: str
) -> None:
    core = Core()
    drill = through(fake, core)
    told(drill)
    failures = [3]

    def stumbling(seen: Seen) -> None:
        if seen.method == method and seen.path.startswith(path) and failures[0]:
            failures[0] -= 1
            raise Refusal(500, "Error in database", "sled-error")

    fake.before = stumbling
    drill.purging = 10

    assert drill.clean_up(core.begun("drill gate")) == Station("cleaned up", True, "pict-rs has deleted 1 file of this drill")
    assert left(fake) == {}

    ill = through(fake, core)
    told(ill)
    failures[0], fake.job_delay = 10_000, None
    cleaned = ill.clean_up(core.begun("drill gate"))
    assert cleaned is not None
    assert not cleaned.passed
    assert f"500 {'sled-error' if method != 'HEAD' else ''}".strip() in cleaned.detail
    assert path.rpartition("/")[2] in cleaned.detail


def test_the_end_of_a_purge_may_come_between_a_head_that_fails_and_the_question_why(fake: FakePictrs) -> None:
    fake.put(b"a picture", "image/png", alias="one.png")

    def purged(seen: Seen) -> None:
        if seen.method == "HEAD":
            fake.forget("one.png")
            raise Refusal(500, "", "not-found")

    fake.before = purged
    with closing(Server(fake.url, key=KEY)) as server, pytest.raises(Gone):
        server.head("one.png")


def recorded(
    core: Core, data: bytes, why: AnswerReason, *, passed: bool, claimed: str = "image/png", key: str = "", **more: Any
) -> None:
    """What a gate puts on record of an upload."""
    name = Sha256(sha256(data).hexdigest())
    ref = ObjectRef(MEDIA if passed else GATE, key or f"{name}{len(data):012x}07", len(data), key)
    answer = Answer(
        ref, datetime.now(UTC), "pict-rs", passed, why, name, claimed, debt=passed and why is AnswerReason.BROKEN, **more
    )
    looks: list[tuple[Look, Decision | None]] = []
    if why is AnswerReason.LOOKED and not passed:
        told = Decision(Step.QUARANTINE, "no still pictures", "a stand-in")
        looks = [(Look(ref, Standing.SEEN, datetime.now(UTC), name, EngineVersion("1")), told)]
    elif why is AnswerReason.BROKEN:
        looks = [(Look(ref, Standing.BROKEN, datetime.now(UTC), name, EngineVersion("1"), reason=Reason.UNSUPPORTED), None)]
    core.ledger.record(core.begun("gate"), looks, [answer])


@contextmanager
def gate_of(core: Core, why: AnswerReason, *, passed: bool, key: str = "") -> Iterator[str]:
    """A gate that answers all alike, and the drill picture as a drill; its address. Put behind `fake.validator`."""

    def judged(data: bytes) -> int:
        if data == DRILL:
            recorded(core, data, AnswerReason.LOOKED, passed=False, drill=True)
            return 406
        if why is AnswerReason.MISREAD:
            ref = ObjectRef(GATE, "", 0, "")
            answer = Answer(ref, datetime.now(UTC), "pict-rs", False, why, None, "image/png", problem="an empty body")
            core.ledger.record(core.begun("gate"), [], [answer])
        else:
            recorded(core, data, why, passed=passed, key=key)
        return 200 if passed else 406

    with answering(judged) as address:
        yield address


def test_a_format_that_the_administrators_own_policy_hides_is_proved_by_its_refusal(fake: FakePictrs, through: Made) -> None:
    core = Core()
    drill = through(fake, core)
    with gate_of(core, AnswerReason.LOOKED, passed=False) as fake.validator:
        stations = told(drill)

    assert stations[1] == Station(
        "png", True, "refused here by your own policy, rule no still pictures; on record, so uploads reach this gate"
    )
    assert [station.passed for station in stations] == [True] * len(stations)
    assert drill.proved
    last = Formats.last(core.ledger, MEDIA)
    assert last is not None
    assert (last.stopped, last.opened) == (("png",), ())


@pytest.mark.parametrize("why", [AnswerReason.BUSY, AnswerReason.FAILED])
def test_a_gate_that_could_not_look_says_so_in_words(fake: FakePictrs, through: Made, why: AnswerReason) -> None:
    core = Core()
    with gate_of(core, why, passed=False) as fake.validator:
        station = told(through(fake, core))[1]

    assert station == Station("png", False, f"the gate refused this harmless file ({why.words})")


def test_a_proxy_that_drops_the_body_is_named_by_what_the_gate_was_sent(fake: FakePictrs, through: Made) -> None:
    core = Core()
    with gate_of(core, AnswerReason.MISREAD, passed=False) as fake.validator:
        refused = told(through(fake, core))[-1]
    with gate_of(core, AnswerReason.MISREAD, passed=True) as fake.validator:  # the proxy says yes by itself
        drill = through(fake, core)
        published = told(drill)[-1]
        drill.clean_up(core.begun("drill gate"))

    assert not refused.passed
    assert not published.passed
    assert "this gate could not read it: an empty body. A proxy on the way drops or alters the body" in refused.detail
    assert "published it without this gate" in published.detail
    assert "this gate refused what it could not read: an empty body. A proxy on the way drops" in published.detail


@pytest.mark.parametrize("declines", [True, False], ids=["declined after the gate", "taken"])
def test_a_drill_leaves_no_debt_and_nothing_that_is_broken_whatever_pict_rs_made_of_a_file(
    fake: FakePictrs, through: Made, declines: bool
) -> None:
    """A JPEG XL passes the gate as a debt; up to 0.5.16 pict-rs takes it, later ones decline it only then. The gate may know it by another key."""
    core = Core()
    if declines:
        fake.broken[ONE[0].data or b""] = "blurhash"
    drill = through(fake, core)
    recorded(core, b"somebody's", AnswerReason.BROKEN, passed=True)
    with gate_of(core, AnswerReason.BROKEN, passed=True, key="as the gate named it") as fake.validator:
        stations = told(drill)
        drill.clean_up(core.begun("drill gate"))

    assert stations[1].detail.startswith("not taken here") == (declines and fake.since(0, 5, 17))
    assert [debt.sha256 for debt in core.ledger.uploads.debts(EngineVersion("1"))] == [sha256(b"somebody's").hexdigest()]
    left = [entry.sha256 for entry in core.ledger.entries(store=MEDIA) if not entry.gone]
    assert left == [sha256(b"somebody's").hexdigest()]


def test_a_format_that_pict_rs_does_not_take_is_no_failure_and_a_pict_rs_that_is_ill_is_one(
    fake: FakePictrs, through: Made
) -> None:
    def ill(seen: Seen) -> None:
        if seen.path == "/image":
            raise Refusal(500, "Error in store", "object-request-error")

    fake.broken[b"stands for an AVIF"] = "magick"
    drill = through(fake, Core())
    stations = told(
        drill, [SampleFile("avif", "image/avif", b"stands for an AVIF"), SampleFile("webm", "video/webm", None, "no encoder")]
    )
    assert [(station.passed, station.detail.partition(":")[0]) for station in stations[1:3]] == [
        (True, "not taken here"),
        (True, "not tried"),
    ]
    assert (stations[3].name, stations[3].passed) == ("formats", False)

    fake.before = ill
    assert told(through(fake, Core()))[1] == Station(
        "png", False, "pict-rs did not take it: 500 object-request-error Error in store"
    )


def test_a_drill_ends_at_once_where_pict_rs_is_away() -> None:
    core = Core()
    with closing(Server("http://127.0.0.1:9", key=KEY)) as away:
        stations = told(Through(away, MEDIA, core.ledger, EngineVersion("1"), core.clock, Event()))

    assert [station.passed for station in stations] == [False]
    assert "gave no complete answer" in stations[0].detail
    assert Formats.last(core.ledger, MEDIA) is None


def test_there_is_a_harmless_file_of_each_format_and_no_two_drills_send_the_same() -> None:
    first, second = list(samples(1)), list(samples(2))

    formats = [sample.format for sample in first]
    assert formats[:5] == ["png", "jpeg", "webp", "avif", "gif"]
    assert {"gif animation", "webp animation", "apng", "avif animation", "mp4", "webm", "heic", "jxl"} <= set(formats)
    assert all(sample.data is not None and len(sample.data) < 1 << 20 for sample in first)
    assert all(one.data != two.data for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("http://172.30.89.2:8970/validate/a-secret", "172.30.89.2:8970"),
        ("https://user:word@gate.example/validate/a-secret", "gate.example:443"),
        ("http://[::1]:8970/validate/a-secret", "[::1]:8970"),
        ("http://gate:99999/", "no address at all"),
    ],
)
def test_the_address_that_pict_rs_tells_is_shown_without_its_secret(address: str, place: str) -> None:
    assert asked_at(address) == place


@pytest.mark.parametrize(
    ("passed", "unproved", "words", "code"),
    [
        (True, "", "the gate works end to end\n", Exit.OK),
        (True, "not proved: it", "the gate works when it is asked; not proved: it\n", Exit.OK),
        (False, "", "the gate is broken at: refused\n", Exit.NOT_SCANNED),
    ],
)
def test_a_gate_that_nobody_asked_through_pict_rs_is_not_said_to_work_end_to_end(
    capsys: pytest.CaptureFixture[str], passed: bool, unproved: str, words: str, code: Exit
) -> None:
    ended = _ended(Run(RunId(1)), [Station("refused", passed, "looked")], "the gate", json=False, unproved=unproved)

    assert ended == code
    assert capsys.readouterr().out == words
