"""Fetching files from a model hub over HTTPS: resumed where they broke off, held to their size and SHA-256; opens none of them.

The hub speaks as huggingface.co does: `/api/models/OWNER/NAME/revision/main` names the commit, and
`/OWNER/NAME/resolve/COMMIT/FILE` answers with the file or a redirect to where it lies. A large file's SHA-256 is in the
header X-Linked-ETag of the hub's own answer. Nothing that a server says is believed before the last byte was hashed.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from fediwarden import __version__
from fediwarden.errors import CannotWrite, Misconfigured, Refused, Unreached
from fediwarden.inference import folder
from fediwarden.inference.catalogue import REVISION
from fediwarden.inference.manifest import DIGEST

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

_REDIRECTS = 5
_ENOUGH = 1 << 20  # bytes; a try that brought this much was no failed one
_TRIES = 4  # without progress
_MOST_TRIES = 500  # in all
_PATIENCE = 60.0  # seconds that a server may ask to wait
_SPARE = 64 << 20  # bytes that are left free on the disk
_LARGEST_ANSWER = 1 << 22  # bytes of the hub's words about a model
_BUSY = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
_NO_NETWORK = "check the network, models.hub and models.proxy; `fediwarden models import` takes a folder from elsewhere"
_GO_ON = "the same command goes on from there; `fediwarden models import` takes a folder from elsewhere"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository at a commit, and what is known of it beforehand."""

    repository: str
    revision: str
    file: str
    sha256: str = ""  # "" where it is not known
    size: int = 0  # 0 where it is not known
    most: int = 1 << 40  # bytes beyond which it cannot be the file


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is there whole."""

    sha256: str
    size: int
    promised: bool  # whether the hub, or the caller, had named its SHA-256


class _Again(Exception):
    """What may pass by itself; `wait` is how many seconds the server asked for."""

    def __init__(self, because: str, wait: float | None = None) -> None:
        super().__init__(because)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class _Answer:
    """A server's answer with its body still to come, and what the hub itself had said on the way to it."""

    response: "httpx2.Response"
    linked: str  # SHA-256 of the file by the hub's word, or ""
    size: int  # of the file by the hub's word, or 0


