"""A stand-in for pict-rs 0.5 and 0.4 that keeps its traps: queued purges, listings that begin anew, one row for equal bytes.

Written from what its source says of the HTTP interface, not from the program under test: it computes hashes itself and shares no
code with `fediwarden.platforms`. It decodes no picture; `alters` and `render` stand for what pict-rs does to bytes. As a client
it posts every upload to `validator` the way pict-rs does, and keeps or deletes it by the answer.
"""

import base64
import hashlib
import http.client
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from uuid import UUID, uuid4

ANIMATED = {"image/apng": 0, "image/avif": 1, "image/gif": 2, "image/webp": 3}
STILL = {"image/avif": 4, "image/jpeg": 5, "image/jxl": 6, "image/png": 7, "image/webp": 8, "video/mp4": 9, "video/webm": 10}
KEY = "x" * 20 + "-the-api-key"  # what pict-rs was given as PICTRS__SERVER__API_KEY
AGENT = "pict-rs v0.5.0-main"


def hash_of(data: bytes, content_type: str, *, animated: bool = False) -> bytes:
    """The 39 bytes by which pict-rs 0.5 names a content."""
    known = (ANIMATED, STILL) if animated else (STILL, ANIMATED)
    number = known[0].get(content_type, known[1].get(content_type))
    if number is None:
        raise Refusal(400, "Uploaded file type is not supported", "validate-no-files")
    return hashlib.sha256(data).digest() + len(data).to_bytes(6, "big") + bytes([number])


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@dataclass
class Row:
    """One content: a row of `hashes` with what hangs on it."""

    hash: bytes
    identifier: str
    at: datetime  # the row's own time, by which listings are ordered; after validation
    details: dict[str, Any] | None
    aliases: dict[str, str] = field(default_factory=dict)  # alias: delete token
    variants: dict[str, str] = field(default_factory=dict)  # "thumbnail/256/webp": identifier

    @property
    def content_type(self) -> str:
        return str((self.details or {}).get("content_type", "application/octet-stream"))


