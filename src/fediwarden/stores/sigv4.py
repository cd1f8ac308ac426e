"""The few S3 requests that are needed, signed (AWS Signature Version 4) over the standard library's HTTP connections.

A client library is not used for the listing and the fetching, because the one that was measured refuses a whole listing
for one key with a control character and takes "/a" and "a" for the same object, while being no faster than this. What the
answers mean for a store is decided in `s3`.
"""

import hashlib
import hmac
import http.client
import select
import ssl
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from threading import Lock
from urllib.parse import quote, unquote

from fediwarden.errors import Refused, TooLarge, Unreached
from fediwarden.stores.credentials import S3Keys
from fediwarden.stores.naming import shown
from fediwarden.stores.retry import Patience
from fediwarden.stores.url import Endpoint

EMPTY = hashlib.sha256(b"").hexdigest()
SAFE = "-_.~"
PIECE = 1 << 18
SLOWEST = 16 * 1024  # bytes a second; a body that drips more slowly than this is given up
SMALL = 64 << 20  # bytes; more than any listing or error message has
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
PASSING_CODES = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted"})


def quoted(key: str, safe: str = SAFE + "/") -> str:
    """Percent-encoded as signatures want it; what was not UTF-8 goes back to the bytes it came from."""
    return quote(key.encode("utf-8", "surrogateescape"), safe=safe)


