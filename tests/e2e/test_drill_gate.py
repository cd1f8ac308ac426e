"""`drill gate` beside a pict-rs: it passes only where uploads really take the road to this gate, and leaves nothing behind."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.support.command import Home, Ran
from tests.support.fake_pictrs import FakePictrs, running_pictrs
from tests.support.gate_process import running_gate

from fediwarden.model import EngineVersion

SHAPES = ["answered", "on record", "refused", "apart", "sealed", "chunked", "form"]


@pytest.fixture
def home(new_home: Callable[..., Home]) -> Home:
    """A home with the policy that comes with the program: the tests' own hides animations."""
    return new_home(POLICY__FILE="")


def beside(home: Home, fake: FakePictrs) -> None:
    for name in ("read.toml", "keep.toml"):
        file = home.folder / name
        file.write_text(f'api_key = "{fake.api_key}"\n')
        file.chmod(0o600)
    url = f"pictrs://127.0.0.1:{fake.port}"
    home.add_store("media", url=url, credentials="read.toml", keeper_credentials="keep.toml")
    home.settings["FEDIWARDEN_GATE__STORE"] = "media"


def stations(ran: Ran) -> dict[str, tuple[bool, str]]:
    return {line["station"]: (line["passed"], line["detail"]) for line in ran.lines}


@contextmanager
def redirecting() -> Iterator[str]:
    """A proxy that sends everybody elsewhere; its host and port."""

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            while size := int(self.rfile.readline().strip() or b"0", 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
            self.send_response(301)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_uploads_are_proved_to_reach_this_gate_format_by_format_and_nothing_is_left(home: Home) -> None:
    with running_pictrs(FakePictrs(version="0.6.0-rc.6")) as fake, running_gate(home) as gate:
        with redirecting() as home.settings["FEDIWARDEN_GATE__ADDRESS"]:
            alone = home.run("drill", "gate", expect=3)
        assert "it redirects (301). pict-rs may follow that, and then everything passes" in alone.out
        assert "the gate is broken at: address; not proved: that pict-rs asks this gate" in alone.out
        del home.settings["FEDIWARDEN_GATE__ADDRESS"]
        beside(home, fake)
        fake.validator = gate.url
        fake.put(b"somebody's picture", "image/png", alias="theirs.png")

        told = stations(home.run("drill", "gate", "--json"))

        assert list(told)[:8] == [*SHAPES, "pict-rs"]
        recorded = {name for name, (_, detail) in told.items() if detail.startswith("on record as pict-rs lists it")}
        opened = {name for name in recorded if "CANNOT BE OPENED HERE" not in told[name][1]}
        assert {"png", "jpeg", "webp", "avif", "gif", "mp4", "webm"} <= opened
        assert {"gif animation", "webp animation", "apng", "avif animation"} <= opened
        assert recorded - opened == {"heic", "jxl"}  # this pict-rs makes no video of the first, and nothing here opens the second
        assert "refused through pict-rs" in told["drill"][1]
        assert [alias for row in fake.rows.values() for alias in row.aliases] == ["theirs.png"]
        with home.ledger() as ledger:
            assert list(ledger.uploads.debts(EngineVersion(""))) == []
            assert ledger.verify() == []
