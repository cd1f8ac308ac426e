"""What a store costs in which nothing happens, by signal: the real `watch` over a million objects that it knows already.

    python -m bench.idle [--objects 1000000] [--minutes 5] [--only newest]

The folder and the SSH host (OpenSSH) hold so many small files; pict-rs and the S3 server are stand-ins that make their pages up, in the
form and of the size of real ones. Everything between watch and store goes through a relay that counts bytes. For each signal: the whole listing at the
start (seconds, requests, bytes, processor seconds of the watch), then the rest, after a while of settling: requests and bytes an hour,
the share of a core, memory. A rest costs under 100 requests an hour where keys carry their date or pict-rs answers; exit code 1 if not.
"""

import argparse
import base64
import json
import os
import re
import selectors
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from tests.support.command import Home
from tests.support.fake_pictrs import FakePictrs, running_pictrs
from tests.support.measuring import metrics, rest, sample
from tests.support.media_makers import still
from tests.support.models import installed_models
from tests.support.servers import free_ports, running_ssh
from tests.support.watching import key_at

from fediwarden.app import App
from fediwarden.model import Blob, ObjectRef, Sha256
from fediwarden.policy import decide

BYTES = still("png", 16, 16)
APART = timedelta(seconds=66)  # between two uploads: a million in two years
TOGETHER = 1000  # files in a folder
PREFIX = "media"
ASKED = 100  # requests an hour at most
SETTLING = 65.0  # seconds after the listing that do not count
SIGNALS = ("newest", "dated keys", "dated folder", "events", "listing S3", "listing SSH")


class Relay:
    """Passes on what comes to its port, and counts it."""

    def __init__(self, to: int) -> None:
        self.bytes = 0
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._to)) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            chosen = selectors.DefaultSelector()
            chosen.register(client, selectors.EVENT_READ, server)
            chosen.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in chosen.select():
                    data = key.fileobj.recv(1 << 18)  # type: ignore[union-attr]
                    if not data:
                        return
                    self.bytes += len(data)
                    key.data.sendall(data)


class BigPictrs(FakePictrs):
    """A pict-rs whose items are made up as they are asked for; item 0 is the oldest."""

    count = 0
    began = datetime.now(UTC)

    def _item(self, number: int) -> dict[str, Any]:
        at = self.began - (self.count - number) * APART
        name = number.to_bytes(32, "big") + len(BYTES).to_bytes(6, "big") + b"\x02"
        details = {"width": 64, "height": 48, "frames": None, "content_type": "image/png", "format": "Image"}
        details["created_at"] = at.isoformat().replace("+00:00", "Z")
        return {"hex": name.hex(), "aliases": [f"{number:032x}.png"], "details": details}

    def page(self, slug: str | None, timestamp: str | None, limit: int) -> dict[str, Any]:
        """As its parent's."""
        first = self.count - 1
        if slug:
            first = int.from_bytes(base64.urlsafe_b64decode(slug)[:32], "big")
        items = [self._item(number) for number in range(first, max(-1, first - limit), -1)]
        page: dict[str, Any] = {"limit": limit, "hashes": items}
        if first >= limit:
            page["next"] = base64.urlsafe_b64encode(bytes.fromhex(self._item(first - limit)["hex"])).decode()
        return page


class BigS3(ThreadingHTTPServer):
    """An S3 server whose one bucket, "media", can be listed and nothing else."""

    daemon_threads = True

    def __init__(self, count: int) -> None:
        super().__init__(("127.0.0.1", 0), _S3Handler)
        now = datetime.now(UTC) - timedelta(days=1)
        self.times = [now - (count - number) * APART for number in range(count)]
        self.keys = [f"{PREFIX}/{key_at(at, number)}" for number, at in enumerate(self.times)]  # in order

    def page(self, query: dict[str, str]) -> bytes:
        """ListObjectsV2 (the S3 API reference of AWS), what of it a listing needs."""
        prefix, most = query.get("prefix", ""), int(query.get("max-keys", "1000"))
        first = max(bisect_left(self.keys, prefix), bisect_right(self.keys, query.get("start-after", "")))
        first = int(query.get("continuation-token", first))
        last = min(first + most, len(self.keys))
        while last > first and not self.keys[last - 1].startswith(prefix):
            last -= 1
        entries = "".join(
            f"<Contents><Key>{quote(self.keys[number])}</Key><LastModified>{self.times[number]:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
            f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{len(BYTES)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(first, last)
        )
        more = last < len(self.keys) and last > first
        token = f"<NextContinuationToken>{last}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>media</Name>'
            f"<Prefix>{quote(prefix)}</Prefix><KeyCount>{last - first}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<EncodingType>url</EncodingType><IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{entries}</ListBucketResult>"
        ).encode()