def unquoted(text: str) -> str:
    """The key in a listing that was asked for with `encoding-type=url`."""
    return unquote(text.replace("+", " "), errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class Response:
    """What a server said: `headers` with lower-case names; `sha256` only where the body was hashed instead of kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    sha256: str = ""

    @property
    def etag(self) -> str:
        """The entity tag without its quotes."""
        return self.headers.get("etag", "").strip('"')

    @property
    def code(self) -> str:
        """The error code in an XML answer, or ""."""
        root = self.xml()
        return "" if root is None else text_of(root, "Code")

    def xml(self) -> ET.Element | None:
        """The body as XML, or None. Expat expands no external entities, and billion-laughs attacks are refused by it."""
        try:
            return ET.fromstring(self.body)  # noqa: S314 - the operator's own server; expat >= 2.4.1 bounds amplification
        except ET.ParseError:
            return None


def text_of(element: ET.Element, name: str) -> str:
    """The text of a child whatever its namespace, or ""."""
    found = element.find(f"{{*}}{name}")
    return (found.text or "") if found is not None else ""


@dataclass(slots=True)
class Signer:
    """Makes the headers that prove who asks. The key of the day is derived once a day."""

    keys: S3Keys
    region: str
    _day: str = ""
    _key: bytes = field(default=b"", repr=False)

    def headers(
        self, method: str, host: str, path: str, query: str, extra: Mapping[str, str], body: bytes, now: datetime
    ) -> dict[str, str]:
        """All headers to send. `path` and `query` are the encoded ones that are sent; names in `extra` are lower-case."""
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        day = stamp[:8]
        digest = hashlib.sha256(body).hexdigest() if body else EMPTY
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp, **extra}
        if self.keys.session_token:
            headers["x-amz-security-token"] = self.keys.session_token
        names = ";".join(sorted(headers))
        lines = (f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers))
        canonical = "\n".join((method, path, query, *lines, "", names, digest))
        scope = f"{day}/{self.region}/s3/aws4_request"
        to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode("latin-1")).hexdigest()))
        signature = hmac.new(self._of_the_day(day), to_sign.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.keys.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _of_the_day(self, day: str) -> bytes:
        if self._day != day:
            key = f"AWS4{self.keys.secret_access_key}".encode()
            for part in (day, self.region, "s3", "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._key, self._day = key, day
        return self._key


class S3Client:
    """Signed requests over a few kept connections, from any thread, with patience. Opens nothing before the first request.

    `keys=None` asks as a stranger. `seconds`: how long a server may stay silent. Every request here may be sent twice
    without harm; the callers see to that.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: S3Keys | None,
        patience: Patience,
        *,
        seconds: float = 30.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tls, self._host, self._port = endpoint.tls, endpoint.host, endpoint.port
        self._path_style = endpoint.path_style
        self._signer = Signer(keys, endpoint.region) if keys else None
        self._patience = patience
        self._seconds = seconds
        self._now = now
        self._lock = Lock()
        self._idle: list[tuple[str, http.client.HTTPConnection]] = []
        self._requests = 0

    @property
    def requests(self) -> int:
        """Requests sent so far, tries included; one that crossed with the server's hanging up counts."""
        return self._requests

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def send(
        self,
        method: str,
        bucket: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        limit: int = SMALL,
        hashed: bool = False,
    ) -> Response:
        """One request, tried again while the server is busy or out of reach.

        Answers with 2xx, 3xx and 4xx are returned. Raises: Unreached (no answer, 5xx, SlowDown, a body cut short), TooLarge
        (a body with more than `limit` bytes; not with `hashed`, which only hashes it).
        """
        return self._patience.run(lambda: self._once(method, bucket, key, query or {}, headers or {}, body, limit, hashed))

    def _once(
        self,
        method: str,
        bucket: str,
        key: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        limit: int,
        hashed: bool,
    ) -> Response:
        virtual = not self._path_style and "." not in bucket  # a dot in the name does not go with a TLS certificate
        host = f"{bucket}.{self._host}" if virtual else self._host
        path = ("/" if virtual else f"/{bucket}/") + quoted(key)
        if not key and not virtual:
            path = f"/{bucket}"
        asked = "&".join(f"{quoted(name, SAFE)}={quoted(value, SAFE)}" for name, value in sorted(query.items()))
        netloc = f"[{host}]" if ":" in host else host
        if self._port != (443 if self._tls else 80):
            netloc += f":{self._port}"
        if self._signer is None:
            sent = {"host": netloc, **headers}
        else:
            sent = self._signer.headers(method, netloc, path, asked, headers, body, self._now())
        if body or method == "PUT":
            sent["content-length"] = str(len(body))
        # a "." or ".." is sent encoded, lest something on the way resolves it as a path; the signature has it plain
        wire = "/".join({".": "%2E", "..": "%2E%2E"}.get(part, part) for part in path.split("/"))
        target = wire + (f"?{asked}" if asked else "")
        connection, kept = self._borrow(host)
        try:
            answer = self._exchange(connection, method, target, sent, body, limit, hashed, key)
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if kept and isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                # the server closed an idle connection while we asked; that says nothing about the server
                return self._once(method, bucket, key, query, headers, body, limit, hashed)
            if isinstance(error, ssl.SSLCertVerificationError):
                raise Refused(
                    f"the certificate of {self._host} was not accepted: {error.verify_message}",
                    hint="check `endpoint`, and that this machine knows the authority that signed it",
                ) from error
            raise Unreached(
                f"{self._host}:{self._port} gave no complete answer: {_words(error)}",
                hint="check `endpoint`, and that the server runs; nothing is lost, the same command goes on later",
            ) from error
        except BaseException:
            connection.close()
            raise
        if answer.status in PASSING or (answer.status == 400 and answer.code in PASSING_CODES):
            raise Unreached(f"{self._host}:{self._port} is busy or broken: {answer.status} {answer.code}".rstrip())
        return answer

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        limit: int,
        hashed: bool,
        key: str,
    ) -> Response:
        self._requests += 1
        begun = time.monotonic()
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        with connection.getresponse() as response:
            length = response.length  # None: chunked, or until the connection ends
            known = response.getheader("content-length") is not None or response.chunked
            good = 200 <= response.status < 300
            if good and not hashed and length is not None and length > limit and method != "HEAD":
                raise TooLarge(f"{shown(key)} has {length} bytes, more than the limit of {limit}")
            pieces: list[bytes] = []
            digest = hashlib.sha256()
            got = 0
            while piece := response.read1(PIECE):  # what is there: a server that drips must not hold us in one call
                got += len(piece)
                if hashed and good:
                    digest.update(piece)
                elif got > limit:
                    raise TooLarge(f"{shown(key)} has more than the limit of {limit} bytes")
                else:
                    pieces.append(piece)
                if time.monotonic() - begun > self._seconds + got / SLOWEST:
                    raise TimeoutError("it sends too slowly")
            if length is not None and got < length and method != "HEAD":
                raise http.client.IncompleteRead(b"", length - got)
            if not known and got:
                raise http.client.IncompleteRead(b"")  # nobody could tell whether this is the whole
            answer = Response(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                b"".join(pieces),
                digest.hexdigest() if hashed and good else "",
            )
            closing = response.will_close
        if closing:
            connection.close()
        else:
            self._give_back(connection)
        return answer

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _borrow(self, host: str) -> tuple[http.client.HTTPConnection, bool]:
        """A kept connection to the host that the server has not closed, or a new one; and whether it was kept."""
        while (kept := self._pop(host)) is not None:
            if _silent(kept):
                return kept, True
            kept.close()
        if self._tls:
            return http.client.HTTPSConnection(host, self._port, timeout=self._seconds, context=self._context), False
        return http.client.HTTPConnection(host, self._port, timeout=self._seconds), False

    def _pop(self, host: str) -> http.client.HTTPConnection | None:
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][0] == host:
                    return self._idle.pop(index)[1]
        return None

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < 32:
                self._idle.append((connection.host, connection))
                return
        connection.close()


def _silent(connection: http.client.HTTPConnection) -> bool:
    """Whether an idle connection has nothing to say: words before a question are a farewell, or belong to another one."""
    if connection.sock is None:
        return False
    asked = select.poll()
    asked.register(connection.sock, select.POLLIN)
    return not asked.poll(0)


def _words(error: Exception) -> str:
    match error:
        case TimeoutError():
            return str(error) or "it took too long"
        case http.client.IncompleteRead():
            return "the body was cut short"
        case OSError():
            return error.strerror or str(error) or type(error).__name__
        case _:
            return type(error).__name__
