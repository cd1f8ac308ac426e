"""Numbers for Prometheus and a page for health checks, on an address of the operator's choice; tells no key, no name of a picture."""

import selectors
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from threading import Lock, Thread
from typing import TYPE_CHECKING, ClassVar

import structlog

from fediwarden import __version__
from fediwarden.errors import FediwardenError, Misconfigured
from fediwarden.ledger import Ledger, Totals, UploadTotals
from fediwarden.model import EngineVersion
from fediwarden.watch.lanes import Turns
from fediwarden.watch.state import Board

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = structlog.get_logger("fediwarden")

FRESH = 60.0  # seconds that the ledger's numbers are kept, at least
AT_REST = 100  # times as long as counting took, they are kept: over a million objects it takes seconds (bench/RESULTS.md)
BUCKETS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the ledger tells in numbers."""

    totals: Totals
    uploads: UploadTotals
    oldest: Mapping[str, datetime]
    used: int
    allowance: int
    at: datetime


class Ledgers:
    """The ledger's numbers, counted anew only when asked for, and so rarely that it takes a hundredth of the time."""

    def __init__(self, count: Callable[[], Numbers], ticks: Callable[[], float]) -> None:
        self._count = count
        self._ticks = ticks
        self._lock = Lock()
        self._known: Numbers | None = None
        self._until = 0.0

    def __call__(self) -> Numbers:
        """The numbers of now, or of a little while ago."""
        with self._lock:
            if self._known is None or self._ticks() >= self._until:
                began = self._ticks()
                self._known = self._count()
                ended = self._ticks()
                self._until = ended + max(FRESH, (ended - began) * AT_REST)
            return self._known


def counted(ledger: Ledger, engine: EngineVersion, now: datetime, since: datetime, allowance: int) -> Numbers:
    """Count; `since` is when the day of the allowance began."""
    return Numbers(
        ledger.totals(engine),
        ledger.uploads.totals(engine, since),
        ledger.watching.oldest(engine),
        ledger.acted(since, drill=False),
        allowance,
        now,
    )


