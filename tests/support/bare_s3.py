"""An S3 server of a page, in memory, that takes any key whatever (real ones with a file system behind them do not); checks no signature."""

import hashlib
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote


@dataclass
class BareS3:
    """One bucket, "media": key to bytes and content type."""

    endpoint: str = ""
    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def credentials(self, folder: Path) -> tuple[Path, Path]:
        """The reader's and the keeper's credentials files."""
        paths = []
        for name in ("reader", "keeper"):
            path = folder / f"{name}.toml"
            path.write_text(f'access_key_id = "{name}"\nsecret_access_key = "secret"\n')
            path.chmod(0o600)
            paths.append(path)
        return paths[0], paths[1]


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: BareS3

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        path, _, query = self.path.partition("?")
        return unquote(path.removeprefix("/media").removeprefix("/")), parse_qs(query, keep_blank_values=True)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _none(self) -> None:
        self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_GET(self) -> None:
        key, query = self._asked()
        if not key and "list-type" in query:
            entries = "".join(
                f"<Contents><Key>{quote(name, safe='')}</Key><Size>{len(data)}</Size><ETag>{_etag(data)}</ETag></Contents>"
                for name, (data, _) in sorted(self.store.objects.items())
            )
            body = (
                f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
            )
            self._answer(200, body.encode())
        elif not key and "versioning" in query:
            self._answer(200, b"<VersioningConfiguration/>")
        elif "authorization" not in {name.lower() for name in self.headers}:
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        elif "tagging" in query or "acl" in query:
            self._answer(501, b"<Error><Code>NotImplemented</Code></Error>")
        elif key in self.store.objects:
            data, kind = self.store.objects[key]
            self._answer(200, data, Content_Type=kind, ETag=_etag(data))
        else:
            self._none()

    def do_HEAD(self) -> None:
        key, _ = self._asked()
        if not key:
            self._answer(200)
        elif key in self.store.objects:
            data, kind = self.store.objects[key]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("ETag", _etag(data))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
        else:
            self._none()

    def do_PUT(self) -> None:
        key, _ = self._asked()
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("if-none-match") == "*" and key in self.store.objects:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        source = self.headers.get("x-amz-copy-source")
        if source:
            name = unquote(source).removeprefix("/media/")
            if name not in self.store.objects:
                self._none()
                return
            self.store.objects[key] = self.store.objects[name]
            etag = _etag(self.store.objects[name][0])
            self._answer(200, f"<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>".encode())
            return
        self.store.objects[key] = (body, self.headers.get("content-type") or "")
        self._answer(200, ETag=_etag(body))

    def do_DELETE(self) -> None:
        key, _ = self._asked()
        match = self.headers.get("if-match")
        if match and key in self.store.objects and _etag(self.store.objects[key][0]) != match:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        self.store.objects.pop(key, None)
        self._answer(204)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@contextmanager
def bare_s3() -> Generator[BareS3]:
    """The server on a free loopback port."""
    store = BareS3()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store})) as server:
        store.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join(5)