class _S3Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BigS3

    def do_GET(self) -> None:
        """A page; anything else is not expected here."""
        query = dict(parse_qsl(self.path.partition("?")[2], keep_blank_values=True))
        body = self.server.page(query) if "list-type" in query else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@dataclass
class Stage:
    """Where the stores are."""

    place: Path
    count: int

    def files(self, *, dated: bool) -> Path:
        """So many files, hard links of a few, in folders of a thousand; made once."""
        root = self.place / ("dated" if dated else "plain")
        if root.is_dir():
            return root
        began, now = time.monotonic(), datetime.now(UTC)
        source = self.place / "source"
        old = time.time() - 3600
        for number in range(self.count):
            if number % 20_000 == 0:  # a file system bounds how many names one file may have
                source.unlink(missing_ok=True)
                source.write_bytes(BYTES)
                os.utime(source, (old, old))
            name = f"{number:09x}.png"
            if number % TOGETHER == 0:
                at = now - timedelta(days=1) - (self.count - number) * APART
                below = root / (PREFIX + "/" + key_at(at).rpartition("/")[0] if dated else f"{number // TOGETHER:04}")
                below.mkdir(parents=True)
            os.link(source, below / name)
        print(f"{self.count} files in {time.monotonic() - began:.0f} s", file=sys.stderr)
        return root


@dataclass
class Cost:
    """What was measured of one signal."""

    signal: str
    objects: int
    listing_s: float = 0.0
    listing_requests: int = 0
    listing_mb: float = 0.0
    listing_cpu_s: float = 0.0
    idle_requests_an_hour: float = 0.0
    idle_mb_an_hour: float = 0.0
    idle_share_of_a_core: float = 0.0
    bare_share_of_a_core: float = 0.0  # of a process that does nothing but wake as often
    idle_wakes_a_second: float = 0.0
    memory_mb: float = 0.0
    ledger_mb: float = 0.0


def know_all(home: Home, template: Path) -> int:
    """Put a look at every object of the only store into the ledger, as if it had been scanned; returns how many there are.

    `template` is a ledger that knows as many, or is made to be one: half a million looks take minutes, other keys for them seconds.
    """
    app = App(home.environment)
    if template.is_file():
        shutil.copyfile(template, home.folder / "ledger.sqlite3")
        with app.readers([]) as readers:
            return rename_all(home.folder / "ledger.sqlite3", readers[0].list())
    known = 0
    with app.looking() as looker, app.readers([]) as readers:
        run = app.ledger.begin("scan", {"by": "bench"}, app.clock())
        pattern = None
        for page in readers[0].list():
            app.ledger.settle(run, page, looker.engine)
            pattern = pattern or looker.look(Blob(page[0], BYTES, Sha256(sha256(BYTES).hexdigest())))
            decision = decide(pattern, app.policy)
            looks = [(replace(pattern, ref=ref, sha256=Sha256(sha256(ref.key.encode()).hexdigest())), decision) for ref in page]
            app.ledger.record(run, looks)
            known += len(page)
        app.ledger.end(run, "finished", {"listed": known}, app.clock())
    app.ledger.close()
    with sqlite3.connect(home.folder / "ledger.sqlite3") as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(home.folder / "ledger.sqlite3", template)
    return known


def rename_all(path: Path, pages: Iterator[Sequence[ObjectRef]]) -> int:
    """Give the objects of a ledger other keys; returns how many there are."""
    columns = ((number, ref) for number, ref in enumerate((ref for page in pages for ref in page), start=1))
    with sqlite3.connect(path) as ledger:
        ledger.execute("PRAGMA synchronous = OFF")
        ledger.execute("UPDATE objects SET key = CAST('old ' || id AS BLOB)")
        ledger.executemany(
            "UPDATE objects SET key = ?, size = ?, stamp = ?, modified = ? WHERE id = ?",
            (
                (ref.key.encode(), ref.size, ref.stamp, ref.modified and ref.modified.isoformat(), number)
                for number, ref in columns
            ),
        )
        (known,) = ledger.execute("SELECT COUNT(*) FROM objects WHERE key NOT LIKE 'old %'").fetchone()
        return int(known)


