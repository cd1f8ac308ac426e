"""Kills commands where it hurts, and says afterwards whether every object is accounted for; for tests only."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.command import Home, Ran, files_below
from tests.support.servers import S3Server

from fediwarden.model import Sha256
from fediwarden.stores.sigv4 import unquoted

KILLED = -signal.SIGKILL
QUARANTINE = "fediwarden-quarantine/"


@dataclass
class Forks:
    """Runs commands as forks of one process that has imported the program already. `points`: how many the last one passed."""

    process: "subprocess.Popen[str]"
    folder: Path
    points: int = 0

    def run(
        self,
        home: Home,
        *arguments: str | Path,
        fatal: int | None = None,
        after: float | None = None,
        expect: int | None = 0,
        timeout: float = 120,
    ) -> Ran:
        """Run one command, killed before point number `fatal`, or `after` seconds, if it has not ended by then."""
        files = {name: str(self.folder / name) for name in ("out", "err", "points")}
        Path(files["points"]).unlink(missing_ok=True)
        words = [str(argument) for argument in arguments]
        request = {
            "arguments": words,
            "environment": home.environment,
            "cwd": str(home.folder.parent),
            "fatal": fatal,
            "after": after,
            "timeout": timeout,
            **files,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if answer == "late":
            raise subprocess.TimeoutExpired(words, timeout)
        code = int(answer)
        texts = [Path(files[name]).read_bytes().decode("utf-8", "surrogateescape") for name in ("out", "err")]
        ran = Ran(code, *texts)
        undisturbed = fatal is None and after is None
        assert not undisturbed or expect is None or code == expect, (arguments, code, ran.out[-3000:], ran.err[-3000:])
        if code != KILLED and Path(files["points"]).exists():
            self.points = int(Path(files["points"]).read_text())
        assert "Traceback" not in ran.err, ran.err
        return ran


@contextmanager
def forks() -> Generator[Forks]:
    """A fork server, ended afterwards."""
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as process,
    ):
        yield Forks(process, Path(folder))


@dataclass
class Site:
    """A store as it really is, seen past the program: what lies at its place, and what lies in quarantine."""

    name: str
    put: Callable[[str, bytes], None]
    present: Callable[[], dict[str, bytes]]
    quarantined: Callable[[], list[bytes]]


def folder_site(name: str, root: Path) -> Site:
    """A folder, or what an SSH server shows of it."""
    root.mkdir(exist_ok=True)

    def put(key: str, data: bytes) -> None:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (time.time() - 3600,) * 2)

    place = root.with_name(root.name + ".quarantine")
    return Site(name, put, lambda: files_below(root), lambda: list(files_below(place).values()) if place.exists() else [])


def bucket_site(name: str, server: S3Server, bucket: str) -> Site:
    """A bucket, listed with the administrator's key."""

    def everything() -> dict[str, bytes]:
        client = server.client()
        answer = client.send("GET", bucket, query={"list-type": "2", "encoding-type": "url", "max-keys": "1000"})
        root = answer.xml()
        assert root is not None
        assert root.findtext("{*}IsTruncated") != "true", "more objects than this looks at"
        keys = [unquoted(str(entry.findtext("{*}Key"))) for entry in root.iterfind("{*}Contents")]
        found = {key: client.send("GET", bucket, key).body for key in keys}
        client.close()
        return found

    return Site(
        name,
        lambda key, data: server.put(bucket, key, data, content_type="image/gif", x_amz_meta_alias="cat"),
        lambda: {key: data for key, data in everything().items() if not key.startswith(QUARANTINE)},
        lambda: [data for key, data in everything().items() if key.startswith(QUARANTINE)],
    )


def nothing_hidden_unsealed(home: Home, site: Site, originals: dict[str, bytes]) -> None:
    """At any moment, mid-crash too: each object is at its place byte for byte, or sealed in the vault."""
    present = site.present()
    for key, data in originals.items():
        if key in present:
            assert present[key] == data, f"{key} holds other bytes"
        else:
            assert home.vault().check(Sha256(sha256(data).hexdigest())), f"{key} is hidden and not sealed"
    assert present.keys() <= originals.keys()


def all_accounted_for(home: Home, site: Site, originals: dict[str, bytes], *, hidden: set[str], removes: bool = False) -> None:
    """After the rerun: each object in exactly one place, byte for byte, and ledger, vault and store agree."""
    nothing_hidden_unsealed(home, site, originals)
    present, held = site.present(), site.quarantined()
    for key, data in originals.items():
        copies = sum(1 for other in held if other == data)
        if key in hidden:
            assert key not in present, f"{key} is still public"
            assert copies == (0 if removes else 1), f"{key} is {copies} times in quarantine"
            assert home.unsealed(data), f"the vault does not give {key} back"
        else:
            assert key in present, f"{key} is lost"
            assert copies == 0, f"{key} is at its place and in quarantine"
    with home.ledger() as ledger:
        assert ledger.verify() == []
        assert {event.key for event in ledger.hidden()} == hidden
        assert list(ledger.owed()) == []
