"""Who is told what, and what can be measured: counts only, nothing lost over a restart, nothing contacted that was not named."""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import httpx2
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs
from tests.support.core import Core
from tests.support.watching import DatedStore, Watching

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.ledger import GATE
from fediwarden.model import Answer, AnswerReason, EngineVersion, ObjectRef, Sha256, StoreName
from fediwarden.pipeline import Tally
from fediwarden.stores.memory import Kept
from fediwarden.watch.metrics import Collector, Ledgers, MetricsPage, Numbers, check, counted
from fediwarden.watch.notices import QUIET, DayTotals, Notice, Notices, Occasions, UploadNotices, Webhook
from fediwarden.watch.state import Board

MONITORING = Path(__file__).parents[3] / "deploy/monitoring"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@dataclass
class Box:
    """Keeps what was sent, or fails."""

    notes: list[Notice] = field(default_factory=list)
    broken: bool = False

    def send(self, note: Notice, at: datetime) -> None:
        if self.broken:
            raise OSError("no route")
        self.notes.append(note)

    @property
    def kinds(self) -> list[str]:
        return [note.kind for note in self.notes]


@dataclass
class Telling:
    """Notices over a core, with clocks to turn."""

    core: Core = field(default_factory=Core)
    box: Box = field(default_factory=Box)
    occasions: Occasions = field(default_factory=lambda: Occasions(digest_hour=-1))
    allowance: int = 50
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.board = Board(3600, lambda: self.seconds)
        self.begin()

    def begin(self) -> Notices:
        engine = EngineVersion(self.core.engine)
        self.notices = Notices(
            self.core.ledger,
            engine,
            self.board,
            [self.box],
            self.occasions,
            lambda: DayTotals(self.core.ledger.totals(engine), self.allowance, self.allowance),
            self.core.clock,
            lambda: self.seconds,
            Event(),
        )
        return self.notices

    def upload(self, key: str, data: bytes) -> None:
        self.core.store.put(key, data)
        self.core.scan()

    def later(self, seconds: float) -> None:
        self.seconds += seconds
        self.core.clock.turn(seconds=seconds)
        self.notices.turn()


def test_what_is_suspected_is_told_at_once_in_numbers_only_and_once() -> None:
    telling = Telling(allowance=0)
    telling.upload("secret-name.png", b"bad secret bytes")
    telling.notices.turn()
    telling.notices.turn()
    telling.begin().turn()

    assert telling.box.kinds == ["flagged"]
    text = json.dumps([telling.box.notes[0].lines, dict(telling.box.notes[0].counts)])
    assert "secret" not in text
    assert "1 more object is suspected" in text
    assert not re.search(r"[0-9a-f]{16}|guilty|criminal|abus", text)


def answered(core: Core, *whys: AnswerReason, drill: bool = False) -> None:
    for why in whys:
        passed = why is not AnswerReason.MISREAD
        digest = None if why is AnswerReason.MISREAD else Sha256(f"{core.begun():064x}")
        ref = ObjectRef(GATE, "", 9, "")
        answer = Answer(ref, core.clock(), "pict-rs", passed, why, digest, debt=why is AnswerReason.BROKEN, drill=drill)
        core.ledger.record(core.begun(), [], [answer])


def test_five_of_the_last_ten_uploads_that_cannot_be_read_are_told_by_the_gate_alone_and_once() -> None:
    telling = Telling()
    seconds = [0.0]

    def gate() -> UploadNotices:
        return UploadNotices(telling.core.ledger, [telling.box], telling.core.clock, lambda: seconds[0], Event())

    notices = gate()
    answered(telling.core, *[AnswerReason.LOOKED] * 10, *[AnswerReason.BROKEN] * 4)
    answered(telling.core, *[AnswerReason.BROKEN] * 4, drill=True)
    notices.turn()
    assert telling.box.kinds == []
    telling.box.broken = True
    answered(telling.core, AnswerReason.MISREAD)
    notices.turn()  # no way out just now

    telling.box.broken = False
    for _ in range(2):
        notices = gate()  # another life
        notices.turn()
    telling.notices.turn()  # a watch over the same ledger
    assert telling.box.kinds == ["unreadable"]
    assert dict(telling.box.notes[0].counts) == {"broken": 4, "misread": 1, "answers": 10}
    answered(telling.core, *[AnswerReason.LOOKED] * 10)
    notices.turn()
    answered(telling.core, *[AnswerReason.BROKEN] * 5)
    seconds[0] += QUIET
    notices.turn()
    assert telling.box.kinds == ["unreadable"] * 2


