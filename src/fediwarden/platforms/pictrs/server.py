"""pict-rs 0.4 to 0.6 over HTTP, one try a request: what it holds, its bytes, purging and importing; decides nothing, waits for nothing.

Absent, lost and refused are three things. *Absent* is 404 to a question about existence, or an empty list of aliases (up to 0.5.16),
and is told by an empty value or `Gone`; a 404 to a deletion says nothing, and existence is asked after it. *Lost* is 500 with the
code `not-found`: the row is there and its file is not. What else is no success is `Refused` or `Unreached`.

The API key goes to `/internal/` of the configured address and nowhere else. Originals are public: they are fetched without it, so a
redirect to an object store or a CDN never sees it.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cached_property
from hashlib import sha256 as digest
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fediwarden.errors import Gone, Lost, Refused, TooLarge, Unreached
from fediwarden.model import Sha256
from fediwarden.platforms.pictrs.hashes import Hash, formats_of
from fediwarden.platforms.pictrs.repository import Repository, item_named
from fediwarden.platforms.pictrs.words import Item, moment, quoted

if TYPE_CHECKING:
    import httpx2

AT_ONCE = 100  # hashes in one page: pict-rs asks its database several times for each
REDIRECTS = (301, 302, 303, 307, 308)
HOPS = 3  # redirects that are followed to an original
SLOWEST = 16 * 1024  # bytes a second; a body that drips more slowly than this is given up
ANSWER = 16 << 20  # bytes; more than any answer that is no picture has
FIRST = {"Range": "bytes=0-0"}  # the first byte alone
# codes of refusals that are about pict-rs itself; any other, in answer to a listing, is about a file it could make nothing of
OF_THE_SERVER = frozenset(
    ("postgres-error", "sled-error", "fjall-error", "old-repo-error", "panic", "read-only", "invalid-query", "invalid-api-token")
)
KEY = re.compile(r"([0-9a-f]{64})([0-9a-f]{12})[0-9a-f]{2}")
ABSENT = ("alias-not-found", "proxy-not-found", "not-found")  # codes of a 404: 0.5 the first two, 0.6 the last
NOBODY = "fediwarden-asks-for-nobody.png"  # an alias that nothing has: what is answered to it tells the version
SIZE = re.compile(r"bytes \d+-\d+/(\d+)")


def content_of(key: str) -> tuple[Sha256, int] | None:
    """The SHA-256 and the size that the key of a 0.5 item tells; None for other keys, such as the aliases of 0.4."""
    match = KEY.fullmatch(key)
    return None if match is None else (Sha256(match[1]), int(match[2], 16))


@dataclass(frozen=True, slots=True)
class HashesPage:
    """One page of `/internal/hashes`. `next` is the slug that the following page begins with; "" at the end.

    `prev` is the slug that the page before begins with: asked with a limit of 1, the item just before this page.
    """

    items: tuple[Item, ...]
    next: str = ""
    prev: str = ""


@dataclass(frozen=True, slots=True)
class OriginalHead:
    """What pict-rs says about an original without sending it."""

    size: int  # bytes
    content_type: str
    modified: datetime | None
    hash: Hash | None = None  # as the ETag tells it, from 0.5.20 on: which content is meant, never which bytes lie there


class Generation(StrEnum):
    """Versions that answer alike, told by what a server can do. Recorded: 0.5.16, 0.5.19, 0.5.25 and 0.6.0-rc.6; 0.4 is read only."""

    V0_4 = "0.4"
    TO_0_5_16 = "0.5 up to 0.5.16"
    FROM_0_5_17 = "0.5.17 or newer"
    V0_5 = "0.5"  # where nothing but the database may be asked, or the key is wrong: which of the two above is not known
    V0_6 = "0.6"


@dataclass(frozen=True, slots=True)
class MediaBounds:
    """What pict-rs takes in of one kind; None where it names no bound."""

    width: int | None  # pixels
    height: int | None  # pixels
    area: int | None  # pixels
    size: int | None  # bytes
    frames: int | None = None


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What pict-rs 0.6 tells of its settings (`/internal/limits`, from 0.6.0-rc.5 on)."""

    validator: str = field(repr=False)  # the address that it asks about uploads, with its secret; "" where it asks nobody
    validator_seconds: float | None
    size: int | None  # bytes of one upload
    process_seconds: float | None
    image: MediaBounds
    animation: MediaBounds
    video: MediaBounds
    videos: bool  # whether it takes any
    audio: bool  # whether videos keep their sound