class Collector:
    """Everything that is measured, under the names of docs/monitoring.md."""

    def __init__(self, board: Board, turns: Turns, numbers: Callable[[], Numbers], engine: EngineVersion, policy: str) -> None:
        self._board = board
        self._turns = turns
        self._numbers = numbers
        self._engine = engine
        self._policy = policy

    def describe(self) -> Iterator["Metric"]:
        """Nothing beforehand, so that registering counts nothing."""
        return iter(())

    def collect(self) -> Iterator["Metric"]:
        """Each metric with its present value."""
        yield from self._of_the_ledger()
        yield from self._of_the_watch()

    def _of_the_ledger(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        now = self._numbers()
        totals, uploads = now.totals, now.uploads

        def gauge(name: str, meaning: str, value: float) -> "Metric":
            return GaugeMetricFamily(f"fediwarden_{name}", meaning, value=value)

        yield gauge("objects", "Objects that lie in the stores.", totals.objects)
        yield gauge("looked_at_objects", "Of these: settled by the engine version of now.", totals.looked_at)
        lacking = GaugeMetricFamily("fediwarden_not_scanned", "Objects that are not scanned, by reason.", labels=["reason"])
        oldest = GaugeMetricFamily(
            "fediwarden_not_scanned_oldest_seconds", "How long ago the oldest of them came in, by reason.", labels=["reason"]
        )
        for reason in sorted({*totals.lacking, *now.oldest}):
            lacking.add_metric([reason], totals.lacking.get(reason, 0))
            if reason in now.oldest:
                oldest.add_metric([reason], max(0.0, (now.at - now.oldest[reason]).total_seconds()))
        yield lacking
        yield oldest
        yield gauge("not_scanned_objects", "Objects that are not scanned, for whatever reason.", totals.not_scanned)
        yield gauge("empty_objects", "Files without a byte, which hold nothing to scan.", totals.empty)
        yield gauge("suspected_objects", "Objects about which quarantine is decided.", totals.flagged)
        yield gauge("review_objects", "Objects that a person should look at.", totals.review)
        yield gauge("owed_objects", "Suspected and not yet hidden.", totals.owed)
        yield gauge("hidden_objects", "Hidden, could be restored.", totals.hidden)
        yield gauge("debts", "Uploads that passed unscanned and were not looked at since.", uploads.debts)
        yield gauge("debts_broken", "Of these: looked at, and could not be decoded.", uploads.debts_broken)
        age = (now.at - uploads.oldest_debt).total_seconds() if uploads.oldest_debt else 0.0
        yield gauge("debts_oldest_seconds", "Age of the oldest debt.", max(0.0, age))
        answers = GaugeMetricFamily(
            "fediwarden_gate_answers_today", "Answers of the gate since midnight UTC.", labels=["passed", "why"]
        )
        for passed, group in (("yes", uploads.passed), ("no", uploads.refused)):
            for why, count in group.items():
                answers.add_metric([passed, why.value], count)
        yield answers
        unreadable = GaugeMetricFamily(
            "fediwarden_gate_last_ten",
            "Of the last ten answers of the gate: about uploads that could not be read.",
            labels=["why"],
        )
        unreadable.add_metric(["broken"], uploads.last_ten.broken)
        unreadable.add_metric(["misread"], uploads.last_ten.misread)
        yield unreadable
        yield gauge("allowance", "Objects that may be hidden in a day.", now.allowance)
        yield gauge("allowance_left", "How many more may be hidden today.", max(0, now.allowance - now.used))
        yield CounterMetricFamily("fediwarden_lapsed_debts", "Debts whose object never came.", value=uploads.lapsed)

    def _of_the_watch(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

        seen = self._board.picture()
        yield InfoMetricFamily(
            "fediwarden_engine",
            "What looks and what decides.",
            value={"engine": self._engine, "policy": self._policy, "version": __version__},
        )
        yield GaugeMetricFamily("fediwarden_blind", "Whether new media are not looked at just now.", value=bool(seen.blind))
        for name, meaning, counts in (
            ("looks", "Looks by this process, by how far they got.", seen.looks),
            ("part_restarts", "Parts that failed and began anew.", seen.restarts),
            ("notices", "Notices and heartbeats, by what became of them.", seen.notices),
        ):
            label = {"looks": "standing", "part_restarts": "part", "notices": "outcome"}[name]
            counter = CounterMetricFamily(f"fediwarden_{name}", meaning, labels=[label])
            for value, count in sorted(counts.items()):
                counter.add_metric([value], count)
            yield counter
        queue = GaugeMetricFamily("fediwarden_queue", "Objects that wait for their turn to be looked at.", labels=["lane"])
        queue.add_metric(["arrivals"], sum(state.left for state in seen.stores.values()))
        queue.add_metric(["back-catalogue"], self._turns.waiting[False])
        yield queue
        lag = HistogramMetricFamily(
            "fediwarden_arrival_lag_seconds",
            "From coming in to being looked at, of the last arrivals.",
            buckets=[
                *((str(most), sum(one <= most for one in seen.arrivals)) for most in BUCKETS),
                ("+Inf", len(seen.arrivals)),
            ],
            sum_value=sum(seen.arrivals),
        )
        yield lag
        per_store = {
            "store_lag_seconds": "From coming in to being looked at, of the newest arrival.",
            "store_silent_seconds": "Since the store should have told what is new.",
            "store_failures": "Questions in a row that got no answer.",
            "store_requests_last_hour": "Listing requests in the last hour.",
            "store_doubted": "Whether its last complete listing was not believed: it held far too little.",
            "store_swept_timestamp_seconds": "When the last complete listing began; 0: never.",
        }
        gauges = {name: GaugeMetricFamily(f"fediwarden_{name}", meaning, labels=["store"]) for name, meaning in per_store.items()}
        arrivals = CounterMetricFamily("fediwarden_store_arrivals", "New objects that were told of.", labels=["store"])
        requests = CounterMetricFamily("fediwarden_store_requests", "Requests sent to the store.", labels=["store"])
        signal = GaugeMetricFamily("fediwarden_store_signal", "How the store tells what is new.", labels=["store", "signal"])
        for store, state in seen.stores.items():
            gauges["store_lag_seconds"].add_metric([store], state.lag)
            gauges["store_silent_seconds"].add_metric([store], seen.silent[store])
            gauges["store_failures"].add_metric([store], state.failures)
            gauges["store_requests_last_hour"].add_metric([store], state.listing_last_hour)
            gauges["store_doubted"].add_metric([store], bool(state.doubt))
            gauges["store_swept_timestamp_seconds"].add_metric([store], state.swept.timestamp() if state.swept else 0)
            arrivals.add_metric([store], state.arrivals)
            requests.add_metric([store], state.requests)
            signal.add_metric([store, state.signal], 1)
        yield from gauges.values()
        yield arrivals
        yield requests
        yield signal


class MetricsPage:
    """Serves /metrics and /healthz until it is closed."""

    def __init__(self, address: str, collector: Collector, board: Board) -> None:
        """Listens. Raises: Misconfigured where that address cannot be had, or prometheus-client is not installed."""
        try:
            from prometheus_client import CollectorRegistry, generate_latest
        except ImportError as error:
            raise Misconfigured(
                "metrics need prometheus-client", hint="install fediwarden[watch], or leave [watch] metrics empty"
            ) from error
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)

        class Handler(_Handler):
            answers: ClassVar[Mapping[str, Callable[[], tuple[HTTPStatus, bytes]]]] = {
                "/metrics": lambda: (HTTPStatus.OK, generate_latest(registry)),
                "/healthz": lambda: _health(board),
            }

        self._server = _listening(address, Handler)
        self._thread = Thread(target=self._server.serve, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.end()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Ends with the process, says nothing about clients that hang up, and sleeps until somebody asks.

    `serve_forever` wakes several times a second to see whether it is to end, which is most of what a quiet watch would cost.
    """

    daemon_threads = True
    timeout = 0  # of `handle_request`, which is called when somebody has come

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._ending, self._end = socket.socketpair()
        super().__init__(address, handler)  # closes again where it cannot listen

    def serve(self) -> None:
        """Until the end."""
        with selectors.DefaultSelector() as selector:
            for one in (self.socket, self._ending):
                selector.register(one, selectors.EVENT_READ)
            while self._ending not in [key.fileobj for key, _ in selector.select()]:
                self.handle_request()

    def end(self) -> None:
        """Wake it up to end."""
        self._end.close()

    def server_close(self) -> None:
        """Stop listening."""
        super().server_close()
        self._end.close()
        self._ending.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """One line in the log instead of a traceback on the terminal."""
        log.warning("metrics not told", problem=repr(sys.exception())[:200])


class _Handler(BaseHTTPRequestHandler):
    """Answers GET on two paths; its own words tell nothing of the program."""

    answers: ClassVar[Mapping[str, Callable[[], tuple[HTTPStatus, bytes]]]] = {}
    timeout = 10  # of a connection that says nothing
    server_version = ""
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        answer = self.answers.get(self.path)
        try:
            status, body = (HTTPStatus.NOT_FOUND, b"") if answer is None else answer()
        except FediwardenError as error:
            log.warning("metrics not told", problem=str(error))
            status, body = HTTPStatus.SERVICE_UNAVAILABLE, b"the ledger cannot be read just now\n"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _health(board: Board) -> tuple[HTTPStatus, bytes]:
    blind = board.blind
    if blind:
        return HTTPStatus.SERVICE_UNAVAILABLE, ("blind\n" + "\n".join(blind) + "\n").encode()
    return HTTPStatus.OK, b"watching\n"


def _listening(address: str, handler: type[BaseHTTPRequestHandler]) -> "_Server":
    host, _, port = address.rpartition(":")
    try:
        return _Server((host.strip("[]") or "127.0.0.1", int(port)), handler)
    except (OSError, ValueError, OverflowError) as error:
        raise Misconfigured(
            f"cannot listen on {address!r} for metrics: {error}",
            hint="set [watch] metrics to an address such as 127.0.0.1:9470",
        ) from error


def check(address: str, *, taken: str) -> None:
    """Whether metrics could be served there; `taken` is where they are already. Raises: Misconfigured."""
    if find_spec("prometheus_client") is None:
        raise Misconfigured("metrics need prometheus-client", hint="install fediwarden[watch], or leave [watch] metrics empty")
    if address != taken:
        _listening(address, _Handler).server_close()
