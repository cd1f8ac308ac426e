"""Fixtures that every test may use: the real servers, started once per session and only when asked for."""

from collections.abc import Generator

import pytest
from tests.support.nobody import python_for_nobody as python_for_nobody
from tests.support.postgres import Postgres, running_postgres
from tests.support.servers import S3Server, SshServer, running_s3, running_ssh


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
