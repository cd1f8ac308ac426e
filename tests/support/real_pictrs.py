"""A real pict-rs on loopback, as `scripts/real.sh` builds it: started, killed, upgraded in place; shares no code with `fediwarden.platforms`.

Three set-ups, as administrators have them: "folder" (files, and sled or from 0.6 on fjall beside them), "bucket" (SeaweedFS, sled) and
"database" (files, and PostgreSQL). Nothing here is part of ./test: `make real` builds what it needs.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
from tests.support.postgres import Postgres
from tests.support.servers import KEEPER, S3Server, ServerMissing, _die_with_the_tests, end, free_ports, listening, wait_until

PLACE = Path(__file__).parents[2] / ".work" / "real"
KEY = "real-" + "x" * 16 + "-the-api-key"
SETUPS = ("folder", "bucket", "database")
STARTING = 60.0  # seconds until it answers; a debug build that brings a repository up to date takes some


def versions() -> list[str]:
    """The versions that were built, the oldest first."""
    built = (path.parent.parent.name.removeprefix("pict-rs-") for path in PLACE.glob("pict-rs-*/bin/pict-rs"))
    return sorted(built, key=lambda version: [int(part) for part in version.replace("-rc", "").split(".")])


@dataclass(frozen=True)
class Answered:
    """What an uploader was told."""

    status: int
    alias: str = ""
    code: str = ""


@dataclass
class RealPictrs:
    """One pict-rs and what it keeps. `version` may be changed while it is stopped: an upgrade in place."""

    version: str
    setup: str
    folder: Path
    port: int
    repository: Mapping[str, str]
    store: Mapping[str, str]
    bucket: str = ""
    database: str = ""
    validator: str = ""
    more: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def files(self) -> Path:
        """Where the originals lie, in the set-ups with a folder."""
        return self.folder / "files"

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, version: str = "", **more: str) -> None:
        """Start it, in another version where one is named; `more` are settings from now on (MEDIA__EXTERNAL_VALIDATION="...")."""
        self.version = version or self.version
        self.more |= more
        binary = PLACE / f"pict-rs-{self.version}" / "bin" / "pict-rs"
        if not binary.exists():
            raise ServerMissing(f"pict-rs {self.version} is not built: scripts/real.sh {self.version}")
        settings = {
            "SERVER__ADDRESS": f"127.0.0.1:{self.port}",
            "SERVER__API_KEY": KEY,
            "SERVER__TEMPORARY_DIRECTORY": str(self.folder / "tmp"),
            **self.repository,
            **self.store,
            **({"MEDIA__EXTERNAL_VALIDATION": self.validator} if self.validator else {}),
            **self.more,
        }
        (self.folder / "tmp").mkdir(exist_ok=True)
        own = {name: value for name, value in os.environ.items() if not name.startswith("PICTRS_")}
        log = self.folder / "log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [binary, "run"],
                env={
                    **own,
                    "PATH": f"{PLACE / 'bin'}{os.pathsep}{own['PATH']}",
                    **{f"PICTRS__{k}": v for k, v in settings.items()},
                },
                cwd=self.folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_the_tests,
            )
        wait_until(lambda: listening(self.port), f"pict-rs {self.version}", self.process, log, STARTING)

    def stop(self) -> None:
        """End it as a service manager does."""
        if self.process is not None:
            end(self.process)
            self.process = None

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def become(self, version: str) -> None:
        """Stop, and start again as another version on the same repository and store."""
        self.stop()
        self.start(version)

    # -- as whoever uploads or looks ----------------------------------------------------------------------------------

    def upload(self, data: bytes, content_type: str = "image/png", name: str = "picture") -> Answered:
        """An upload, as Lemmy makes it."""
        told = httpx2.post(f"{self.url}/image", files={"images[]": (name, data, content_type)}, timeout=90)
        answer = told.json() if told.content else {}
        files = answer.get("files") or [{}]
        return Answered(told.status_code, str(files[0].get("file", "")), str(answer.get("code", "")))

    def put(self, data: bytes, content_type: str = "image/png") -> str:
        """An upload that works; its alias."""
        told = self.upload(data, content_type)
        assert told.status == 201, told
        return told.alias

    def get(self, alias: str, **query: str | int) -> "httpx2.Response":
        """What a visitor gets; with a query, a rendering."""
        path = f"/image/process.webp?src={alias}" if query else f"/image/original/{alias}"
        joined = "".join(f"&{name}={value}" for name, value in query.items())
        return httpx2.get(self.url + path + joined, timeout=60)

    def data(self, alias: str) -> bytes | None:
        """The bytes behind an alias; None where there are none."""
        told = self.get(alias)
        return told.content if told.status_code == 200 else None

    def internal(self, name: str, method: str = "GET", /, **query: str | int) -> "httpx2.Response":
        """An answer of `/internal/`."""
        return httpx2.request(method, f"{self.url}/internal/{name}", params=query, headers={"X-Api-Token": KEY}, timeout=60)

    def listed(self) -> dict[str, list[str]]:
        """Every content: its hash in hexadecimal, and its aliases."""
        found: dict[str, list[str]] = {}
        query: dict[str, str | int] = {"limit": 100}
        while True:
            page: dict[str, Any] = self.internal("hashes", "GET", **query).raise_for_status().json()["page"]
            found |= {entry["hex"]: list(entry["aliases"]) for entry in page["hashes"]}
            if not page.get("next"):
                return found
            query["slug"] = str(page["next"])

    def named(self, alias: str) -> str:
        """The hash under which it lists what has this alias."""
        return next(name for name, aliases in self.listed().items() if alias in aliases)

    def file(self, alias: str) -> Path:
        """The file of an original, in the set-ups with a folder."""
        return self.files / str(self.internal("identifier", alias=alias).json()["identifier"])

    def settled(self, alias: str, seconds: float = 30) -> bool:
        """Whether a purge is done, waited for."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.get(alias).status_code == 404:
                return True
            time.sleep(0.1)
        return False


