"""A model hub on this machine that also has bad days: breaks off, lies, changes its mind; and small weights made on the spot.

It speaks as the real one does (a revision by name, a redirect to a store behind it with the SHA-256 in X-Linked-ETag), and does
per file what a test asks of it.
"""

import json
import math
import random
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fediwarden.inference.catalogue import CatalogueEntry, KnownFile, Tensor
from fediwarden.inference.manifest import ImageInput, Role

REVISION = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/tiny-clip"
WEIGHTS = "open_clip_model.safetensors"
TOKENIZER = json.dumps({"model": {"type": "BPE"}}).encode()
SCALE = math.log(100.0)


def safetensors(arrays: Mapping[str, tuple[int, ...]], *, kind: str = "F32", seed: int = 1) -> bytes:
    """Weights of these shapes with random numbers in them; `logit_scale` holds the logarithm of 100."""
    width = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}[kind]
    chance = random.Random(seed)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, shape in arrays.items():
        scale = {"F32": struct.pack("<f", SCALE), "F16": struct.pack("<e", SCALE), "F64": struct.pack("<d", SCALE)}
        scale["BF16"] = scale["F32"][2:]
        data = scale[kind] if name == "logit_scale" else chance.randbytes(math.prod(shape) * width)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return framed(json.dumps(header).encode(), body)


def framed(header: bytes, body: bytes) -> bytes:
    """A safetensors file of a header and what follows it, whatever they are."""
    return len(header).to_bytes(8, "little") + header + body


