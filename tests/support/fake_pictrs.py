"""A stand-in for pict-rs, of the version that it is told, that keeps its traps: queued purges, listings that one lost file fails.

Held by recordings of 0.5.16, 0.5.25 and 0.6.0-rc.6 (`tests/recordings`, replayed call by call) and by `pictrs_suite`, which runs
against the real servers too. It shares no code with `fediwarden.platforms` and decodes no picture: `alters`, `render`, `breaks`
stand for what pict-rs' tools do. As a client it posts every upload to `validator`, byte for byte as its version does.

Only read in the source, never seen: everything that is said of 0.4; 0.5.19, but for its answer about unknown aliases; a redirect
to a public endpoint; jobs that fail and aliases without a delete token; which slug comes before a page of a PostgreSQL
repository; a validator's redirect to a public address, which 0.5.21 and later follow and this one, knowing loopback alone, does not.
"""

import base64
import hashlib
import http.client
import json
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, MutableMapping, Sequence
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
AGENT = "pict-rs v0.5.0-main"  # up to 0.5.16
RECORDED = ("0.5.16", "0.5.25", "0.6.0-rc.6")
CHUNK = 8192  # bytes in which an upload goes to the validator
UNKNOWN = {  # what 0.6 says about an alias that it does not know, by what was asked; 0.5 says one thing for all
    "aliases": "Failed to get related aliases",
    "delete": "Failed to delete alias",
    "details": "Failed to fetch details for alias",
    "identifier": "Failed to get identifier for alias",
    "original": "Failed to serve original file",
    "process": "Failed to process variant",
    "proxy": "Failed to get alias for proxied URL",
    "purge": "Failed to launch purge job",
    "set_not_found": "Failed to set not-found placeholder",
}
BROKEN = {  # what an upload is told whose bytes one of the tools does not take: by tool, for 0.5.16, 0.5.17 and later, and 0.6
    "magick": (
        (400, "Invalid media file provided"),
        (400, "Invalid media file provided"),
        (400, "Command magick failed with status exit status: 1"),
    ),
    "exiftool": (
        (500, "exiftool Failed with exit status: 1"),
        (500, "exiftool Failed with exit status: 1"),
        (400, "Command exiftool failed with status exit status: 1"),
    ),
    "ffprobe": (
        (500, "ffprobe Failed with exit status: 1"),
        (400, "Invalid media file provided"),
        (400, "Command magick failed with status exit status: 1"),
    ),
    # the picture is taken in and validated; then 0.5.17 and later make a blurhash of it, and ImageMagick has no JPEG XL, say
    "blurhash": (
        (201, ""),
        (500, "magick Failed with exit status: 1"),
        (400, "Command magick failed with status exit status: 1"),
    ),
}
LIMITS = {  # `/internal/limits` of 0.6.0-rc.6 as it comes out of the box, but for the validator
    "max_file_size": 40,
    "process_timeout": 30,
    "filters": ["blur", "crop", "identity", "resize", "thumbnail"],
    "retention": {"variants": "7d", "proxy": "7d"},
    "magick": {"max_width": 10000, "max_height": 10000, "max_area": 20000, "memory": 256, "map": 512, "disk": 8192},
    "image": {"max_width": 10000, "max_height": 10000, "max_area": 40000000, "max_file_size": 40},
    "animation": {"max_width": 1920, "max_height": 1920, "max_area": 2073600, "max_file_size": 40, "max_frame_count": 900},
    "video": {
        "enable": True,
        "allow_audio": False,
        "max_width": 3840,
        "max_height": 3840,
        "max_area": 8294400,
        "max_file_size": 40,
        "max_frame_count": 900,
        "quality": {"crf_max": 32},
    },
}


