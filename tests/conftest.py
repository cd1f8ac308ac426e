"""Fixtures that every test may use: the real servers, started once per session and only when asked for."""

import signal
from collections.abc import Generator, Iterator

import pytest
from tests.support.nobody import python_for_nobody as python_for_nobody
from tests.support.postgres import Postgres, running_postgres
from tests.support.processes import end_started
from tests.support.servers import S3Server, SshServer, running_s3, running_ssh

# A shell that starts something in the background has it ignore Ctrl-C, and so would every program that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """What a test started is ended when it failed before it did that itself."""
    yield
    end_started()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[S3Server]:
    """A SeaweedFS for the whole session; take a bucket of your own with `s3_server.bucket()`."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[SshServer]:
    """An sshd for the whole session; it serves the file system as the user who runs the tests."""
    with running_ssh(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    """A PostgreSQL for the whole session; take a database of your own with `postgres.database(SQL, ...)`."""
    with running_postgres() as server:
        yield server