def tiny(*, name: str = "tiny-clip", research_only: bool = False, side: int = 300) -> tuple[CatalogueEntry, dict[str, bytes]]:
    """A model of about `side` squared times eight bytes: what a catalogue says of it, and its files."""
    shapes = {"visual.proj": (side, side), "token_embedding.weight": (side, side), "logit_scale": ()}
    entry = CatalogueEntry(
        name=name,
        title="A model for tests",
        about="Random numbers.",
        measures="nothing",
        licence="none",
        research_only=research_only,
        blind=("It sees nothing.",),
        repository=REPOSITORY,
        revision="",
        architecture="Tiny",
        dimensions=side,
        values=2 * side * side + 1,
        accuracy=0.1,
        accuracy_source="nobody",
        image=ImageInput(32, "longest", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        tensors=(Tensor("visual.proj", (side, side)),),
        files=(KnownFile(WEIGHTS, Role.SOURCE, "", 0, 1), KnownFile("tokenizer.json", Role.TOKENIZER, "", 0, 1)),
    )
    return entry, {WEIGHTS: safetensors(shapes), "tokenizer.json": TOKENIZER}


def as_catalogue(entry: CatalogueEntry) -> str:
    """The entry as the text of an operator's own catalogue."""
    files = ", ".join(
        f'{{ name = "{one.name}", role = "{one.role}", sha256 = "{one.sha256}", size = {one.size}, about_mb = {one.about_mb} }}'
        for one in entry.files
    )
    tensors = ", ".join(f'{{ name = "{one.name}", shape = {list(one.shape)} }}' for one in entry.tensors)
    words = ("name", "title", "about", "measures", "licence", "repository", "revision", "architecture", "accuracy_source")
    image = entry.image
    return "\n".join(
        [
            "[[model]]",
            *(f"{key} = {json.dumps(getattr(entry, key))}" for key in words),
            f"research_only = {str(entry.research_only).lower()}",
            f"blind = {json.dumps(list(entry.blind))}",
            f"dimensions = {entry.dimensions}",
            f"values = {entry.values}",
            f"accuracy = {entry.accuracy}",
            f'image = {{ size = {image.size}, resize = "{image.resize}", mean = {list(image.mean)}, deviation = {list(image.deviation)} }}',
            f"tensors = [{tensors}]",
            f"files = [{files}]",
        ]
    )


@dataclass
class Mood:
    """How a file is answered. Counts are of answers; each one is used up as it is given."""

    break_after: list[int] = field(default_factory=list)  # bytes after which an answer stops, one answer after the other
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # answers that are none
    ranges: bool = True  # whether it can go on from a byte
    wrong_range: bool = False  # whether it then sends another piece
    linked: str | None = None  # what it says the SHA-256 is; None: the right one, "": nothing
    linked_size: int | None = None  # and the length
    length: int | None = None  # what Content-Length says
    chunked: bool = False  # no length at all
    etags: list[str] = field(default_factory=list)  # one answer after the other; the last one stays
    redirect: str = ""  # where it sends on to, in place of the store behind it
    packed: bool = False
    slow: float = 0.0  # seconds between blocks


class HubServer:
    """The server, what it holds, its moods, and what was asked of it."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.revision = REVISION
        self.moods: dict[str, Mood] = {name: Mood() for name in ("api", *files)}
        self.asked: list[tuple[str, str]] = []  # path and Range
        self.address = ""

    def ranges(self, name: str) -> list[str]:
        """The ranges that were asked of the store behind the hub for a file, "" for the whole."""
        return [asked for path, asked in self.asked if path == f"/store/{name}"]


@contextmanager
def hub_server(files: Mapping[str, bytes]) -> Iterator[HubServer]:
    """A hub that holds one repository, on a port of its own."""
    hub = HubServer(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            hub.asked.append((self.path, self.headers.get("Range", "")))
            if self.path == f"/api/models/{REPOSITORY}/revision/main":
                self._api(hub.moods["api"])
                return
            name = self.path.rpartition("/")[2]
            mood = hub.moods.get(name)
            if mood is None or name not in hub.files:
                self._short(404, {})
            elif self.path == f"/{REPOSITORY}/resolve/{hub.revision}/{name}":
                self._hub(name, mood)
            elif self.path == f"/store/{name}":
                self._store(hub.files[name], mood)
            else:
                self._short(404, {})

        def _api(self, mood: Mood) -> None:
            if mood.statuses:
                self._short(*mood.statuses.pop(0))
                return
            data = json.dumps({"id": REPOSITORY, "sha": hub.revision}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _hub(self, name: str, mood: Mood) -> None:
            data = hub.files[name]
            self.send_response(302)
            linked = sha256(data).hexdigest() if mood.linked is None else mood.linked
            if linked:
                self.send_header("X-Linked-ETag", f'"{linked}"')
                self.send_header("X-Linked-Size", str(len(data) if mood.linked_size is None else mood.linked_size))
            self.send_header("X-Repo-Commit", hub.revision)
            self.send_header("Location", mood.redirect or f"/store/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _store(self, data: bytes, mood: Mood) -> None:
            if mood.statuses:
                self._short(*mood.statuses.pop(0))
                return
            etag = mood.etags.pop(0) if len(mood.etags) > 1 else mood.etags[0] if mood.etags else '"tag"'
            asked = self.headers.get("Range", "")
            start = 0
            if asked and mood.ranges and self.headers.get("If-Range", etag) == etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(data):
                    self._short(416, {"Content-Range": f"bytes */{len(data)}"})
                    return
                self.send_response(206)
                shown = start + 1 if mood.wrong_range else start
                self.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("ETag", etag)
            if mood.packed:
                self.send_header("Content-Encoding", "gzip")
            body = data[start:]
            if mood.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(body) if mood.length is None else mood.length))
            self.end_headers()
            if mood.break_after:
                body = body[: mood.break_after.pop(0)]
                self.close_connection = True
            try:
                self._body(body, mood)
            except OSError:
                self.close_connection = True

        def _body(self, body: bytes, mood: Mood) -> None:
            for at in range(0, len(body), 1 << 14):
                block = body[at : at + (1 << 14)]
                self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n" if mood.chunked else block)
                if mood.slow:
                    threading.Event().wait(mood.slow)
            if mood.chunked:
                self.wfile.write(b"0\r\n\r\n")

        def _short(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def at_once(_seconds: float) -> None:
    """In place of waiting."""


def left_of(folder: Path) -> set[str]:
    """Everything in a folder, by its path in it, but for the lock that stays."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {".lock"}