def hash_of(data: bytes, content_type: str, *, animated: bool = False) -> bytes:
    """The 39 bytes by which pict-rs 0.5 names a content."""
    known = (ANIMATED, STILL) if animated else (STILL, ANIMATED)
    number = known[0].get(content_type, known[1].get(content_type))
    if number is None:
        raise Refusal(400, "Uploaded file type is not supported", "validate-no-files")
    return hashlib.sha256(data).digest() + len(data).to_bytes(6, "big") + bytes([number])


def as_kept(alias: str) -> bytes:
    """An alias as pict-rs keeps it, by which sled and fjall order aliases: the sixteen bytes of a UUID before its ending."""
    name, dot, ending = alias.partition(".")
    try:
        return UUID(name).bytes + (dot + ending).encode()
    except ValueError:
        return alias.encode()


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
    aliases: dict[str, str] = field(default_factory=dict)  # alias: delete token; "" where it was lost
    blurhash: str = ""  # made when a listing, or whoever asks for details, first needs it (0.5.17 and later)
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

    version: str = "0.5"  # 0.5.16, but for those who ask for nothing else
    repo: str = "postgres"  # or "sled" or "fjall": they differ in what a timestamp older than everything gives, and in `prev`
    api_key: str = KEY
    validator: str = ""  # address of the external validation
    validator_timeout: float = 30.0
    objects: MutableMapping[str, bytes] = field(default_factory=dict)
    alters: Callable[[bytes], bytes] = bytes  # what ingesting does to the bytes (metadata taken off, say)
    muxer: str = "7.1"  # FFmpeg's version: videos are always written anew, and come out the same only by the same version
    render: Callable[[bytes, str], bytes] = _rendered
    job_delay: float | None = 0.02  # seconds until a queued job is run; None: only `tick` runs them
    read_only: bool = False
    blurhashes: bool = (
        False  # listings make a blurhash of every row that lacks one, which all do at first; 0.5.17 and later always
    )
    public: bool = False  # send who asks for an original to a public endpoint, at another port
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    before: Callable[[Seen], None] = lambda seen: None  # runs before a request is answered; may change state or raise Refusal
    job_fails: Callable[[str], bool] = lambda job: False  # "hash", "alias" or "identifier": one that fails is never done
    changed: Callable[[], None] = lambda: None  # runs after state changed, holding the lock: mirrors it into a database
    port: int = 0
    public_port: int = 0

    def __post_init__(self) -> None:
        self.rows: dict[bytes, Row] = {}  # by hash; by bare SHA-256 on 0.4
        self.proxies: dict[str, str] = {}  # remote URL: alias
        self.remote: dict[str, tuple[bytes, str]] = {}  # the internet: what a remote URL gives
        self.not_found: str | None = None  # alias of the picture that stands for missing ones
        self.poison: dict[bytes, tuple[int, str, str]] = {}  # hashes of which no blurhash can be made: status, code, message
        self.hides_prev = False  # as a pict-rs of which we know nothing yet may do
        self.moving: set[bytes] = set()  # stored bytes that are an animation, where the type alone does not tell
        self.broken: dict[bytes, str] = {}  # bytes that a tool does not take: its name in BROKEN
        self.left_behind: tuple[dict[bytes, Row], dict[str, str]] | None = None  # the repository that an upgrade did not open
        self.jobs: deque[tuple[str, Callable[[], None]]] = deque()
        self.seen: list[Seen] = []
        self.public_seen: list[Seen] = []
        self.lock = threading.RLock()
        self._last = datetime.min.replace(tzinfo=UTC)
        self._counter = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- versions -----------------------------------------------------------------------------------------------------------

    def since(self, *release: int) -> bool:
        """Whether this is that release or a later one."""
        bare = "0.5.16" if self.version == "0.5" else self.version
        return tuple(int(number) for number in bare.partition("-")[0].split(".")) >= release

    @property
    def old(self) -> bool:
        return not self.since(0, 5)

    @property
    def agent(self) -> str:
        """What it calls itself where it is a client."""
        return f"pict-rs {self.version}" if self.since(0, 5, 17) else AGENT

    def upgrade(self, version: str, *, empty: bool = False) -> None:
        """Another version in place, with the same store and rows; `empty`: with a new repository, and the rows left behind."""
        with self.lock:
            self.version = version
            if empty:
                self.left_behind = (self.rows, self.proxies)
                self.rows, self.proxies, self.repo = {}, {}, "fjall"
                self.jobs.clear()
                self.changed()

    def found_again(self, repo: str = "sled") -> None:
        """The repository that an upgrade did not open is named in the settings, and what came meanwhile is left behind."""
        assert self.left_behind is not None
        with self.lock:
            (self.rows, self.proxies), self.left_behind, self.repo = self.left_behind, None, repo
            self.changed()

    def unknown(self, what: str) -> "Refusal":
        """The 404 for an alias that is not known."""
        if self.since(0, 6):
            return Refusal(404, UNKNOWN[what], "not-found")
        if what == "proxy":
            return Refusal(404, "Media has not been proxied", "proxy-not-found")
        return Refusal(404, "Requested a file that doesn't exist", "alias-not-found")

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
        """A cached copy of a remote picture; its alias. It has no blurhash before something asks for it."""
        alias = self.put(data, content_type)
        row = self.row(alias)
        assert row is not None
        row.blurhash = ""
        with self.lock:
            self.proxies[url] = alias
            self.changed()
        return alias

    def lose(self, alias: str) -> None:
        """The file of a content is not in the store any more; its row knows nothing of that."""
        row = self.row(alias)
        assert row is not None
        del self.objects[row.identifier]

    def spoil(self, alias: str) -> None:
        """Lose a file whose row has no blurhash: it fails every listing that shows it, from 0.5.17 on. See `poison` for other failures."""
        row = self.row(alias)
        assert row is not None
        row.blurhash = ""
        self.lose(alias)

    def lose_token(self, alias: str) -> None:
        """An alias without a delete token, as moving a repository from sled to PostgreSQL left some: no purge takes it away."""
        row = self.row(alias)
        assert row is not None
        row.aliases[alias] = ""

    def breaks(self, data: bytes, tool: str) -> bytes:
        """From now on these bytes fail in that tool (`BROKEN`) when they are uploaded."""
        self.broken[data] = tool
        return data

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
                self._do(*self.jobs.popleft())
            self.changed()

    def step(self) -> None:
        """Run the job that was queued first, alone."""
        with self.lock:
            self._do(*self.jobs.popleft())
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
        if not data and self.since(0, 5):
            raise Refusal(400, "Uploaded file is empty", "validate-file-empty")
        tool = self.broken.get(data, "")
        if tool and tool != "blurhash":
            with self.lock:
                self.objects[self._identifier(content_type, self.clock())] = b""  # cut off, with no row, and never removed
            raise self._broken(tool)
        data, content_type = self._made(data, content_type)
        hash_of(data, content_type)
        with self.lock:
            created = self.clock()
            identifier = self._store(data, content_type, created)
        seconds = 0.0
        try:
            if self.validator:
                seconds = self._validate(data, content_type, identifier)
            if tool and self.since(0, 5, 17):
                raise self._broken(tool)
            with self.lock:
                name = self._add(identifier, data, content_type, animated, created, alias, None)
                self.changed()
        except Refusal:
            with self.lock:
                if all(row.identifier != identifier for row in self.rows.values()):
                    self._later("identifier", lambda: self._drop_object(identifier))
            raise
        return name, seconds

    def _made(self, data: bytes, content_type: str) -> tuple[bytes, str]:
        """What the tools make of an upload: a HEIC picture becomes a video of one frame, and every video is written anew."""
        data = self.alters(data)
        if content_type in ("image/heic", "image/heif"):
            content_type = "video/mp4"
        if content_type.startswith("video/"):
            mark = f"Lavf{self.muxer}".encode()
            data = re.sub(rb"(?s)\0\0\0.freeLavf[0-9.]*$", b"", data)
            data += (8 + len(mark)).to_bytes(4, "big") + b"free" + mark
        return data, content_type

    def _broken(self, tool: str) -> "Refusal":
        status, message = BROKEN[tool][2 if self.since(0, 6) else 1 if self.since(0, 5, 17) else 0]
        return Refusal(status, message, "command-failure")

    def _validate(self, data: bytes, content_type: str, identifier: str) -> float:
        """Ask the validator, as this version does. Raises: Refusal."""
        refused = "Failed to upload file to url" if self.since(0, 6) else "Failed external validation"
        begun = time.monotonic()
        url, method = self.validator, "POST"
        for _ in range(10):
            address = urlsplit(url)
            if self.since(0, 5, 21) and not re.fullmatch(r"[0-9.]+|\[?[0-9a-f:]+\]?", address.hostname or ""):
                # names are resolved by a client that drops every private address
                raise Refusal(500, "Network unreachable", "http-client-error")
            try:
                status, location = self._ask(method, url, data, content_type, identifier)
            except (OSError, http.client.HTTPException) as error:
                raise Refusal(500, str(error) or type(error).__name__, "http-client-error") from error
            if 200 <= status < 300:
                return time.monotonic() - begun
            if status not in (301, 302, 303) or not location or self.since(0, 5, 21):
                break
            url, method = location, "GET"
        raise Refusal(400, refused, "failed-external-validation")

    def _ask(self, method: str, url: str, data: bytes, content_type: str, identifier: str) -> tuple[int, str]:
        """One request as it goes over the wire, head and body; status and Location of the answer."""
        address = urlsplit(url)
        path = (address.path or "/") + (f"?{address.query}" if address.query else "")
        head = [f"{method} {path} HTTP/1.1"]
        pieces: list[bytes] = []
        if method == "POST":
            head.append(f"content-type: {content_type}")
            pieces = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
            if self.since(0, 6):
                boundary = "-".join(os.urandom(8).hex() for _ in range(4))
                head.append(f"content-type: multipart/form-data; boundary={boundary}")
                named = f"Content-Disposition: form-data; name*=utf-8''{quote(identifier, safe='')}\r\n\r\n"
                pieces = [f"--{boundary}\r\n".encode(), named.encode(), *pieces, b"\r\n", f"--{boundary}--\r\n".encode()]
        head += ["accept: */*", f"user-agent: {self.agent}", f"host: {address.netloc}"]
        if method == "POST":
            head.append("transfer-encoding: chunked")
        with socket.create_connection((address.hostname or "", address.port or 80), self.validator_timeout) as wire:
            wire.settimeout(self.validator_timeout)
            wire.sendall("\r\n".join([*head, "", ""]).encode())
            for piece in pieces:
                wire.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if method == "POST":
                wire.sendall(b"0\r\n\r\n")
            answer = http.client.HTTPResponse(wire, method=method)
            answer.begin()
            answer.read()
            return answer.status, answer.getheader("location", "")

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
        animated = animated or data in self.moving or content_type in ("image/gif", "image/apng")
        name = hash_of(data, content_type, animated=animated)
        name = name[:32] if self.old else name
        alias = alias or f"{uuid4()}.{content_type.partition('/')[2]}"
        if self.row(alias) is not None:
            if self.since(0, 6):
                raise Refusal(500, "Alias already exists", "duplicate-alias")
            raise Refusal(400, "Tried to save an image with an already-taken name", "duplicate-alias")
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
            if not self.old:
                details["format"] = "Video" if content_type.startswith("video/") else "Animation" if animated else "Image"
            blurhash = _blurhash(data) if self.since(0, 5, 17) else ""
            row = self.rows[name] = Row(name, identifier, moment, details, blurhash=blurhash)
        elif row.identifier != identifier:
            self._later("identifier", lambda: self._drop_object(identifier))
        row.aliases[alias] = str(uuid4())
        return alias

    def _identifier(self, content_type: str, at: datetime) -> str:
        if self.old:
            self._counter += 1
            return f"00/00/{self._counter:02x}/{uuid4()}"
        head = int(at.timestamp() * 1000).to_bytes(6, "big") + bytes([0x70 | os.urandom(1)[0] & 0x0F]) + os.urandom(9)
        digits = UUID(bytes=head).hex
        folders = "/".join(digits[place : place + 2] for place in range(0, 20, 2))
        return f"{folders}/{digits[20:]}{'.' + content_type.partition('/')[2] if content_type else ''}"

    # -- the queue --------------------------------------------------------------------------------------------------------

    def _later(self, name: str, job: Callable[[], None]) -> None:
        self.jobs.append((name, job))

    def _do(self, name: str, job: Callable[[], None]) -> None:
        if not self.job_fails(name):
            job()

    def _purge(self, row: Row) -> None:
        self._later("hash", lambda: self._clean_hash(row))

    def _clean_hash(self, row: Row) -> None:
        """A purge's first job: the aliases, each a job; the last of them asks for this again.

        An alias whose delete token was lost is passed over, and then this is never asked for again.
        """
        if row.aliases:
            for alias, token in row.aliases.items():
                if token:
                    self._later("alias", lambda alias=alias: self._clean_alias(alias))  # type: ignore[misc]
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
            self._later("identifier", lambda identifier=identifier: self._drop_object(identifier))  # type: ignore[misc]

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
                    self._do(*self.jobs.popleft())
                if waiting:
                    self.changed()

    # -- answering --------------------------------------------------------------------------------------------------------

    def page(self, slug: str | None, timestamp: str | None, limit: int) -> dict[str, Any]:
        """One page of `/internal/hashes`, newest first. What cannot be placed begins anew without a word.

        `prev` is `limit` items before the page; but one more where sled or fjall are asked by time. Raises: Refusal, where an
        item of it cannot be shown (0.5.17 and later make what rows lack).
        """
        ordered = sorted(self.rows.values(), key=lambda row: (row.at, row.hash), reverse=True)
        start, back = 0, limit
        if timestamp:
            start = next((number for number, row in enumerate(ordered) if row.at < _moment(timestamp)), len(ordered))
            if self.repo != "postgres":
                back = limit + 1
            elif start == len(ordered):
                start = 0
        elif slug:
            try:
                meant: bytes | None = base64.b64decode(slug, altchars=b"-_", validate=True)
            except ValueError:
                meant = None
            start = next((number for number, row in enumerate(ordered) if row.hash == meant), 0)
        shown = ordered[start : start + limit]
        page: dict[str, Any] = {
            "limit": limit,
            "hashes": [{"hex": row.hash.hex(), "aliases": self.names(row), "details": self.told(row)} for row in shown],
        }
        if shown:
            page["current"] = _slug(shown[0])
        if start and back and not self.hides_prev:
            page["prev"] = _slug(ordered[max(0, start - back)])
        if start + limit < len(ordered):
            page["next"] = _slug(ordered[start + limit])
        return page

    def told(self, row: Row) -> dict[str, Any] | None:
        """The details as its API tells them. From 0.5.17 on they have a blurhash, made where there is none. Raises: Refusal."""
        if row.details is None or not (self.blurhashes or self.since(0, 5, 17)):
            return row.details
        if not row.blurhash:
            if row.hash in self.poison:
                status, code, message = self.poison[row.hash]
                raise Refusal(status, message, code)
            try:
                row.blurhash = _blurhash(self.stored(row))
            except Refusal as lost:
                # what it decodes without a tool says so; the others only in the source
                own = row.content_type in ("image/gif", "image/jpeg", "image/png", "image/webp")
                raise Refusal(lost.status, lost.message, "decode-image" if own else lost.code) from lost
            self.changed()
        return {"blurhash": row.blurhash} | row.details

    def names(self, row: Row) -> list[str]:
        """Its aliases in the order in which they are told: as they are kept with sled and fjall, and as they come with PostgreSQL."""
        return list(row.aliases) if self.repo == "postgres" else sorted(row.aliases, key=as_kept)

    def stored(self, row: Row) -> bytes:
        """The bytes of an original. Raises: Refusal, where the file is lost."""
        data = self.objects.get(row.identifier)
        if data is None:
            raise Refusal(500, "No such file or directory (os error 2)", "not-found")
        return data

    def meant(self, query: dict[str, str]) -> Row | None:
        """What `?alias=` or `?proxy=` names."""
        alias = query.get("alias", "")
        if not alias and "proxy" in query and not self.old:
            alias = self.proxies.get(query["proxy"], "")
        return self.row(alias)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def _blurhash(data: bytes) -> str:
    """Something that looks like one, and is always the same for the same bytes."""
    return base64.b85encode(hashlib.sha256(data).digest())[:28].decode()


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
            answer = {"msg": refusal.message} | ({} if self.fake.old else {"code": refusal.code})
            self._json(refusal.status, answer)

    def _serve(self, seen: Seen, body: bytes) -> None:
        self.fake.seen.append(seen)
        self.fake.before(seen)
        if seen.path.startswith("/internal/"):
            if not self.fake.api_key or seen.headers.get("x-api-token") != self.fake.api_key:
                raise Refusal(401, f"Invalid API {'Token' if self.fake.since(0, 6) else 'Key'}", "invalid-api-token")
            if self.fake.read_only and seen.method != "GET":
                raise Refusal(400, "pict-rs is in read-only mode", "read-only")
            self._internal(seen, body)
        else:
            self._public(seen, body)

    def _internal(self, seen: Seen, body: bytes) -> None:
        fake, name = self.fake, seen.path.removeprefix("/internal/")
        old = fake.old
        match seen.method, name:
            case "POST", "import":
                self._import(body, named=True)
            case "POST", "purge":
                with fake.lock:
                    row = fake.meant(seen.query)
                    if row is None:
                        if old:
                            raise Refusal(400, "No images associated with provided alias", "")
                        raise fake.unknown("purge")
                    aliases = fake.names(row)
                    fake._purge(row)
                self._json(200, {"msg": "ok", "aliases": aliases})
            case "POST", "delete" if not old:
                with fake.lock:
                    row = fake.meant(seen.query)
                    alias = seen.query.get("alias") or fake.proxies.get(seen.query.get("proxy", ""), "")
                    if row is None or not row.aliases[alias]:  # an alias that is there and has no token, too
                        if fake.since(0, 5, 17):
                            raise fake.unknown("delete")
                        self._send(404, b"", "")
                        return
                    fake._later("alias", lambda: fake._clean_alias(alias))
                self._json(200, {"msg": "ok"})
            case "GET", "aliases":
                with fake.lock:
                    row = fake.meant(seen.query)
                    aliases = [] if row is None else fake.names(row)
                if "proxy" in seen.query and row is None:
                    raise fake.unknown("proxy")
                if row is None and fake.since(0, 5, 17):
                    raise fake.unknown("aliases")
                self._json(200, {"msg": "ok", "aliases": aliases})
            case "GET", "identifier":
                row = fake.meant(seen.query)
                if row is None:
                    raise fake.unknown("identifier")
                self._json(200, {"msg": "ok", "identifier": row.identifier})
            case "DELETE", "variants":
                with fake.lock:
                    for row in fake.rows.values():
                        for identifier in row.variants.values():
                            fake._later("identifier", lambda identifier=identifier: fake._drop_object(identifier))  # type: ignore[misc]
                        row.variants.clear()
                    fake.changed()
                self._send(204, b"", "")
            case "POST", "set_not_found":
                alias = str(json.loads(body).get("alias", ""))
                if fake.row(alias) is None:
                    if old:
                        raise Refusal(400, "No hash associated with provided alias", "")
                    raise fake.unknown("set_not_found")
                fake.not_found = alias
                self._json(201, {"msg": "ok"})
            case "GET", "hashes" if not old:
                with fake.lock:
                    page = fake.page(seen.query.get("slug"), seen.query.get("timestamp"), int(seen.query.get("limit", 20)))
                self._json(200, {"msg": "ok", "page": page})
            case "GET", "limits" if fake.since(0, 6):
                asked = {"external_validation": fake.validator or None, "external_validation_timeout": fake.validator_timeout}
                self._json(200, asked | LIMITS)
            case _:
                self._send(404, b"", "")

    def _public(self, seen: Seen, body: bytes) -> None:
        fake, method = self.fake, "GET" if seen.method == "HEAD" else seen.method
        if match := re.fullmatch(r"/image/(details/)?original(?:/(.+))?", seen.path):
            if method != "GET":
                self._send(405, b"", "")
                return
            query = seen.query | ({"alias": match[2]} if match[2] else {})
            row = fake.meant(query) if match[1] or seen.method == "HEAD" else self._cached(query)
            if row is None and "proxy" in query:
                raise fake.unknown("proxy")
            if match[1]:
                if row is None:
                    raise fake.unknown("details")
                with fake.lock:
                    self._json(200, ({"msg": "ok"} if fake.since(0, 6) else {}) | (fake.told(row) or {}))
            else:
                self._original(seen, row)
        elif match := re.fullmatch(r"/image/process(_backgrounded)?\.(\w+)", seen.path):
            query = seen.query | ({"alias": seen.query["src"]} if "src" in seen.query else {})
            row = self._cached(query)
            steps = [f"{name}/{value}" for name, value in seen.query.items() if name not in ("src", "alias", "proxy")]
            variant = "/".join([*steps, match[2]])
            if row is None or (seen.method == "HEAD" and variant not in row.variants):
                self._missing("process")
                return
            fake.stored(row)
            identifier = fake.variant(next(iter(row.aliases)), variant)
            if match[1]:
                told = (b'{"msg":"ok"}', "application/json") if fake.since(0, 6) else (b"", "")
                self._send(202, *told)
            else:
                self._file(seen, fake.objects[identifier], f"image/{match[2]}", row)
        elif method == "POST" and seen.path == "/image":
            self._import(body, named=False)
        elif method == "GET" and seen.path == "/image/download":
            alias, _ = fake._ingest(*self._downloaded(seen.query["url"]), "")
            self._files(alias)
        elif match := re.fullmatch(r"/image/delete/([^/]+)/(.+)", seen.path):
            with fake.lock:
                row = fake.row(match[2])
                if row is not None and (not row.aliases[match[2]] or row.aliases[match[2]] != match[1]):
                    message = "Invalid delete token" if fake.since(0, 6) else "Provided token did not match expected token"
                    raise Refusal(403, message, "invalid-delete-token")
                if row is not None:
                    fake._drop_alias(match[2])
                    if not row.aliases:
                        fake._drop_row(row)
                    fake.changed()
            self._send(204, b"", "")  # of an unknown alias as well
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
        if row is None and url and not fake.old:
            alias, _ = fake._ingest(*self._downloaded(url), "")
            with fake.lock:
                fake.proxies[url] = alias
                row = fake.row(alias)
                assert row is not None
                row.blurhash = ""
                fake.changed()
        return row

    def _downloaded(self, url: str) -> tuple[bytes, str]:
        """What the internet has under this address. Raises: Refusal."""
        fake = self.fake
        if fake.since(0, 5, 21) and urlsplit(url).hostname in ("127.0.0.1", "localhost"):
            raise Refusal(400, "Proxy url resolves to local address", "download-file-error")
        if url not in fake.remote:
            message = "failed to lookup address information: Name or service not known"
            if fake.since(0, 5, 17):
                raise Refusal(500 if fake.since(0, 6) else 400, message, "download-file-error")
            raise Refusal(500, message, "http-client-error")
        return fake.remote[url]

    def _original(self, seen: Seen, row: Row | None) -> None:
        fake = self.fake
        shown = row or (fake.row(fake.not_found) if fake.not_found and fake.public and seen.method == "GET" else None)
        if shown is not None and fake.public:
            # an unknown alias is sent to the picture that stands for missing ones, but not by HEAD
            self._send(303, b"", "", {"Location": f"http://127.0.0.1:{fake.public_port}/{quote(shown.identifier)}"})
        elif row is None:
            self._missing("original")
        elif seen.method == "HEAD" and not fake.since(0, 5, 17):
            self._file(seen, fake.objects.get(row.identifier, b""), row.content_type, row)  # of a lost file as well
        else:
            self._file(seen, fake.stored(row), row.content_type, row)

    def _file(self, seen: Seen, data: bytes, content_type: str, row: Row) -> None:
        fake = self.fake
        age = "max-age=5, immutable, stale-while-revalidate=604800" if fake.since(0, 6) else "max-age=604800, immutable"
        if fake.since(0, 5, 20) and not fake.since(0, 6):
            age = "max-age=0, immutable, stale-while-revalidate=604800"
        more = {"Cache-Control": f"public, {age}", "Last-Modified": self.date_time_string(), "Accept-Ranges": "bytes"}
        if fake.since(0, 5, 20):
            more["ETag"] = f'"{base64.b64encode(row.hash).decode()}"'  # a rendering's, too
        status = 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", "")):
            end = min(int(asked[2] or len(data) - 1), len(data) - 1)
            more["Content-Range"] = f"bytes {asked[1]}-{end}/{len(data)}"
            status, data = 206, data[int(asked[1]) : end + 1]
        self._send(status, data, content_type, more, sized=fake.since(0, 5, 17))

    def _missing(self, what: str) -> None:
        """An alias that is not known: the picture that stands for missing ones where there is one, but not by HEAD."""
        fake = self.fake
        stand_in = fake.row(fake.not_found) if fake.not_found and self.command != "HEAD" else None
        if stand_in is not None:
            self._send(404, fake.objects[stand_in.identifier], stand_in.content_type, sized=fake.since(0, 6))
        elif fake.since(0, 6):
            raise fake.unknown(what)
        else:
            self._send(404, b"", "")

    def _import(self, body: bytes, *, named: bool) -> None:
        part = _part(self.headers.get("content-type", ""), body)
        alias, _ = self.fake._ingest(part.data, part.content_type, part.filename if named else "")
        self._files(alias)

    def _files(self, alias: str) -> None:
        row = self.fake.row(alias)
        assert row is not None
        with self.fake.lock:
            file = {"file": alias, "delete_token": row.aliases[alias], "details": self.fake.told(row)}
        if self.fake.since(0, 6):
            file["alias"] = alias
            self._json(201, {"msg": "ok", "files": [file], "uploads": [file]})
        else:
            self._json(201, {"msg": "ok", "files": [file]})

    def _json(self, status: int, answer: object) -> None:
        self._send(status, json.dumps(answer, separators=(",", ":")).encode(), "application/json")

    def _send(
        self, status: int, body: bytes, content_type: str, more: dict[str, str] | None = None, *, sized: bool = True
    ) -> None:
        """`sized`: with the length told; without, as a stream in chunks, and 0 where it is asked by HEAD."""
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        if not sized and self.command != "HEAD":
            self.send_header("Transfer-Encoding", "chunked")
        elif status != 204:
            self.send_header("Content-Length", str(len(body) if sized else 0))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if sized:
            self.wfile.write(body)
            return
        for piece in _pieces(body):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")


def _pieces(body: bytes) -> Sequence[bytes]:
    """A body in chunks, the empty one at its end."""
    return [*(body[start : start + (1 << 16)] for start in range(0, len(body), 1 << 16)), b""]


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