@dataclass(frozen=True)
class Seen:
    """One request that came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case


@dataclass(frozen=True)
class Upload:
    """What the one who uploaded was told."""

    status: int
    alias: str = ""
    code: str = ""
    seconds: float = 0.0  # that the validator took


class FilesBelow(MutableMapping[str, bytes]):
    """Objects as files below a folder, as pict-rs' file store keeps them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except OSError as error:
            raise KeyError(key) from error

    def __setitem__(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def __delitem__(self, key: str) -> None:
        try:
            (self.root / key).unlink()
        except OSError as error:
            raise KeyError(key) from error

    def __iter__(self) -> Iterator[str]:
        return (str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _rendered(data: bytes, variant: str) -> bytes:
    return f"{variant} of ".encode() + hashlib.sha256(data).digest()


@dataclass
class FakePictrs:
    """The server's state, with the hands of its administrator. Get one with `running_pictrs()`."""

    version: str = "0.5"
    repo: str = "postgres"  # or "sled": they differ in what a timestamp older than everything gives
    api_key: str = KEY
    validator: str = ""  # address of the external validation
    validator_timeout: float = 30.0
    objects: MutableMapping[str, bytes] = field(default_factory=dict)
    alters: Callable[[bytes], bytes] = bytes  # what ingesting does to the bytes (metadata taken off, say)
    render: Callable[[bytes, str], bytes] = _rendered
    job_delay: float | None = 0.02  # seconds until a queued job is run; None: only `tick` runs them
    read_only: bool = False
    blurhashes: bool = False  # listings make a blurhash of every row that lacks one, as from 0.5.17 on
    public: bool = False  # send who asks for an original to a public endpoint, at another port
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    before: Callable[[Seen], None] = lambda seen: None  # runs before a request is answered; may change state or raise Refusal
    changed: Callable[[], None] = lambda: None  # runs after state changed, holding the lock: mirrors it into a database
    port: int = 0
    public_port: int = 0

    def __post_init__(self) -> None:
        self.rows: dict[bytes, Row] = {}  # by hash; by bare SHA-256 on 0.4
        self.proxies: dict[str, str] = {}  # remote URL: alias
        self.remote: dict[str, tuple[bytes, str]] = {}  # the internet: what a remote URL gives
        self.not_found: str | None = None  # alias of the picture that stands for missing ones
        self.blurred: set[bytes] = set()  # hashes that have their blurhash
        self.poison: dict[bytes, tuple[int, str, str]] = {}  # hashes of which none can be made: status, code, message
        self.hides_prev = False  # as a pict-rs of which we know nothing yet may do
        self.jobs: deque[Callable[[], None]] = deque()
        self.seen: list[Seen] = []
        self.public_seen: list[Seen] = []
        self.lock = threading.RLock()
        self._last = datetime.min.replace(tzinfo=UTC)
        self._counter = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- the administrator's hands ----------------------------------------------------------------------------------------

    def put(
        self,
        data: bytes,
        content_type: str = "image/jpeg",
        *,
        alias: str = "",
        animated: bool = False,
        created: datetime | None = None,
        at: datetime | None = None,
    ) -> str:
        """Store bytes as an upload that passed would have been, without asking the validator; its alias."""
        created = created or self.clock()
        with self.lock:
            alias = self._add(self._store(data, content_type, created), data, content_type, animated, created, alias, at)
            self.changed()
        return alias

    def put_many(self, pictures: "list[tuple[bytes, str, str]]") -> None:
        """Store many (data, content type, alias) at once, oldest first."""
        with self.lock:
            for data, content_type, alias in pictures:
                now = self.clock()
                self._add(self._store(data, content_type, now), data, content_type, False, now, alias, None)
            self.changed()

    def row(self, alias: str) -> Row | None:
        with self.lock:
            return next((row for row in self.rows.values() if alias in row.aliases), None)

    def data(self, alias: str) -> bytes | None:
        row = self.row(alias)
        return None if row is None else self.objects.get(row.identifier)

    def variant(self, alias: str, variant: str = "thumbnail/256/webp") -> str:
        """Make a rendering, as a visitor asking for it would; its identifier."""
        with self.lock:
            row = self.row(alias)
            assert row is not None
            if variant not in row.variants:
                identifier = self._identifier("image/webp", self.clock())
                self.objects[identifier] = self.render(self.objects[row.identifier], variant)
                row.variants[variant] = identifier
                self.changed()
            return row.variants[variant]

    def proxied(self, url: str, data: bytes, content_type: str = "image/png") -> str:
        """A cached copy of a remote picture; its alias."""
        alias = self.put(data, content_type)
        with self.lock:
            self.proxies[url] = alias
            self.changed()
        return alias

    def in_flight(self, data: bytes, at: datetime | None = None) -> str:
        """Bytes of an upload in the background that was not ingested yet: an object without a row; its identifier."""
        with self.lock:
            identifier = self._identifier("", at or self.clock())
            self.objects[identifier] = data
        return identifier

    def forget(self, alias: str) -> None:
        """Delete a content at once, as the last step of a purge does."""
        with self.lock:
            row = self.row(alias)
            assert row is not None
            for known in list(row.aliases):
                self._drop_alias(known)
            self._drop_row(row)
            self.tick()

    def tick(self) -> None:
        """Run every queued job, and those that they queue."""
        with self.lock:
            while self.jobs:
                self.jobs.popleft()()
            self.changed()

    def purged(self) -> bool:
        """Whether nothing is left of anything: rows, aliases, objects."""
        with self.lock:
            return not self.rows and not self.jobs and not len(self.objects)

    # -- ingesting --------------------------------------------------------------------------------------------------------

    def upload(self, data: bytes, content_type: str = "image/jpeg", *, alias: str = "", animated: bool = False) -> Upload:
        """One upload, validated from outside as pict-rs does it. Never raises: the answer is what a client is told."""
        begun = time.monotonic()
        try:
            name, seconds = self._ingest(data, content_type, alias, animated=animated)
        except Refusal as refusal:
            return Upload(refusal.status, "", refusal.code, time.monotonic() - begun)
        return Upload(201, name, "", seconds)

    def _ingest(self, data: bytes, content_type: str, alias: str, *, animated: bool = False) -> tuple[str, float]:
        """Store, validate, then look whether these bytes are known: in that order, every time."""
        if self.read_only:
            raise Refusal(400, "pict-rs is in read-only mode", "read-only")
        data = self.alters(data)
        hash_of(data, content_type)
        with self.lock:
            created = self.clock()
            identifier = self._store(data, content_type, created)
        seconds = 0.0
        try:
            if self.validator:
                seconds = self._validate(data, content_type)
            with self.lock:
                name = self._add(identifier, data, content_type, animated, created, alias, None)
                self.changed()
        except Refusal:
            with self.lock:
                if all(row.identifier != identifier for row in self.rows.values()):
                    self._later(lambda: self._drop_object(identifier))
            raise
        return name, seconds

    def _validate(self, data: bytes, content_type: str) -> float:
        address = urlsplit(self.validator)
        connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=self.validator_timeout)
        begun = time.monotonic()
        try:
            connection.request(
                "POST",
                address.path + (f"?{address.query}" if address.query else ""),
                body=(data[start : start + 8192] for start in range(0, len(data), 8192)),
                headers={"User-Agent": AGENT, "Content-Type": content_type, "Accept": "*/*", "Transfer-Encoding": "chunked"},
                encode_chunked=True,
            )
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Refusal(500, str(error) or type(error).__name__, "http-client-error") from error
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise Refusal(400, "Failed external validation", "failed-external-validation")
        return time.monotonic() - begun

    def _store(self, data: bytes, content_type: str, created: datetime) -> str:
        identifier = self._identifier(content_type, created)
        self.objects[identifier] = data
        return identifier

    def _add(
        self,
        identifier: str,
        data: bytes,
        content_type: str,
        animated: bool,
        created: datetime,
        alias: str,
        at: datetime | None,
    ) -> str:
        """The rows of one upload. Bytes that are known already keep their object, and this one is dropped."""
        name = hash_of(data, content_type, animated=animated)
        name = name[:32] if self.version == "0.4" else name
        alias = alias or f"{uuid4()}.{content_type.partition('/')[2]}"
        if self.row(alias) is not None:
            raise Refusal(400, "Alias in use", "duplicate-alias")
        row = self.rows.get(name)
        if row is None:
            moment = at or self.clock()
            if at is None and moment <= self._last:
                moment = self._last + timedelta(microseconds=1)
            self._last = max(moment, self._last)
            details: dict[str, Any] = {
                "width": 64,
                "height": 48,
                "frames": 2 if animated else None,
                "content_type": content_type,
                "created_at": created.isoformat().replace("+00:00", "Z"),
            }
            if self.version != "0.4":
                details["format"] = "Video" if content_type.startswith("video/") else "Animation" if animated else "Image"
            row = self.rows[name] = Row(name, identifier, moment, details)
        elif row.identifier != identifier:
            self._later(lambda: self._drop_object(identifier))
        row.aliases[alias] = str(uuid4())
        return alias

    def _identifier(self, content_type: str, at: datetime) -> str:
        if self.version == "0.4":
            self._counter += 1
            return f"00/00/{self._counter:02x}/{uuid4()}"
        head = int(at.timestamp() * 1000).to_bytes(6, "big") + bytes([0x70 | os.urandom(1)[0] & 0x0F]) + os.urandom(9)
        digits = UUID(bytes=head).hex
        folders = "/".join(digits[place : place + 2] for place in range(0, 20, 2))
        return f"{folders}/{digits[20:]}{'.' + content_type.partition('/')[2] if content_type else ''}"

    # -- the queue --------------------------------------------------------------------------------------------------------

    def _later(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def _purge(self, row: Row) -> None:
        self._later(lambda: self._clean_hash(row))

    def _clean_hash(self, row: Row) -> None:
        """A purge's first job: the aliases, each a job; the last of them asks for this again."""
        if row.aliases:
            for alias in list(row.aliases):
                self._later(lambda alias=alias: self._clean_alias(alias))  # type: ignore[misc]
            return
        self._drop_row(row)

    def _clean_alias(self, alias: str) -> None:
        row = self.row(alias)
        if row is None:
            return
        self._drop_alias(alias)
        if not row.aliases:
            self._purge(row)

    def _drop_alias(self, alias: str) -> None:
        row = self.row(alias)
        if row is not None:
            del row.aliases[alias]
        for url in [url for url, name in self.proxies.items() if name == alias]:
            del self.proxies[url]

    def _drop_row(self, row: Row) -> None:
        if row.aliases:
            return  # it was uploaded again in the meantime
        self.rows.pop(row.hash, None)
        for identifier in [row.identifier, *row.variants.values()]:
            self._later(lambda identifier=identifier: self._drop_object(identifier))  # type: ignore[misc]

    def _drop_object(self, identifier: str) -> None:
        self.objects.pop(identifier, None)

    def work(self, stop: threading.Event) -> None:
        """The worker's loop."""
        while not stop.wait(self.job_delay or 0.02):
            if self.job_delay is None:
                continue
            with self.lock:
                waiting = len(self.jobs)
                for _ in range(waiting):  # what these queue waits for the next turn
                    self.jobs.popleft()()
                if waiting:
                    self.changed()

    # -- answering --------------------------------------------------------------------------------------------------------

    def page(self, slug: str | None, timestamp: str | None, limit: int) -> dict[str, Any]:
        """One page of `/internal/hashes`, newest first. What cannot be placed begins anew without a word."""
        ordered = sorted(self.rows.values(), key=lambda row: (row.at, row.hash), reverse=True)
        start, prev = 0, -1
        if timestamp:
            moment = datetime.fromisoformat(timestamp)
            older = next((number for number, row in enumerate(ordered) if row.at < moment), len(ordered))
            if self.repo != "postgres":
                start, prev = (
                    older,
                    max(0, older - 1 - limit) if older else -1,
                )  # one too far: `limit` is counted from the next one
            elif older < len(ordered):
                start, prev = older, max(0, older - limit) if older and limit else -1
        elif slug:
            try:
                meant: bytes | None = base64.b64decode(slug, altchars=b"-_", validate=True)
            except ValueError:
                meant = None
            start = next((number for number, row in enumerate(ordered) if row.hash == meant), 0)
            prev = max(0, start - limit) if start and limit else -1
        shown = ordered[start : start + limit]
        if self.blurhashes:
            for row in shown:
                self._blurhash(row)
        page: dict[str, Any] = {
            "limit": limit,
            "hashes": [{"hex": row.hash.hex(), "aliases": list(row.aliases), "details": row.details} for row in shown],
        }
        if shown:
            page["current"] = _slug(shown[0])
        if prev >= 0 and not self.hides_prev:
            page["prev"] = _slug(ordered[prev])
        if start + limit < len(ordered):
            page["next"] = _slug(ordered[start + limit])
        return page

    def _blurhash(self, row: Row) -> None:
        """What a listing makes of a row that lacks it, from 0.5.17 on: one failure fails the whole page."""
        if row.hash in self.poison:
            status, code, message = self.poison[row.hash]
            raise Refusal(status, message, code)
        if row.hash not in self.blurred:
            if row.identifier not in self.objects:
                raise Refusal(500, "Error in store", "not-found")
            self.blurred.add(row.hash)

    def meant(self, query: dict[str, str]) -> Row | None:
        """What `?alias=` or `?proxy=` names."""
        alias = query.get("alias", "")
        if not alias and "proxy" in query and self.version != "0.4":
            alias = self.proxies.get(query["proxy"], "")
        return self.row(alias)


def _slug(row: Row) -> str:
    return base64.urlsafe_b64encode(row.hash).decode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakePictrs

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_DELETE = do_PUT = do_GET

    def _answer(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Seen(self.command, unquote(address.path), query, headers)
        body = self.rfile.read(int(headers.get("content-length", 0)))
        try:
            self._serve(self.seen, body)
        except Refusal as refusal:
            answer = {"msg": refusal.message} | ({} if self.fake.version == "0.4" else {"code": refusal.code})
            self._json(refusal.status, answer)

    def _serve(self, seen: Seen, body: bytes) -> None:
        self.fake.seen.append(seen)
        self.fake.before(seen)
        if seen.path.startswith("/internal/"):
            if not self.fake.api_key or seen.headers.get("x-api-token") != self.fake.api_key:
                raise Refusal(401, "Invalid API Key", "invalid-api-token")
            if self.fake.read_only and seen.method != "GET":
                raise Refusal(400, "pict-rs is in read-only mode", "read-only")
            self._internal(seen, body)
        else:
            self._public(seen, body)

    def _internal(self, seen: Seen, body: bytes) -> None:
        fake, name = self.fake, seen.path.removeprefix("/internal/")
        old = fake.version == "0.4"
        match seen.method, name:
            case "POST", "import":
                self._import(body, named=True)
            case "POST", "purge":
                with fake.lock:
                    row = fake.meant(seen.query)
                    if row is None:
                        if old:
                            raise Refusal(400, "No images associated with provided alias", "")
                        raise Refusal(404, "No image associated with provided alias", "alias-not-found")
                    aliases = list(row.aliases)
                    fake._purge(row)
                self._json(200, {"msg": "ok", "aliases": aliases})
            case "POST", "delete" if not old:
                with fake.lock:
                    row = fake.meant(seen.query)
                    if row is None:
                        self._send(404, b"", "")
                        return
                    alias = seen.query.get("alias") or fake.proxies[seen.query["proxy"]]
                    fake._later(lambda: fake._clean_alias(alias))
                self._json(200, {"msg": "ok"})
            case "GET", "aliases":
                with fake.lock:
                    row = fake.meant(seen.query)
                    aliases = [] if row is None else list(row.aliases)
                self._json(200, {"msg": "ok", "aliases": aliases})
            case "GET", "identifier":
                row = fake.meant(seen.query)
                if row is None:
                    raise Refusal(404, "No identifier associated with provided alias", "alias-not-found")
                self._json(200, {"msg": "ok", "identifier": row.identifier})
            case "DELETE", "variants":
                with fake.lock:
                    for row in fake.rows.values():
                        for identifier in row.variants.values():
                            fake._later(lambda identifier=identifier: fake._drop_object(identifier))  # type: ignore[misc]
                        row.variants.clear()
                    fake.changed()
                self._send(204, b"", "")
            case "POST", "set_not_found":
                alias = str(json.loads(body).get("alias", ""))
                if fake.row(alias) is None:
                    raise Refusal(400 if old else 404, "No hash associated with provided alias", "alias-not-found")
                fake.not_found = alias
                self._json(201, {"msg": "ok"})
            case "GET", "hashes" if not old:
                with fake.lock:
                    page = fake.page(seen.query.get("slug"), seen.query.get("timestamp"), int(seen.query.get("limit", 20)))
                self._json(200, {"msg": "ok", "page": page})
            case _:
                self._send(404, b"", "")

    def _public(self, seen: Seen, body: bytes) -> None:
        fake, method = self.fake, "GET" if seen.method == "HEAD" else seen.method
        if match := re.fullmatch(r"/image/(details/)?original(?:/(.+))?", seen.path):
            if method != "GET":
                self._send(405, b"", "")
                return
            query = seen.query | ({"alias": match[2]} if match[2] else {})
            row = self._cached(query)
            if match[1]:
                if row is None:
                    raise Refusal(404, "Alias not found", "alias-not-found")
                self._json(200, row.details or {})
            else:
                self._original(seen, row)
        elif match := re.fullmatch(r"/image/process\.(\w+)", seen.path):
            query = seen.query | ({"alias": seen.query["src"]} if "src" in seen.query else {})
            row = self._cached(query)
            if row is None:
                self._missing()
                return
            steps = [f"{name}/{value}" for name, value in seen.query.items() if name not in ("src", "alias", "proxy")]
            identifier = fake.variant(next(iter(row.aliases)), "/".join([*steps, match[1]]))
            self._send(200, fake.objects[identifier], f"image/{match[1]}")
        elif method == "POST" and seen.path == "/image":
            self._import(body, named=False)
        elif method == "GET" and seen.path == "/image/download":
            data, content_type = fake.remote[seen.query["url"]]
            alias, _ = fake._ingest(data, content_type, "")
            self._files(alias)
        elif match := re.fullmatch(r"/image/delete/([^/]+)/(.+)", seen.path):
            row = fake.row(match[2])
            if row is None:
                raise Refusal(404, "Alias not found", "alias-not-found")
            if row.aliases[match[2]] != match[1]:
                raise Refusal(403, "Invalid delete token", "invalid-delete-token")
            with fake.lock:
                fake._drop_alias(match[2])
                if not row.aliases:
                    fake._drop_row(row)
                fake.changed()
            self._send(204, b"", "")
        elif seen.path == "/healthz":
            fake.objects["health-check"] = b""
            self._send(200, b"", "")
        else:
            self._send(404, b"", "")

    def _cached(self, query: dict[str, str]) -> Row | None:
        """What is asked for; a proxied picture that is not here is fetched and ingested first."""
        fake = self.fake
        row = fake.meant(query)
        url = query.get("proxy", "")
        if row is None and url and fake.version != "0.4":
            if url not in fake.remote:
                raise Refusal(404, "Download failed", "download-file-error")
            alias, _ = fake._ingest(*fake.remote[url], "")
            with fake.lock:
                fake.proxies[url] = alias
                fake.changed()
            row = fake.row(alias)
        return row

    def _original(self, seen: Seen, row: Row | None) -> None:
        fake = self.fake
        shown = row or (fake.row(fake.not_found) if fake.not_found and fake.public and seen.method == "GET" else None)
        if shown is not None and fake.public:
            # an unknown alias is sent to the picture that stands for missing ones, but not by HEAD
            self._send(303, b"", "", {"Location": f"http://127.0.0.1:{fake.public_port}/{quote(shown.identifier)}"})
            return
        data = None if row is None else fake.objects.get(row.identifier)
        if row is None:
            if seen.method == "HEAD":
                self._send(404, b"", "")
            else:
                self._missing()
        elif data is None:
            raise Refusal(500, "No such file or directory (os error 2)", "not-found")
        else:
            more = {"Cache-Control": "public, max-age=604800, immutable", "Last-Modified": self.date_time_string()}
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", "")):
                end = int(asked[2] or len(data) - 1)
                more["Content-Range"] = f"bytes {asked[1]}-{end}/{len(data)}"
                self._send(206, data[int(asked[1]) : end + 1], row.content_type, more)
            else:
                self._send(200, data, row.content_type, more)

    def _missing(self) -> None:
        stand_in = self.fake.row(self.fake.not_found) if self.fake.not_found else None
        if stand_in is None:
            self._send(404, b"", "")
        else:
            self._send(404, self.fake.objects[stand_in.identifier], stand_in.content_type)

    def _import(self, body: bytes, *, named: bool) -> None:
        part = _part(self.headers.get("content-type", ""), body)
        alias, _ = self.fake._ingest(part.data, part.content_type, part.filename if named else "")
        self._files(alias)

    def _files(self, alias: str) -> None:
        row = self.fake.row(alias)
        assert row is not None
        self._json(201, {"msg": "ok", "files": [{"file": alias, "delete_token": row.aliases[alias], "details": row.details}]})

    def _json(self, status: int, answer: object) -> None:
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, body: bytes, content_type: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Public(_Handler):
    """The public endpoint of the object store: serves objects to anybody, and remembers what it was sent."""

    def _serve(self, seen: Seen, body: bytes) -> None:
        self.fake.public_seen.append(seen)
        data = self.fake.objects.get(seen.path.lstrip("/"))
        self._send(404 if data is None else 200, data or b"", "application/octet-stream")


@dataclass(frozen=True)
class _Part:
    data: bytes
    filename: str
    content_type: str


def _part(header: str, body: bytes) -> _Part:
    """The first file of a multipart body; its field has to be called images[]."""
    boundary = re.search(r"boundary=\"?([^\";]+)", header)
    if boundary is None:
        raise Refusal(400, "No files present in upload", "validate-no-files")
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())[1:]:
        head, found, data = piece.partition(b"\r\n\r\n")
        text = head.decode()
        name = re.search(r"[; ]name=\"([^\"]*)\"", text)
        filename = re.search(r"filename=\"([^\"]*)\"", text)
        kind = re.search(r"(?i)content-type: *([^\r\n]+)", text)
        if found and name and filename and name[1] == "images[]":
            return _Part(data, filename[1], kind[1] if kind else "application/octet-stream")
    raise Refusal(400, "No files present in upload", "validate-no-files")


def mirrored(fake: FakePictrs, url: str) -> None:
    """Keep the rows in a PostgreSQL database with the tables of `sql/pictrs.sql`, from now on."""
    import psycopg

    lock = threading.Lock()

    def write() -> None:
        with lock, psycopg.connect(url) as connection:
            named = [(base64.b64encode(row.hash).decode(), row) for row in fake.rows.values()]
            with connection.cursor() as cursor:
                cursor.execute(
                    "DELETE FROM proxies; DELETE FROM variants; DELETE FROM aliases; DELETE FROM details; DELETE FROM hashes"
                )
                cursor.executemany(
                    "INSERT INTO hashes (hash, identifier, created_at) VALUES (%s, %s, %s)",
                    [(name, row.identifier, row.at.astimezone(UTC).replace(tzinfo=None)) for name, row in named],
                )
                cursor.executemany(
                    "INSERT INTO details VALUES (%s, %s)",
                    [(row.identifier, json.dumps(row.details)) for _, row in named if row.details is not None],
                )
                cursor.executemany(
                    "INSERT INTO aliases VALUES (%s, %s, %s)",
                    [(alias, name, token) for name, row in named for alias, token in row.aliases.items()],
                )
                cursor.executemany(
                    "INSERT INTO variants (hash, variant, identifier) VALUES (%s, %s, %s)",
                    [(name, variant, identifier) for name, row in named for variant, identifier in row.variants.items()],
                )
                cursor.executemany("INSERT INTO proxies (url, alias) VALUES (%s, %s)", list(fake.proxies.items()))

    fake.changed = write
    with fake.lock:
        write()


@contextmanager
def running_pictrs(fake: FakePictrs | None = None) -> Generator[FakePictrs]:
    """Serve it on a port of its own, with its worker, and end both."""
    fake = fake or FakePictrs()
    stop = threading.Event()
    servers = [_Server(("127.0.0.1", 0), type("Bound", (kind,), {"fake": fake})) for kind in (_Handler, _Public)]
    fake.port, fake.public_port = (server.server_address[1] for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    threads.append(threading.Thread(target=fake.work, args=(stop,)))
    for thread in threads:
        thread.start()
    try:
        yield fake
    finally:
        stop.set()
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    block_on_close = False