@dataclass(frozen=True, slots=True)
class UploadAnswer:
    """What whoever uploads is told: an alias, or why not. `code` is pict-rs' own word for it, "" from 0.4."""

    status: int
    alias: str = ""
    code: str = ""
    message: str = ""

    @property
    def words(self) -> str:
        """Status, code and message in one."""
        return " ".join(part for part in (str(self.status), self.code, self.message) if part)

    @property
    def refused_by_validator(self) -> bool:
        """Whether its external validation said no."""
        return self.code == "failed-external-validation" or "failed external validation" in self.message.lower()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, or None where it is no JSON."""
        import json

        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Server:
    """One pict-rs. From any thread; nothing is opened before the first call.

    Every method may raise Unreached (no answer, an answer that may change) and Refused (a wrong key, an address that is no
    pict-rs). Where a repository is attached it is asked first, and what it can tell needs no API key.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        repository: Repository | None = None,
        seconds: float = 30.0,
        limit: int = 256 << 20,
    ) -> None:
        """`limit`: the largest original in bytes that is fetched only to learn its hash."""
        self._url = url.rstrip("/")
        self._key = key
        self.repository = repository
        self._seconds = seconds
        self._limit = limit
        self._lock = Lock()
        self._requests = 0

    def __repr__(self) -> str:
        return f"Server({self._url!r})"

    @property
    def requests(self) -> int:
        """Requests sent so far, and questions to the database."""
        return self._requests + (self.repository.questions if self.repository else 0)

    def close(self) -> None:
        """Give back connections. May be called twice; a later call opens new ones."""
        with self._lock:
            client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()
        if self.repository is not None:
            self.repository.close()

    @cached_property
    def version(self) -> str:
        """ "0.5" or "0.4", told by what it answers to; asked once. 0.6 answers as 0.5 does where we tell the two apart: "0.5"."""
        if self.repository is not None:
            return "0.5"  # 0.4 kept no PostgreSQL repository
        answer = self._asked("GET", "hashes", {"limit": "0"})
        told = answer.json()
        # an error has a `code` since 0.5; one lost file may fail the whole listing, and the version is known all the same
        if answer.status == 200 or _code(answer):
            return "0.5"
        if answer.status == 401 and isinstance(told, dict) and "msg" in told:
            return "0.4"
        if answer.status != 404:
            raise self._refusal(answer, "hashes")
        told = self._internal("GET", "aliases", {"alias": NOBODY}, accept=(200, 404)).json()
        if isinstance(told, dict) and isinstance(told.get("aliases"), list):
            return "0.4"
        raise Refused(
            f"{self._url} does not answer as pict-rs does",
            hint="write the address of pict-rs itself, not the public one: a proxy hides /internal",
        )

    @cached_property
    def generation(self) -> Generation:
        """Which versions it may be, told by what it can do; asked once. A wrong key still tells 0.4, 0.5 and 0.6 apart."""
        answer = self._asked("GET", "aliases", {"alias": NOBODY})
        if answer.status == 401:
            # 0.6 says "Token" where 0.5 said "Key"
            said = _says(answer.json(), "API Token")
            return Generation.V0_6 if said else Generation.V0_4 if self.version == "0.4" else Generation.V0_5
        if answer.status == 404 and _code(answer):
            return Generation.V0_6 if _code(answer) == "not-found" else Generation.FROM_0_5_17
        return Generation.V0_4 if self.version == "0.4" else Generation.TO_0_5_16

    def limits(self) -> ServerLimits | None:
        """What it says of its settings; None from a server that has no such answer: everything before 0.6."""
        answer = self._internal("GET", "limits", {}, accept=(200, 404))
        if answer.status == 404:
            return None
        told = answer.json()
        if not isinstance(told, dict) or "max_file_size" not in told:
            raise self._strange("max_file_size")
        videos = told.get("video")
        facts = videos if isinstance(videos, dict) else {}
        return ServerLimits(
            validator=str(told.get("external_validation") or ""),
            validator_seconds=_number(told.get("external_validation_timeout")),
            size=_mebibytes(told.get("max_file_size")),
            process_seconds=_number(told.get("process_timeout")),
            image=_bounds(told.get("image")),
            animation=_bounds(told.get("animation")),
            video=_bounds(videos),
            videos=facts.get("enable") is not False,
            audio=facts.get("allow_audio") is True,
        )

    # -- what it holds ------------------------------------------------------------------------------------------------

    def page(self, slug: str = "", before: datetime | None = None, limit: int = AT_ONCE) -> HashesPage:
        """One page of `/internal/hashes` (0.5), newest first, from `slug` on or strictly older than `before`.

        Trap: a slug that means nothing (its hash was deleted) gives the first page again. The caller compares.

        Raises: Lost where pict-rs could not make what it adds to a row (from 0.5.17 on a blurhash): the file is not there, or cannot
        be read or decoded. One such row is enough for a whole page to fail.
        """
        answer = self._asked("GET", "hashes", _listing(slug, before, limit))
        if answer.status != 200:
            raise self._unlisted(answer)
        return self._page(answer)

    def around(self, before: datetime | None = None) -> tuple[str, str]:
        """The slugs of the oldest item not older than `before`, and of the newest older one, as `peek`; "" where there is none.

        Traps: PostgreSQL never tells the first of the two; and where nothing is older, it tells the newest item of all as the second.
        """
        page = self._page(self._internal("GET", "hashes", _listing("", before, 0)))
        return page.prev, page.next

    def has_hash(self, name: bytes) -> bool:
        """Whether there is an item of that name (0.5), whatever became of its file."""
        from base64 import urlsafe_b64encode

        if self.repository is not None:
            return self.repository.named(name) is not None
        slug = urlsafe_b64encode(name).decode()
        return self.peek(slug) == slug

    def peek(self, slug: str = "", before: datetime | None = None) -> str:
        """The slug of the item that `page` would begin with (0.5), told without opening any object; "" where there is none.

        A page of no items is made without looking at one, so that a lost file, which fails every page that shows it, is named
        here all the same. A slug that means nothing gives that of the newest item; a time older than everything gives "" with
        sled and fjall, and the newest item with PostgreSQL. Seen with 0.5.25 and 0.6.0-rc.6.
        """
        return self._page(self._internal("GET", "hashes", _listing(slug, before, 0))).next

    def _unlisted(self, answer: _Answer) -> Unreached:
        """What it means that a page of the listing fails."""
        code, told = _code(answer), answer.json()
        if not code or code in OF_THE_SERVER or not (answer.status >= 500 or answer.status in (400, 404)):
            return self._refusal(answer, "hashes")
        message = str(told.get("msg", ""))[:200] if isinstance(told, dict) else ""
        return Lost(f"pict-rs cannot read its file: {answer.status} {code[:80]} {message}".rstrip())

    def _page(self, answer: _Answer) -> HashesPage:
        page = self._told(answer, "page", dict)
        entries = page.get("hashes")
        if not isinstance(entries, list):
            raise self._strange("hashes")
        following, previous = page.get("next"), page.get("prev")
        return HashesPage(
            tuple(self._entry(entry) for entry in entries),
            following if isinstance(following, str) else "",
            previous if isinstance(previous, str) else "",
        )

    def find(self, sha256: Sha256, size: int, content_type: str = "") -> Item | None:
        """The item that holds these bytes, told by their hash. 0.4 cannot be asked that: None, whatever it holds."""
        if self.repository is not None:
            return self.repository.find(sha256, size)
        if self.version == "0.4":
            return None
        for number in formats_of(content_type):
            found = self.find_hash(bytes(Hash(sha256, size, number)))
            if found is not None:
                return found
        return None

    def find_hash(self, name: bytes) -> Item | None:
        """The item of that name (0.5). Raises: Lost, where pict-rs has a row of it that it cannot list."""
        from base64 import urlsafe_b64encode

        if self.repository is not None:
            return self.repository.named(name)
        slug = urlsafe_b64encode(name).decode()
        answer = self._asked("GET", "hashes", _listing(slug, None, 1))
        if answer.status != 200:
            problem = self._unlisted(answer)
            if not isinstance(problem, Lost) or self.has_hash(name):
                raise problem
            return None  # without it the listing begins at the newest item, and that one fails it
        items = self._page(answer).items
        return items[0] if items and items[0].key == name.hex() else None

    def find_alias(self, alias: str) -> Item | None:
        """The item that this alias is a name of. Raises: Lost.

        Over HTTP the ETag tells it (from 0.5.20 on), and before that the content alone: the original is fetched and hashed.
        """
        if self.repository is not None:
            return self.repository.aliased(alias)
        aliases = self.aliases(alias)
        if not aliases:
            return None
        if self.version == "0.4":
            return Item(min(aliases), tuple(sorted(aliases)), identifier=self.identifier(alias) or "")
        try:
            name = self.hash_of(alias)
            if name is not None:
                return item_named(bytes(name), aliases, content_type=name.content_type)
            data, content_type = self.fetch(alias, self._limit)
        except Gone:
            return None
        return self.find(Sha256(digest(data).hexdigest()), len(data), content_type)

    def aliases(self, alias: str) -> tuple[str, ...]:
        """Every alias of the content that this one names; empty where pict-rs does not know it (200 or 404, as its version has it)."""
        if self.repository is not None:
            item = self.repository.aliased(alias)
            return () if item is None else item.aliases
        answer = self._asked("GET", "aliases", {"alias": alias})
        if _absent(answer):
            return ()
        if answer.status != 200:
            raise self._refusal(answer, "aliases")
        return tuple(str(name) for name in self._told(answer, "aliases", list))

    def identifier(self, alias: str) -> str | None:
        """The key of the original in the store behind pict-rs; None where the alias is not known."""
        if self.repository is not None:
            item = self.repository.aliased(alias)
            return None if item is None else item.identifier
        answer = self._asked("GET", "identifier", {"alias": alias})
        if _absent(answer) or (answer.status == 400 and not _code(answer)):  # 400: 0.4
            return None
        if answer.status != 200:
            raise self._refusal(answer, "identifier")
        return str(self._told(answer, "identifier", str))

    def head(self, alias: str) -> OriginalHead:
        """Size and type of an original. Raises: Gone, Lost."""
        answer = self._original("HEAD", alias, ANSWER)
        size = answer.headers.get("content-length", "")
        total = int(size) if size.isdecimal() else 0
        if not total and "etag" not in answer.headers:
            # up to 0.5.16 HEAD tells no size, and 200 of a lost file as well
            answer = self._original("GET", alias, ANSWER, headers=FIRST)
            match = SIZE.fullmatch(answer.headers.get("content-range", ""))
            total = int(match[1]) if match else len(answer.body)
        return OriginalHead(
            total,
            answer.headers.get("content-type", ""),
            _http_date(answer.headers.get("last-modified", "")),
            _etag(answer.headers.get("etag", "")),
        )

    def hash_of(self, alias: str) -> Hash | None:
        """The hash that pict-rs itself says this alias stands for, without fetching anything; None where it does not say.

        0.5.20 and later do, but for a lost file, and not behind a public endpoint. It tells which content is meant, never which
        bytes lie there: what is sealed is fetched and hashed. Raises: Gone.
        """
        answer = self._send("HEAD", self._place(alias), query={}, headers={}, files=None, limit=ANSWER)
        if answer.status in (404, 410):
            raise Gone(f"pict-rs does not hand out {quoted(alias)}")
        return _etag(answer.headers.get("etag", "")) if answer.status == 200 else None

    def fetch(self, alias: str, limit: int) -> tuple[bytes, str]:
        """The stored bytes of an original, and the type it is served as.

        Raises: Gone (whatever picture a 404 comes with, or is sent to), Lost, TooLarge.
        """
        answer = self._original("GET", alias, limit)
        return answer.body, answer.headers.get("content-type", "")

    def address(self, alias: str) -> str:
        """Where pict-rs sends who asks for this original: its public endpoint, a bucket or CDN; "" where it serves it itself.

        Raises: Gone.
        """
        place = self._place(alias)
        answer = self._send("HEAD", place, query={}, headers={}, files=None, limit=ANSWER)
        if answer.status in (404, 410):
            raise Gone(f"pict-rs does not hand out {quoted(alias)}")
        if answer.status in REDIRECTS and answer.headers.get("location"):
            return self._joined(place, answer.headers["location"])
        return ""

    def is_served(self, address: str) -> bool:
        """Whether a stranger can fetch what lies at such an address. Asked without the key, and past caches that heed that."""
        for _ in range(HOPS + 1):
            fresh = {"Cache-Control": "no-cache"}
            answer = self._send("HEAD", address, query={}, headers=fresh, files=None, limit=ANSWER)
            if answer.status in (405, 501):
                answer = self._send("GET", address, query={}, headers={**fresh, **FIRST}, files=None, limit=self._limit)
            if answer.status in REDIRECTS and answer.headers.get("location"):
                address = self._joined(address, answer.headers["location"])
                continue
            if answer.status in (401, 403, 404, 410):  # a bucket that may not be listed says 403 of what is not there
                return False
            if answer.status in (200, 206, 416):
                return True
            raise Unreached(f"what serves {self._url}'s files to the public is busy or broken: {answer.status}")
        raise Unreached("what serves pict-rs' files to the public sends from one address to another")

    # -- changing -----------------------------------------------------------------------------------------------------

    def delete(self, alias: str) -> None:
        """Have this one alias deleted (0.5), and the content with its last one. Queued, as a purge is.

        A 404 says nothing: pict-rs gives it for an alias that it does not know and for one that has no delete token. Ask `aliases`.
        """
        answer = self._asked("POST", "delete", {"alias": alias})
        if answer.status not in (200, 404):
            raise self._refusal(answer, "delete")

    def purge(self, alias: str) -> tuple[str, ...]:
        """Have the content under this alias deleted with every alias and variant; the aliases it had.

        pict-rs queues it: nothing is gone when this returns. Raises: Gone where the alias is not known.
        """
        answer = self._asked("POST", "purge", {"alias": alias})
        if _absent(answer) or (answer.status == 400 and _says(answer.json(), "No images associated")):  # 400: 0.4
            if self.aliases(alias):  # a 404 to a deletion does not say that nothing is there
                raise Unreached(f"pict-rs knows {quoted(alias)} and did not purge it")
            raise Gone(f"pict-rs knows no alias {quoted(alias)}")
        if answer.status != 200:
            raise self._refusal(answer, "purge")
        return tuple(str(name) for name in self._told(answer, "aliases", list))

    def import_(self, alias: str, data: bytes, content_type: str = "") -> bool:
        """Store bytes under this alias; False where the alias is in use already, whatever lies there. May be re-encoded by pict-rs."""
        files = {"images[]": (alias, data, content_type or "application/octet-stream")}
        answer = self._asked("POST", "import", {}, files=files)
        if answer.status in (200, 201):
            return True
        if _code(answer) == "duplicate-alias":  # with 400 in 0.5, with 500 in 0.6
            return False
        if answer.status == 400 and self.version == "0.4" and self.aliases(alias):
            return False
        raise self._refusal(answer, "import")

    def upload(self, data: bytes, content_type: str, *, alias: str = "") -> UploadAnswer:
        """Upload as Lemmy does, without the key; with an alias import under it. A refusal is told, not raised.

        Raises: Refused where the key is wrong, or what answers is no pict-rs.
        """
        name = alias or f"upload.{content_type.rpartition('/')[2]}"
        headers = {"X-Api-Token": self._key} if alias and self._key else {}
        address = f"{self._url}/internal/import" if alias else f"{self._url}/image"
        answer = self._send(
            "POST", address, query={}, headers=headers, files={"images[]": (name, data, content_type)}, limit=ANSWER
        )
        told = answer.json()
        if answer.status in (401, 404) or not isinstance(told, dict):
            raise self._refusal(answer, "import" if alias else "image")
        if answer.status not in (200, 201):
            return UploadAnswer(answer.status, "", str(told.get("code", ""))[:80], str(told.get("msg", ""))[:200])
        files = self._told(answer, "files", list)
        found = files[0].get("file") if files and isinstance(files[0], dict) else None
        if not isinstance(found, str):
            raise self._strange("file")
        return UploadAnswer(answer.status, found)

    def reaches_inside(self) -> bool | None:
        """Whether it would fetch from its own network for anybody; None where that cannot be told.

        It is asked for a proxied picture at a port of its own loopback where nothing answers: one that may not go there says so
        (recorded: 0.5.25, 0.6.0-rc.6), one that may fails to connect, with a code that 0.6 does not know (seen with both). Nothing
        is fetched or stored either way.
        """
        nowhere = "http://127.0.0.1:9/fediwarden-asks-for-nobody.png"  # the port of `discard`
        answer = self._send("GET", f"{self._url}/image/original", query={"proxy": nowhere}, headers={}, files=None, limit=ANSWER)
        told = answer.json()
        code = str(told.get("code", "")) if isinstance(told, dict) else ""
        if code == "download-file-error" and _says(told, "local address"):
            return False
        return True if code in ("http-client-error", "download-file-error", "unknown-error") else None

    # -- one request --------------------------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> "httpx2.Client":
        import httpx2

        return httpx2.Client(timeout=self._seconds, follow_redirects=False, trust_env=False)

    def _internal(
        self,
        method: str,
        name: str,
        query: Mapping[str, str],
        *,
        accept: tuple[int, ...] = (200,),
    ) -> _Answer:
        answer = self._asked(method, name, query)
        if answer.status not in accept:
            raise self._refusal(answer, name)
        return answer

    def _asked(
        self, method: str, name: str, query: Mapping[str, str], *, files: Mapping[str, tuple[str, bytes, str]] | None = None
    ) -> _Answer:
        """Whatever `/internal/` answers; the caller judges it."""
        headers = {"X-Api-Token": self._key} if self._key else {}
        return self._send(method, f"{self._url}/internal/{name}", query=query, headers=headers, files=files, limit=ANSWER)

    def _place(self, alias: str) -> str:
        return f"{self._url}/image/original/{quote(alias, safe='')}"

    def _original(self, method: str, alias: str, limit: int, *, headers: Mapping[str, str] | None = None) -> _Answer:
        url = place = self._place(alias)
        for _ in range(HOPS + 1):
            answer = self._send(method, url, query={}, headers=headers or {}, files=None, limit=limit)
            if answer.status in REDIRECTS and answer.headers.get("location"):
                if url == place and method != "HEAD":
                    self._known(alias)  # an unknown alias is sent to the picture that stands for missing ones; HEAD says 404
                url = self._joined(url, answer.headers["location"])
                continue
            if answer.status in (404, 410):
                if url != place:
                    self._known(alias)  # purged between the two requests
                    raise self._lost(alias)
                raise Gone(f"pict-rs does not hand out {quoted(alias)}")
            if url == place and answer.status == 500:
                if method == "HEAD":  # without a body, and so without the code
                    told = self._send("GET", url, query={}, headers=FIRST, files=None, limit=limit)
                    if told.status in (404, 410):
                        raise Gone(f"pict-rs does not hand out {quoted(alias)}")  # the end of a purge came between the two
                    answer = told if told.status == 500 else answer
                if _code(answer) == "not-found":
                    raise self._lost(alias)
            if answer.status != 200 and not (headers and answer.status in (206, 416)):  # 416: of an empty file
                raise self._refusal(answer, f"image/original/{alias}")
            return answer
        raise Unreached(f"pict-rs sends from one address to another for {quoted(alias)}")

    def _known(self, alias: str) -> None:
        """Whether pict-rs itself knows the alias, asked by HEAD, which no stand-in answers. Raises: Gone."""
        answer = self._send("HEAD", self._place(alias), query={}, headers={}, files=None, limit=ANSWER)
        if answer.status in (404, 410):
            raise Gone(f"pict-rs does not hand out {quoted(alias)}")

    def _lost(self, alias: str) -> Lost:
        return Lost(
            f"pict-rs knows {quoted(alias)}, and its file is not there",
            hint="the file is missing in pict-rs' store; if many are missing, its folder or bucket is not there",
        )

    def _joined(self, url: str, location: str) -> str:
        import httpx2

        try:
            joined = httpx2.URL(url).join(location)
        except httpx2.InvalidURL as error:
            raise Unreached(f"{self._url} sends elsewhere, to no address at all") from error
        if joined.scheme not in ("http", "https"):
            raise Unreached(f"{self._url} sends elsewhere, to no web address")
        return str(joined)

    def _send(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        files: Mapping[str, tuple[str, bytes, str]] | None,
        limit: int,
    ) -> _Answer:
        with self._lock:
            self._requests += 1
            client = self._client
        begun = time.monotonic()
        with self._reaching():
            # identity: what is hashed must be what is stored
            sent = {"Accept-Encoding": "identity", **headers}
            with client.stream(method, url, params=query or None, headers=sent, files=files) as answer:
                size = answer.headers.get("content-length", "")
                if answer.status_code == 200 and method != "HEAD" and size.isdecimal() and int(size) > limit:
                    raise TooLarge(f"it has {size} bytes, more than the limit of {limit}")
                pieces, got = [], 0
                for piece in answer.iter_raw():
                    got += len(piece)
                    if got > limit:
                        raise TooLarge(f"it has more than the limit of {limit} bytes")
                    if time.monotonic() - begun > self._seconds + got / SLOWEST:
                        raise Unreached(f"{self._url} sends too slowly")
                    pieces.append(piece)
                return _Answer(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, b"".join(pieces))

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.InvalidURL as error:
            raise Refused(f"{self._url} is no address that can be asked", hint="write pictrs://host:port") from error
        except (httpx2.HTTPError, httpx2.StreamError, OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not isinstance(error, httpx2.StreamError) and "closed" not in str(error):
                raise
            raise Unreached(
                f"{self._url} gave no complete answer: {str(error) or type(error).__name__}",
                hint="check the store's `url`, and that pict-rs runs; nothing is lost, the same command goes on later",
            ) from error

    def _refusal(self, answer: _Answer, what: str) -> Unreached:
        """What an answer that is no success means, in words an operator can use."""
        told = answer.json()
        message = str(told.get("msg", ""))[:200] if isinstance(told, dict) else ""
        code = _code(answer)
        words = " ".join(part for part in (str(answer.status), code, message) if part)
        if answer.status == 401:
            hint = (
                "set `api_key` in the credentials file to what pict-rs was given as PICTRS__SERVER__API_KEY"
                " (PICTRS__API_KEY, which some examples have, sets nothing)"
            )
            return Refused("pict-rs does not accept the API key" if self._key else "pict-rs asks for its API key", hint=hint)
        if code == "read-only" or _says(told, "read-only"):
            return Refused("pict-rs is in read-only mode", hint="unset PICTRS__SERVER__READ_ONLY, or wait until it has moved")
        if code == "failed-external-validation" or _says(told, "Failed external validation"):
            return Refused(
                "pict-rs asked its external validation, and that refused the bytes",
                hint="the gate lets bytes pass that `fediwarden restore` puts back; another validator has to be told",
            )
        if code == "http-client-error" and what == "import":
            return Unreached(
                f"pict-rs had no answer from its external validation: {message}",
                hint="check that the gate runs, and its address: pict-rs 0.5.21 and later take no name of a private address, only an IP address",
            )
        if answer.status >= 500 or answer.status in (408, 425, 429):
            return Unreached(f"{self._url} is busy or broken: it answers {words} to `{what}`")
        if 300 <= answer.status < 400:
            return Refused(f"{self._url} sends elsewhere", hint="write the address of pict-rs itself")
        return Refused(f"{self._url} does not do `{what}`: {words}")

    def _told(self, answer: _Answer, name: str, kind: type) -> Any:
        told = answer.json()
        value = told.get(name) if isinstance(told, dict) else None
        if not isinstance(value, kind):
            raise self._strange(name)
        return value

    def _strange(self, name: str) -> Unreached:
        return Unreached(f"{self._url} answers, but without `{name}`", hint="write the address of pict-rs itself")

    def _entry(self, entry: object) -> Item:
        if not isinstance(entry, dict):
            raise self._strange("hashes")
        try:
            name = bytes.fromhex(str(entry.get("hex", "")))
        except ValueError as error:
            raise self._strange("hex") from error
        aliases, details = entry.get("aliases"), entry.get("details")
        if not name or not isinstance(aliases, list):
            raise self._strange("aliases")
        facts = details if isinstance(details, dict) else {}
        return item_named(
            name,
            tuple(str(alias) for alias in aliases),
            created=moment(facts.get("created_at")),
            content_type=str(facts.get("content_type", "")),
        )


def _says(told: object, words: str) -> bool:
    return isinstance(told, dict) and words.lower() in str(told.get("msg", "")).lower()


def _listing(slug: str, before: datetime | None, limit: int) -> dict[str, str]:
    """What `/internal/hashes` is asked; a time wins over a slug there."""
    query = {"limit": str(limit)}
    if before is not None:
        query["timestamp"] = before.astimezone(UTC).isoformat().replace("+00:00", "Z")
    elif slug:
        query["slug"] = slug
    return query


def _code(answer: _Answer) -> str:
    """The `code` of an error, which pict-rs has told since 0.5; "" where there is none."""
    told = answer.json() if answer.status >= 400 else None
    return str(told.get("code") or "")[:80] if isinstance(told, dict) and "msg" in told else ""


def _absent(answer: _Answer) -> bool:
    """Whether pict-rs itself says that it does not know what was asked for; the 404 of a proxy in between says nothing."""
    told = answer.json() if answer.status == 404 else None
    if not isinstance(told, dict) or "msg" not in told:
        return False
    return "code" not in told or told["code"] in ABSENT  # 0.4 tells no code


def _etag(text: str) -> Hash | None:
    """The hash that an ETag of pict-rs spells out; None for any other ETag."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return None  # a weak one was rewritten on its way, and is not pict-rs' own word
    try:
        return Hash.from_base64(text[1:-1])
    except ValueError:
        return None


def _number(told: object) -> float | None:
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else None


def _whole(told: object) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) else None


def _mebibytes(told: object) -> int | None:
    return None if (number := _whole(told)) is None else number << 20


def _bounds(told: object) -> MediaBounds:
    facts = told if isinstance(told, dict) else {}
    return MediaBounds(
        _whole(facts.get("max_width")),
        _whole(facts.get("max_height")),
        _whole(facts.get("max_area")),
        _mebibytes(facts.get("max_file_size")),
        _whole(facts.get("max_frame_count")),
    )


def _http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError):
        return None