def measure(signal: str, home: Home, relay: Relay | None, minutes: float) -> Cost:
    """Watch the only store of a home."""
    name = "store"
    began = time.monotonic()
    known = know_all(home, home.folder.parent / "template")
    print(f"{known} put into the ledger in {time.monotonic() - began:.0f} s", file=sys.stderr)
    port = free_ports(1)[0]
    home.settings["FEDIWARDEN_WATCH__METRICS"] = f"127.0.0.1:{port}"
    cost = Cost(signal, known)
    cost.ledger_mb = sum(file.stat().st_size for file in home.folder.glob("ledger.sqlite3*")) / 1e6

    def numbers() -> tuple[float, float]:
        now = metrics(port)
        return now[f'fediwarden_store_requests_total{{store="{name}"}}'], float(relay.bytes if relay else 0)

    before = relay.bytes if relay else 0
    process = home.start("watch")
    began = time.monotonic()
    try:
        swept = 0.0
        while not swept:
            time.sleep(0.5)
            assert process.poll() is None, process.communicate()[1].decode()[-2000:]
            with suppress(OSError):
                swept = metrics(port).get(f'fediwarden_store_swept_timestamp_seconds{{store="{name}"}}', 0.0)
        first = sample(process.pid, port, began)
        requests, transferred = numbers()
        cost.listing_s, cost.listing_requests, cost.listing_cpu_s = first.at, int(requests), first.cpu
        cost.listing_mb = (transferred - before) / 1e6
        time.sleep(SETTLING)
        metrics(port)  # the ledger is counted for that, seldom, by whoever asks: no part of a rest
        asked_at, (requests, transferred) = time.monotonic(), numbers()
        idle = rest(process.pid, port, began, minutes * 60)
        (more, moved), hours = numbers(), (time.monotonic() - asked_at) / 3600
    finally:
        process.terminate()
        process.communicate()
    cost.idle_requests_an_hour = (more - requests) / hours
    cost.idle_mb_an_hour = (moved - transferred) / hours / 1e6
    cost.idle_share_of_a_core, cost.bare_share_of_a_core = idle.cpu, idle.bare_cpu
    cost.idle_wakes_a_second = idle.wakes
    cost.memory_mb = idle.end.memory_mb
    return cost


def new_home(stage: Stage, signal: str) -> Home:
    """A home of its own for each."""
    home = Home(stage.place / re.sub(r"\W", "-", signal))
    home.run("init", "--profile", "other")
    (home.folder / "models").symlink_to(installed_models())
    return home


def costs(stage: Stage, wanted: list[str], minutes: float) -> Iterator[Cost]:
    """Of each signal wanted."""
    if "newest" in wanted:
        big = BigPictrs()
        big.count = stage.count
        with running_pictrs(big):
            relay, home = Relay(big.port), new_home(stage, "newest")
            key = stage.place / "pictrs.toml"
            key.write_text(f'api_key = "{big.api_key}"\n')
            key.chmod(0o600)
            home.add_store("store", url=f"pictrs://127.0.0.1:{relay.port}", credentials=key)
            yield measure("newest", home, relay, minutes)
    for signal, dated in (("dated folder", True), ("events", False)):
        if signal in wanted:
            home = new_home(stage, signal)
            root = stage.files(dated=dated)
            home.add_store("store", url=root / PREFIX if dated else root)
            yield measure(signal, home, None, minutes)
    if "listing SSH" in wanted:
        with running_ssh(stage.place / "ssh") as server:
            relay, home = Relay(server.port), new_home(stage, "listing SSH")
            known = stage.place / "known_hosts"
            known.write_text(server.known_hosts.read_text().replace(str(server.port), str(relay.port)))
            home.add_store(
                "store",
                url=f"sftp://{server.user}@127.0.0.1:{relay.port}{stage.files(dated=False)}",
                credentials=server.credentials(stage.place),
                known_hosts=known,
            )
            yield measure("listing SSH", home, relay, minutes)
    if {"dated keys", "listing S3"} & set(wanted):
        with BigS3(stage.count) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            relay, credentials = Relay(int(server.server_address[1])), stage.place / "s3.toml"
            credentials.write_text('access_key_id = "reader"\nsecret_access_key = "dummy"\n')
            credentials.chmod(0o600)
            for signal, url in (("dated keys", f"s3://media/{PREFIX}/"), ("listing S3", "s3://media")):
                if signal in wanted:
                    home = new_home(stage, signal)
                    home.add_store("store", url=url, endpoint=f"http://127.0.0.1:{relay.port}", credentials=credentials)
                    yield measure(signal, home, relay, minutes)
            server.shutdown()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=5.0, help="of rest, for each signal")
    parser.add_argument(
        "--template", type=Path, help="a ledger that knows so many objects, which an earlier run left; saves minutes"
    )
    parser.add_argument("--only", choices=SIGNALS, nargs="*", default=list(SIGNALS))
    options = parser.parse_args()
    over = False
    place = Path(tempfile.mkdtemp(prefix="idle-"))
    try:
        if options.template:
            shutil.copyfile(options.template, place / "template")
        for cost in costs(Stage(place, options.objects), options.only, options.minutes):
            print(
                json.dumps({name: round(value, 5) if isinstance(value, float) else value for name, value in vars(cost).items()})
            )
            sys.stdout.flush()
            over = over or (cost.signal in ("newest", "dated keys") and cost.idle_requests_an_hour > ASKED)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