def sums(hashes: Mapping[str, object]) -> dict[str, int]:
    """The SHA-256 and the size that each hash tells."""
    return {name[:64]: int(name[64:76], 16) for name in hashes}


def digest(data: bytes) -> str:
    """The SHA-256 of some bytes."""
    return sha256(data).hexdigest()


@contextmanager
def running(version: str, setup: str, folder: Path, s3: S3Server, postgres: Postgres, **more: str) -> Generator[RealPictrs]:
    """A fresh pict-rs of this version and set-up, ended and forgotten afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    bucket = database = ""
    store = {"STORE__TYPE": "filesystem", "STORE__PATH": str(folder / "files")}
    repository = {"REPO__TYPE": "sled", "REPO__PATH": str(folder / "sled"), "OLD_REPO__PATH": str(folder / "sled-old")}
    if setup == "folder" and version.startswith("0.6"):
        repository = {"REPO__TYPE": "fjall", "REPO__FJALL_PATH": str(folder / "fjall")}
    if setup == "bucket":
        bucket = s3.bucket()
        store = {
            "STORE__TYPE": "object_storage",
            "STORE__ENDPOINT": s3.endpoint,
            "STORE__BUCKET_NAME": bucket,
            "STORE__USE_PATH_STYLE": "true",
            "STORE__REGION": "us-east-1",
            "STORE__ACCESS_KEY": KEEPER.access_key_id,
            "STORE__SECRET_KEY": KEEPER.secret_access_key,
        }
    if setup == "database":
        database = postgres.database()
        # an address without a host, and with a user, is none to pict-rs
        name, _, where = database.rpartition("/")[2].partition("?")
        repository = {"REPO__TYPE": "postgres", "REPO__URL": f"postgresql:///{name}?user={postgres.user}&{where}"}
    server = RealPictrs(version, setup, folder, free_ports(1)[0], repository, store, bucket, database, more=dict(more))
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder / "tmp", ignore_errors=True)
