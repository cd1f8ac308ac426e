"""Real pict-rs in every version that was built and every set-up, homes beside them, and the table of what held."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import forked, home, made_home, new_home, quick
from tests.support.command import Home
from tests.support.postgres import Postgres, running_postgres
from tests.support.real_pictrs import KEY, PLACE, SETUPS, RealPictrs, running, versions
from tests.support.servers import S3Server, ServerMissing, running_s3

__all__ = ["forked", "home", "made_home", "new_home", "quick"]

FOUND = versions()
ROWS: dict[str, dict[str, str]] = defaultdict(dict)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Debian's own: pict-rs wants an extension (pgcrypto) that the wheel of the other tests does not have."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise ServerMissing("PostgreSQL is missing: scripts/real.sh installs it")
    with running_postgres(found[-1].parent) as server:
        yield server


@pytest.fixture(params=FOUND or ["none"])
def version(request: pytest.FixtureRequest) -> str:
    """Each version that was built. That none was is a failure: `scripts/real.sh` builds them."""
    assert FOUND, f"no pict-rs is built below {PLACE}: make real"
    return str(request.param)


@pytest.fixture(params=SETUPS)
def setup(request: pytest.FixtureRequest) -> str:
    """Each set-up."""
    return str(request.param)


@pytest.fixture
def pictrs(version: str, setup: str, tmp_path: Path, s3: S3Server, postgres: Postgres) -> Generator[RealPictrs]:
    """A fresh pict-rs of this version and set-up."""
    with running(version, setup, tmp_path / "pictrs", s3, postgres) as server:
        yield server


Beside = Callable[[RealPictrs], Home]


@pytest.fixture
def beside(new_home: Callable[..., Home], s3: S3Server) -> Beside:
    """Makes a home whose stores are this pict-rs ("media") and what lies behind it ("files"), linked to each other."""

    def make(pictrs: RealPictrs) -> Home:
        home = new_home()
        reading = f'api_key = "{KEY}"\n' if not pictrs.database else f'database = "{pictrs.database}"\n'
        for name, text in (("read.toml", reading), ("keep.toml", f'api_key = "{KEY}"\n')):
            file = home.folder / name
            file.write_text(text)
            file.chmod(0o600)
        home.add_store(
            "media",
            url=f"pictrs://127.0.0.1:{pictrs.port}",
            credentials="read.toml",
            keeper_credentials="keep.toml",
        )
        if pictrs.bucket:
            reader, keeper = s3.credentials(home.folder)
            home.add_store(
                "files",
                url=f"s3://{pictrs.bucket}",
                endpoint=s3.endpoint,
                credentials=reader,
                keeper_credentials=keeper,
                pictrs="media",
            )
        else:
            home.add_store("files", url=str(pictrs.files), pictrs="media")
        return home

    return make


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what each row of the table came to, and write it where bench/RESULTS.md takes it from; a run may be cut off."""
    if "PYTEST_XDIST_WORKER" in os.environ or not (report.when == "call" or report.failed):
        return
    name, _, column = report.nodeid.rpartition("::")[2].partition("[")
    column = column.rstrip("]")
    match = re.fullmatch(rf"(.*?(?:{'|'.join(SETUPS)}))-(.+)", column)  # one more thing that a test is tried with
    words = name.removeprefix("test_").replace("_", " ") + ("" if match is None else f" ({match[2]})")
    ROWS[words][column if match is None else match[1]] = {"passed": "ok", "failed": "FAILED", "skipped": "-"}[report.outcome]
    columns = sorted({one for row in ROWS.values() for one in row})
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    lines += [f"| {row} | " + " | ".join(told.get(one, "") for one in columns) + " |" for row, told in ROWS.items()]
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "table.md").write_text("\n".join(lines) + "\n")
