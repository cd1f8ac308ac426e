"""pict-rs 0.5 and 0.4 over HTTP, one try a request: what it holds, its bytes, purging and importing; decides nothing, waits for nothing.

The API key goes to `/internal/` of the configured address and nowhere else. Originals are public: they are fetched without it, so a
redirect to an object store or a CDN never sees it.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from hashlib import sha256 as digest
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fediwarden.errors import Gone, Refused, TooLarge, Unreached
from fediwarden.model import Sha256
from fediwarden.platforms.pictrs.hashes import Hash, formats_of
from fediwarden.platforms.pictrs.repository import Repository, item_named
from fediwarden.platforms.pictrs.words import Item, moment, quoted

if TYPE_CHECKING:
    import httpx2

AT_ONCE = 100  # hashes in one page: pict-rs asks its database several times for each
HOPS = 3  # redirects that are followed to an original
SLOWEST = 16 * 1024  # bytes a second; a body that drips more slowly than this is given up
ANSWER = 16 << 20  # bytes; more than any answer that is no picture has
KEY = re.compile(r"([0-9a-f]{64})([0-9a-f]{12})[0-9a-f]{2}")


def content_of(key: str) -> tuple[Sha256, int] | None:
    """The SHA-256 and the size that the key of a 0.5 item tells; None for other keys, such as the aliases of 0.4."""
    match = KEY.fullmatch(key)
    return None if match is None else (Sha256(match[1]), int(match[2], 16))


@dataclass(frozen=True, slots=True)
class Page:
    """One page of `/internal/hashes`. `next` is the slug that the following page begins with; "" at the end."""

    items: tuple[Item, ...]
    next: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What pict-rs says about an original without sending it."""

    size: int
    content_type: str
    modified: datetime | None


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
        """Requests and queries sent so far."""
        return self._requests + (self.repository.queries if self.repository else 0)

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
        """ "0.5" or "0.4", told by what it answers to; asked once."""
        if self.repository is not None:
            return "0.5"  # 0.4 kept no PostgreSQL repository
        answer = self._internal("GET", "hashes", {"limit": "1"}, accept=(200, 401, 404))
        told = answer.json()
        if answer.status == 200:
            return "0.5"
        if answer.status == 401 and isinstance(told, dict) and "msg" in told:
            return "0.5" if "code" in told else "0.4"
        told = self._internal("GET", "aliases", {"alias": "fediwarden"}, accept=(200, 404)).json()
        if isinstance(told, dict) and isinstance(told.get("aliases"), list):
            return "0.4"
        raise Refused(
            f"{self._url} does not answer as pict-rs does",
            hint="write the address of pict-rs itself, not the public one: a proxy hides /internal",
        )

    # -- what it holds ------------------------------------------------------------------------------------------------

    def page(self, slug: str = "", before: datetime | None = None, limit: int = AT_ONCE) -> Page:
        """One page of `/internal/hashes` (0.5), newest first, from `slug` on or strictly older than `before`.

        Trap: a slug that means nothing (its hash was deleted) gives the first page again. The caller compares.
        """
        query = {"limit": str(limit)}
        if before is not None:
            query["timestamp"] = before.astimezone(UTC).isoformat().replace("+00:00", "Z")
        elif slug:
            query["slug"] = slug
        page = self._told(self._internal("GET", "hashes", query), "page", dict)
        entries = page.get("hashes")
        if not isinstance(entries, list):
            raise self._strange("hashes")
        following = page.get("next")
        return Page(tuple(self._entry(entry) for entry in entries), following if isinstance(following, str) else "")

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
        """The item of that name (0.5)."""
        from base64 import urlsafe_b64encode

        if self.repository is not None:
            return self.repository.named(name)
        items = self.page(urlsafe_b64encode(name).decode(), limit=1).items
        return items[0] if items and items[0].key == name.hex() else None

    def find_alias(self, alias: str) -> Item | None:
        """The item that this alias is a name of. Over HTTP 0.5 tells it by content only: the original is fetched and hashed."""
        if self.repository is not None:
            return self.repository.aliased(alias)
        aliases = self.aliases(alias)
        if not aliases:
            return None
        if self.version == "0.4":
            return Item(min(aliases), tuple(sorted(aliases)), identifier=self.identifier(alias) or "")
        try:
            data, content_type = self.fetch(alias, self._limit)
        except Gone:
            return None
        return self.find(Sha256(digest(data).hexdigest()), len(data), content_type)

    def aliases(self, alias: str) -> tuple[str, ...]:
        """Every alias of the content that this one names; empty where pict-rs does not know it."""
        if self.repository is not None:
            item = self.repository.aliased(alias)
            return () if item is None else item.aliases
        found = self._told(self._internal("GET", "aliases", {"alias": alias}), "aliases", list)
        return tuple(str(name) for name in found)

    def identifier(self, alias: str) -> str | None:
        """The key of the original in the store behind pict-rs; None where the alias is not known."""
        if self.repository is not None:
            item = self.repository.aliased(alias)
            return None if item is None else item.identifier
        answer = self._internal("GET", "identifier", {"alias": alias}, accept=(200, 400, 404))
        return None if answer.status != 200 else str(self._told(answer, "identifier", str))

    def head(self, alias: str) -> Head:
        """Size and type of an original. Raises: Gone."""
        answer = self._original("HEAD", alias, ANSWER)
        size = answer.headers.get("content-length", "")
        return Head(
            int(size) if size.isdecimal() else 0,
            answer.headers.get("content-type", ""),
            _http_date(answer.headers.get("last-modified", "")),
        )

    def fetch(self, alias: str, limit: int) -> tuple[bytes, str]:
        """The stored bytes of an original, and the type it is served as.

        Raises: Gone (whatever picture a 404 comes with), TooLarge.
        """
        answer = self._original("GET", alias, limit)
        return answer.body, answer.headers.get("content-type", "")

    # -- changing -----------------------------------------------------------------------------------------------------

    def purge(self, alias: str) -> tuple[str, ...]:
        """Have the content under this alias deleted with every alias and variant; the aliases it had.

        pict-rs queues it: nothing is gone when this returns. Raises: Gone where the alias is not known.
        """
        answer = self._internal("POST", "purge", {"alias": alias}, accept=(200, 400, 404))
        told = answer.json()
        if answer.status == 400 and not _says(told, "No images associated"):
            raise self._refusal(answer, "purge")
        if answer.status != 200:
            raise Gone(f"pict-rs knows no alias {quoted(alias)}")
        return tuple(str(name) for name in self._told(answer, "aliases", list))

    def import_(self, alias: str, data: bytes, content_type: str = "") -> bool:
        """Store bytes under this alias; False where the alias is in use already, whatever lies there. May be re-encoded by pict-rs."""
        files = {"images[]": (alias, data, content_type or "application/octet-stream")}
        answer = self._internal("POST", "import", {}, files=files, accept=(200, 201, 400))
        if answer.status != 400:
            return True
        told = answer.json()
        if isinstance(told, dict) and told.get("code") == "duplicate-alias":
            return False
        if self.version == "0.4" and self.aliases(alias):
            return False
        raise self._refusal(answer, "import")

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
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        accept: tuple[int, ...] = (200,),
    ) -> _Answer:
        headers = {"X-Api-Token": self._key} if self._key else {}
        answer = self._send(method, f"{self._url}/internal/{name}", query=query, headers=headers, files=files, limit=ANSWER)
        if answer.status not in accept:
            raise self._refusal(answer, name)
        return answer

    def _original(self, method: str, alias: str, limit: int) -> _Answer:
        url = f"{self._url}/image/original/{quote(alias, safe='')}"
        for _ in range(HOPS + 1):
            answer = self._send(method, url, query={}, headers={}, files=None, limit=limit)
            if answer.status in (301, 302, 303, 307, 308) and answer.headers.get("location"):
                url = self._joined(url, answer.headers["location"])
                continue
            if answer.status in (404, 410):
                raise Gone(f"pict-rs does not hand out {quoted(alias)}")
            if answer.status != 200:
                raise self._refusal(answer, f"image/original/{alias}")
            return answer
        raise Unreached(f"pict-rs sends from one address to another for {quoted(alias)}")

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
        code = str(told.get("code", ""))[:80] if isinstance(told, dict) else ""
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
        if answer.status >= 500 or answer.status in (408, 425, 429):
            return Unreached(f"{self._url} is busy or broken: {words}")
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


def _http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError):
        return None