def test_a_listing_that_is_not_believed_is_told_once_and_again_after_it_was_mended() -> None:
    telling = Telling(allowance=0)
    for number in range(10):
        telling.core.store.put(f"secret {number}", b"dark %d" % number)
    telling.core.scan()
    held = telling.core.store._objects.copy()

    def scanned(objects: dict[str, Kept]) -> None:
        telling.core.store._objects.clear()
        telling.core.store._objects.update(objects)
        telling.core.scan()
        telling.later(120)

    for objects in ({}, {}, held, {}):
        scanned(objects)

    assert telling.box.kinds == ["doubted", "doubted"]
    assert "10 are missing" in telling.box.notes[0].lines[1]
    assert "secret" not in json.dumps(telling.box.notes[0].lines)


def test_a_flood_is_two_notes_and_what_was_suspected_before_the_first_watch_is_none() -> None:
    core = Core()
    core.store.put("before", b"bad, before anybody watched")
    core.scan()
    telling = Telling(core, allowance=0)
    for number in range(10):
        telling.upload(f"{number}", b"bad %d" % number)
        telling.later(10)
    telling.later(QUIET)

    assert [note.counts["flagged"] for note in telling.box.notes] == [1, 9]


def test_an_allowance_that_is_used_up_is_told_once_a_day() -> None:
    telling = Telling(allowance=1)
    telling.upload("a", b"bad")
    for _ in range(5):
        telling.later(120)
    assert telling.box.kinds.count("allowance") == 1
    telling.later(24 * 3600)
    assert telling.box.kinds.count("allowance") == 2


def test_blindness_is_told_when_it_begins_and_when_it_ends_and_stops_the_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []

    def fetched(url: str, **_: object) -> httpx2.Response:
        beats.append(url)
        return httpx2.Response(200, request=httpx2.Request("GET", url))

    monkeypatch.setattr(httpx2, "get", fetched)
    telling = Telling(occasions=Occasions(digest_hour=-1, heartbeat="https://beat.example/secret", heartbeat_seconds=300))
    telling.board.answered(StoreName("media"))
    telling.later(1)
    telling.later(400)
    assert len(beats) == 2
    telling.later(3700)
    telling.later(400)
    assert (len(beats), telling.box.kinds) == (2, ["blind"])
    telling.board.answered(StoreName("media"))
    telling.later(1)
    assert (len(beats), telling.box.kinds) == (3, ["blind", "seeing"])
    assert "secret" not in repr(telling.occasions)