@dataclass(frozen=True, slots=True)
class Hub:
    """A model hub, or a mirror of one."""

    address: str
    proxy: str = ""  # "" takes the one of the environment (HTTPS_PROXY), if there is one
    timeout: float = 30.0  # seconds without a byte
    sleep: Callable[[float], object] = time.sleep

    @property
    def host(self) -> str:
        """Its name, for people."""
        return _bare(self.address) or "the hub"

    @property
    def place(self) -> str:
        """Its address without a name and password: for people, and for files."""
        return urlsplit(self.address)._replace(netloc=_bare(self.address)).geturl().rstrip("/")

    def revision(self, repository: str, branch: str = "main") -> str:
        """The commit that a branch of a repository is at: 40 hexadecimal digits.

        Raises: Misconfigured where there is no such repository; Refused where the hub wants a login or is none; Unreached
        where it gives no answer.
        """
        url = f"{self._base()}/api/models/{quote(repository)}/revision/{quote(branch, safe='')}"
        with self._client() as client:
            text = self._patiently(lambda: self._words(client, url, repository), lambda: 0)
        try:
            said = json.loads(text)["sha"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Refused(f"{self.host} does not answer as a model hub does", hint="check models.hub") from error
        if not isinstance(said, str) or not REVISION.fullmatch(said):
            raise Refused(f"{self.host} names no revision of {repository}", hint="check models.hub")
        return said

    def fetch(self, wanted: HubFile, part: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Fetched:
        """Bring a file whole into `part`, going on from what is there of it; a second file beside it remembers what that is.

        `progress` is told the bytes that are there and the bytes in all, 0 where nobody said.

        Raises: Misconfigured where the file is not there, or is another one; Refused where the hub wants a login; Unreached
        where it gives no answer, again and again; CannotWrite where the disk has no room. What came so far stays, but for a
        file that turned out to be another one.
        """
        transfer = _Transfer(self, wanted, part, progress)
        with self._client() as client, folder.writing(part.parent):
            return self._patiently(lambda: transfer.attempt(client), transfer.so_far)

    def _base(self) -> str:
        parts = urlsplit(self.address)
        if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(parts.hostname)):
            raise Misconfigured(
                f"models.hub is no HTTPS address: {_bare(self.address) or parts.path}", hint='such as "https://huggingface.co"'
            )
        return self.address.rstrip("/")

    @contextmanager
    def _client(self) -> "Iterator[httpx2.Client]":
        import httpx2

        headers = {"User-Agent": f"fediwarden/{__version__}", "Accept-Encoding": "identity"}
        try:
            client = httpx2.Client(timeout=self.timeout, proxy=self.proxy or None, headers=headers, follow_redirects=False)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:  # a scheme it does not know, or one it needs a package for
            raise Misconfigured(
                f"the proxy cannot be used: {error}", hint="check models.proxy and HTTPS_PROXY; http:// and https:// ones work"
            ) from error
        with client:
            yield client

    @contextmanager
    def _get(self, client: "httpx2.Client", url: str, what: str, headers: dict[str, str]) -> Iterator[_Answer]:
        """An answer with a body, after redirects that stay on HTTPS. Raises: _Again, Refused, Misconfigured."""
        import httpx2

        linked, size = "", 0
        try:
            for _ in range(_REDIRECTS + 1):
                with client.stream("GET", url, headers=headers) as response:
                    if urlsplit(url).netloc == urlsplit(self.address).netloc:  # the hub's own word, not that of a store behind it
                        linked = linked or _digest(response.headers.get("X-Linked-ETag", ""))
                        size = size or _number(response.headers.get("X-Linked-Size", ""))
                    if response.status_code in (301, 302, 303, 307, 308):
                        url = self._onward(url, response.headers.get("Location", ""))
                        continue
                    self._judge(response, url, what)
                    yield _Answer(response, linked, size)
                    return
        except httpx2.InvalidURL as error:
            raise Refused(f"{self.host} sends on to an address that is none", hint="check models.hub") from error
        except httpx2.TransportError as error:
            raise _Again(f"{_bare(url)} {self._in_words(error)}") from error
        raise Refused(f"{self.host} sends in circles for {what}", hint="check models.hub")

    def _in_words(self, error: "httpx2.TransportError") -> str:
        import httpx2

        match error:
            case httpx2.TimeoutException():
                return f"gave no answer for {self.timeout:g} s"
            case httpx2.RemoteProtocolError() | httpx2.ReadError():
                return "broke off"
            case _:
                return f"cannot be reached: {str(error) or type(error).__name__}"

    def _onward(self, url: str, location: str) -> str:
        """Where a redirect leads; only HTTPS, or this machine where the hub is on it."""
        try:
            onward = urljoin(url, location)
            parts = urlsplit(onward)
            here = _loopback(parts.hostname) and _loopback(urlsplit(self.address).hostname)
        except ValueError as error:
            raise Refused(f"{self.host} sends on to an address that is none", hint="check models.hub") from error
        if parts.scheme != "https" and not (parts.scheme == "http" and here):
            raise Refused(
                f"{self.host} sends on to {parts.scheme}://{_bare(onward)}, which is not HTTPS; nothing was fetched from there",
                hint="check models.hub",
            )
        return onward

    def _judge(self, response: "httpx2.Response", url: str, what: str) -> None:
        """Let a success pass. Raises: _Again, Refused, Misconfigured."""
        status, who = response.status_code, _bare(url)
        if status in (200, 206, 416):
            return
        if status in _BUSY:
            raise _Again(f"{who} answers {status}", _seconds(response.headers.get("Retry-After", "")))
        if status == 404:
            raise Misconfigured(
                f"{who} has no {what}", hint="it may have moved; `fediwarden models import` takes a folder from elsewhere"
            )
        if status in (401, 403, 407, 451):
            raise Refused(
                f"{who} does not give {what} to strangers (it answers {status})",
                hint="fetch it with a browser or the hub's own tool, and take it in with `fediwarden models import`",
            )
        raise Refused(f"{who} answers {status} for {what}", hint="check models.hub")

    def _words(self, client: "httpx2.Client", url: str, repository: str) -> bytes:
        with self._get(client, url, f"model {repository}", {}) as answer:
            text = b""
            for block in answer.response.iter_raw():
                text += block
                if len(text) > _LARGEST_ANSWER:
                    raise Refused(f"{self.host} does not answer as a model hub does", hint="check models.hub")
            return text

    def _patiently(self, call: Callable[[], T], so_far: Callable[[], int]) -> T:
        """Try again what may pass, a bounded number of times. Raises: Unreached."""
        failed = 0
        for _ in range(_MOST_TRIES):
            before = so_far()
            try:
                return call()
            except _Again as again:
                failed = 0 if so_far() - before >= _ENOUGH else failed + 1
                kept = so_far()
                hint = _GO_ON if kept else _NO_NETWORK
                there = f"; {kept / 1e6:,.1f} MB are kept" if kept else ""
                if again.wait is not None and again.wait > _PATIENCE:
                    raise Unreached(f"{again}, and asks to wait {again.wait:.0f} s{there}", hint=hint) from again
                if failed >= _TRIES:
                    raise Unreached(f"no model could be fetched: {again}{there}", hint=hint) from again
                self.sleep(again.wait if again.wait is not None else min(30.0, 2.0**failed / 2))
        raise Unreached(f"the hub {self.host} breaks off again and again", hint=_GO_ON)


class _Transfer:
    """One file on its way: what is there of it, and the tries to bring the rest."""

    def __init__(self, hub: Hub, wanted: HubFile, part: Path, progress: Callable[[int, int], None]) -> None:
        self._hub = hub
        self._wanted = wanted
        self._part = part
        self._about = part.with_name(f"{part.name}.about")
        self._progress = progress
        self._name = f"{wanted.repository}/{wanted.file}"

    def so_far(self) -> int:
        """Bytes that are there."""
        return self._part.stat().st_size if self._part.exists() else 0

    def attempt(self, client: "httpx2.Client") -> Fetched:
        """One try. Raises: _Again, and what `Hub.fetch` does."""
        wanted = self._wanted
        remembered = self._remembered()
        start = self.so_far()
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if remembered["etag"]:
                headers["If-Range"] = remembered["etag"]
        base = self._hub._base()
        url = f"{base}/{quote(wanted.repository)}/resolve/{quote(wanted.revision)}/{quote(wanted.file)}"
        with self._hub._get(client, url, self._name, headers) as answer:
            if remembered["linked"] and answer.linked != remembered["linked"]:
                self._forget()
                raise _Again(f"{self._hub.host} now names another file")
            promise = wanted.sha256 or answer.linked
            if answer.linked and wanted.sha256 and answer.linked != wanted.sha256:
                self._forget()
                raise self._other("the hub names other bytes than the pinned ones")
            total = self._total(answer, start, _number(remembered["size"]))
            if answer.response.status_code == 200:
                start = 0
            self._room(total - start)
            etag = answer.response.headers.get("ETag", "")
            self._remember(etag if etag.startswith('"') else "", answer.linked, bool(promise), total)
            if answer.response.status_code != 416:
                self._receive(answer, start, total)
        sha256, size = folder.digest_of(self._part)
        if (total and size != total) or (promise and sha256 != promise):
            self._forget()
            if start:  # the part that was there may have been bad: once more, from the first byte
                raise _Again("what was there of the file was damaged")
            raise self._other("its SHA-256 is not the pinned one" if wanted.sha256 else "its SHA-256 is not what the hub names")
        return Fetched(sha256, size, bool(promise))

    def _total(self, answer: _Answer, start: int, before: int) -> int:
        """The length of the whole file, 0 where nobody says one. Raises: _Again, Misconfigured, Refused."""
        response, wanted = answer.response, self._wanted
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(f"{self._hub.host} sends {self._name} packed, which was not asked for", hint="check models.proxy")
        length = _number(response.headers.get("Content-Length", ""))
        if response.status_code == 206:
            unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
            span, _, whole = rest.partition("/")
            if unit != "bytes" or _number(span.partition("-")[0]) != start:
                self._forget()
                raise _Again("another piece of the file came than the one that was asked for")
            length = _number(whole) or (start + length if length else 0)
        elif response.status_code == 416:  # nothing follows: either all of it is here, or what is here is of another file
            length = _number(response.headers.get("Content-Range", "").removeprefix("bytes */"))
            if length != start:
                self._forget()
                raise _Again("the hub's file is shorter than what is here of it")
        earlier = before if response.status_code != 200 else 0  # another length is no lie where it is another answer
        told = {number for number in (length, answer.size, wanted.size, earlier) if number}
        if len(told) > 1:
            self._forget()
            raise self._other(f"it is {max(told):,} bytes long by one account and {min(told):,} by another")
        total = max(told, default=0)
        if total > wanted.most:
            raise self._other(f"it is {total:,} bytes long, and cannot have more than {wanted.most:,}")
        return total

    def _receive(self, answer: _Answer, start: int, total: int) -> None:
        limit = total or self._wanted.most
        done = start
        with self._part.open("r+b" if self._part.exists() else "xb") as out:
            out.truncate(start)
            out.seek(start)
            for block in answer.response.iter_raw():
                done += len(block)
                if done > limit:
                    break
                out.write(block)
                self._progress(done, total)
        if done > limit:
            self._forget()
            raise self._other(f"more than its {limit:,} bytes came")
        if total and done < total:
            raise _Again(f"{answer.response.url.host} broke off after {done / 1e6:,.1f} of {total / 1e6:,.1f} MB")

    def _room(self, needed: int) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if needed + _SPARE > free:
            raise CannotWrite(
                f"{self._part.parent.parent} has {free / 1e6:,.0f} MB free, and {self._wanted.file} needs {(needed + _SPARE) / 1e6:,.0f} MB",
                hint="make room, or set FEDIWARDEN_HOME to a larger disk; what was fetched so far is kept",
            )

    def _remembered(self) -> dict[str, str]:
        """What is known of the part that is there; a part that nothing is known of is thrown away."""
        try:
            said = json.loads(self._about.read_text(encoding="utf-8"))
            kept = {key: str(said[key]) for key in ("of", "etag", "linked", "promised", "size")}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            kept = {"of": ""}
        if kept["of"] != self._identity() or not (kept["etag"] or kept["promised"]):
            self._forget()
            return {"of": self._identity(), "etag": "", "linked": "", "promised": "", "size": ""}
        return kept

    def _identity(self) -> str:
        return f"{self._hub.place} {self._wanted.repository} {self._wanted.revision} {self._wanted.file}"

    def _remember(self, etag: str, linked: str, promised: bool, total: int) -> None:
        said = {"of": self._identity(), "etag": etag, "linked": linked, "promised": "yes" if promised else "", "size": total}
        self._about.write_text(json.dumps(said), encoding="utf-8")

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _other(self, because: str) -> Misconfigured:
        return Misconfigured(
            f"{self._name} is not the file it should be: {because}",
            hint="nothing was installed; a file at a revision never changes by itself, so check models.hub and what is before it",
        )


def _bare(url: str) -> str:
    """Host and port of an address, for people: without the name and password that a mirror may ask for."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def _digest(etag: str) -> str:
    """The SHA-256 in an entity tag, or ""."""
    bare = etag.removeprefix("W/").strip('"').lower()
    return bare if DIGEST.fullmatch(bare) else ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _seconds(text: str) -> float | None:
    """What Retry-After asks for; a date is taken as the usual wait."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else None