def test_a_life_in_which_nothing_was_told_yet_sends_no_heartbeat_and_does_not_see_again(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []

    def fetched(url: str, **_: object) -> httpx2.Response:
        beats.append(url)
        return httpx2.Response(200, request=httpx2.Request("GET", url))

    monkeypatch.setattr(httpx2, "get", fetched)
    telling = Telling(occasions=Occasions(digest_hour=-1, heartbeat="https://beat.example/x"))
    telling.board.store(StoreName("media"))
    telling.later(3700)
    assert (beats, telling.box.kinds) == ([], ["blind"])

    telling.board = Board(3600, lambda: telling.seconds)  # it dies, and is started again
    telling.board.store(StoreName("media"))
    telling.begin()
    telling.later(60)
    assert (beats, telling.box.kinds) == ([], ["blind"])
    telling.board.answered(StoreName("media"))
    telling.later(1)
    assert (len(beats), telling.box.kinds) == (1, ["blind", "seeing"])


def test_what_could_not_be_delivered_is_delivered_by_the_next_life() -> None:
    telling = Telling(allowance=0)
    telling.box.broken = True
    telling.upload("a", b"bad")
    telling.notices.turn()
    telling.box.broken = False
    telling.begin().turn()
    telling.begin().turn()
    assert telling.box.kinds == ["flagged"]


def test_a_look_that_never_ends_is_blindness_and_a_long_wait_between_two_questions_is_not() -> None:
    seconds = 0.0
    board = Board(3600, lambda: seconds)
    board.answered(StoreName("media"), 0, 36_000.0)
    seconds = 30_000.0
    assert board.blind == []
    with board.looking():
        seconds += 3000
        board.looked(Tally(), Tally(seen=1))
        seconds += 3000
        assert board.blind == []
        seconds += 3000
        assert len(board.blind) == 1
    assert board.blind == []
    seconds = 36_000.0 + 3601
    assert len(board.blind) == 1  # the question was due an hour ago


def test_looks_that_fail_for_an_hour_are_blindness_and_one_that_works_ends_it() -> None:
    telling = Telling()
    telling.board.looked(Tally(), Tally(unreached=3))
    telling.later(3000)
    assert telling.board.blind == []
    telling.board.looked(Tally(unreached=3), Tally(unreached=6))
    telling.later(700)
    assert telling.box.kinds == ["blind"]
    telling.board.looked(Tally(unreached=6), Tally(unreached=6, seen=1))
    assert telling.board.blind == []


def test_the_digest_comes_once_a_day_whatever_restarts() -> None:
    telling = Telling(occasions=Occasions(digest_hour=7), allowance=0)
    for _ in range(3 * 24 * 2):
        telling.later(1800)
        if telling.seconds % 7200 == 0:
            telling.begin()

    assert telling.box.kinds == ["digest"] * 4  # at noon of the first day, and on three mornings
    assert set(telling.box.notes[0].counts) >= {"not_scanned", "owed", "debts", "blind"}


def test_what_could_not_be_delivered_is_tried_again_and_the_address_is_in_no_log() -> None:
    telling = Telling(allowance=0)
    telling.box.broken = True
    telling.upload("a", b"bad")
    with capture_logs() as logs:
        telling.notices.turn()
        telling.later(30)
    telling.box.broken = False
    telling.later(100)

    assert telling.box.kinds == ["flagged"]
    assert [event["error"] for event in logs if event["event"] == "notice not delivered"] == ["OSError"]
    assert "hooks.example" not in repr(Webhook("https://hooks.example/secret"))


def test_a_webhook_gets_json_with_counts() -> None:
    class Hook(BaseHTTPRequestHandler):
        got: ClassVar[list[dict[str, object]]] = []

        def do_POST(self) -> None:
            self.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        Thread(target=server.handle_request, daemon=True).start()
        note = Notice("flagged", ("a line",), {"flagged": 2})
        Webhook(f"http://127.0.0.1:{server.server_address[1]}/x").send(note, Core().clock())
    (got,) = Hook.got
    assert (got["kind"], got["text"], got["counts"]) == ("flagged", "a line", {"flagged": 2})


# -- metrics -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Collector:
    """Over a store in which a little of everything happened."""
    watching = Watching(DatedStore())
    for number, data in enumerate([b"dark", b"bad", b"hmm", b"broken"]):
        watching.upload(data, number)
    watching.sweep()
    watching.upload(b"dark, new", 9)
    watching.watch.round()
    watching.board.restarted("gaps memory")
    watching.board.told("delivered")
    ledger, now = watching.core.ledger, watching.clock()
    engine = EngineVersion(watching.core.engine)
    return Collector(watching.board, watching.turns, lambda: counted(ledger, engine, now, now, 50), engine, "policy")


def names(text: str) -> set[str]:
    """Names of our metrics in any text; what a histogram is made of counts as the histogram."""
    found = set(re.findall(r"\bfediwarden_[a-z_]+", text))
    return {re.sub(r"(?<=lag_seconds)_(?:bucket|sum|count)$", "", name) for name in found}


def test_the_dashboard_the_alerts_and_the_page_name_exactly_what_is_measured(collector: Collector) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    measured = set(names(generate_latest(registry).decode()))
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    asked = names(" ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]))
    alerts = (MONITORING / "alerts.yml").read_text()
    page = (MONITORING.parents[1] / "docs/monitoring.md").read_text()
    always = measured | {"fediwarden_gate_answers_today", "fediwarden_lapsed_debts_total"}

    assert len(measured) > 20
    assert asked <= always
    assert names("\n".join(re.findall(r"expr: (.*)", alerts))) <= always
    assert names(page) - always == set()
    assert {name for name in measured if not name.endswith("_created")} - names(page) == set()
    told = set(re.findall(r"alert: (\w+)", alerts))
    assert told == set(re.findall(r"^\| (Fediwarden\w+) \|", page, re.MULTILINE))


def test_the_page_is_unhealthy_when_blind_and_tells_no_key(collector: Collector) -> None:
    seconds = 0.0
    board = Board(60, lambda: seconds)
    board.answered(StoreName("media"))
    page = MetricsPage("127.0.0.1:0", collector, board)
    try:
        url = f"http://127.0.0.1:{page.port}"
        assert httpx2.get(f"{url}/healthz").text == "watching\n"
        metrics = httpx2.get(f"{url}/metrics")
        assert metrics.status_code == 200
        assert ".jpeg" not in metrics.text
        assert 'fediwarden_not_scanned{reason="broken: truncated"} 1.0' in metrics.text
        assert 'fediwarden_looks_total{standing="seen"} 4.0' in metrics.text
        assert httpx2.get(f"{url}/secrets").status_code == 404
        seconds = 120.0
        blind = httpx2.get(f"{url}/healthz")
        assert (blind.status_code, "media" in blind.text) == (503, True)
        assert "Python" not in blind.headers.get("server", "")
    finally:
        page.close()


def test_a_picture_of_the_board_is_a_copy() -> None:
    board = Board(60, lambda: 0.0)
    board.answered(StoreName("media"), 3)
    before = board.picture()
    board.answered(StoreName("media"), 4)
    assert before.stores[StoreName("media")].arrivals == 3
    assert replace(before.stores[StoreName("media")], arrivals=7) == board.picture().stores[StoreName("media")]


def test_a_ledger_that_cannot_be_read_is_one_line_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> Numbers:
        raise CannotWrite("the ledger is busy")

    watching = Watching(DatedStore())
    page = MetricsPage(
        "127.0.0.1:0", Collector(watching.board, watching.turns, fails, EngineVersion("1"), "policy"), watching.board
    )
    try:
        assert httpx2.get(f"http://127.0.0.1:{page.port}/metrics").status_code == 503
    finally:
        page.close()
    assert capsys.readouterr().err == ""


def test_an_address_for_metrics_is_tried_before_it_is_relied_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(Misconfigured):
            check(taken, taken="")
        check(taken, taken=taken)
    with pytest.raises(Misconfigured):
        check("nonsense", taken="")
    check("127.0.0.1:0", taken="")


def test_numbers_that_take_long_to_count_are_counted_seldom() -> None:
    core = Core()
    seconds, takes, times = 0.0, 0.1, 0

    def count() -> Numbers:
        nonlocal seconds, times
        seconds += takes
        times += 1
        return counted(core.ledger, EngineVersion(core.engine), core.clock(), core.clock(), 50)

    numbers = Ledgers(count, lambda: seconds)
    numbers()
    seconds += 59
    numbers()
    assert times == 1
    seconds += 1
    takes = 3.0
    numbers()
    assert times == 2
    seconds += 299
    numbers()
    assert times == 2
    seconds += 1
    numbers()
    assert times == 3
