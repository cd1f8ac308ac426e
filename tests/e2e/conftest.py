"""Homes for end-to-end tests: made once by the real `init` and `vault init`, then copied.

Commands that run to their end are processes forked from one that has imported the program already: importing is most of what a short
command costs. `Home.start`, and whatever needs another user or another Python, starts the program as a shell does.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from threading import Lock

import pytest
from tests.support.command import POLICY, Home, Ran
from tests.support.crashes import Forks, forks
from tests.support.models import installed_models


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory, quick: Callable[..., Ran | None]) -> Home:
    """A home as the first three commands leave it. Copy it, never use it."""
    home = Home(tmp_path_factory.mktemp("made") / "home")
    home.run("init", "--profile", "other")
    home.run("vault", "init")
    (home.folder / "models").symlink_to(installed_models())
    (home.folder / "policy.toml").write_text(POLICY)
    home.forked = quick
    return home


@pytest.fixture(scope="session")
def forked() -> Generator[Forks]:
    """The process that commands are forked from."""
    with forks() as server:
        yield server


@pytest.fixture(scope="session")
def quick(forked: Forks) -> Callable[..., Ran | None]:
    """Runs a command as a fork; None where another thread has one running."""
    lock = Lock()

    def run(home: Home, *arguments: str | Path, expect: int | None, timeout: float) -> Ran | None:
        if not lock.acquire(blocking=False):
            return None
        try:
            return forked.run(home, *arguments, expect=expect, timeout=timeout)
        finally:
            lock.release()

    return run


@pytest.fixture
def new_home(made_home: Home, tmp_path: Path) -> Callable[..., Home]:
    """Makes a home of this test's own, with the stand-in policy; keywords are settings (ACTING__ALLOWANCE="2")."""

    def make(name: str = "home", **settings: str) -> Home:
        home = made_home.copy(tmp_path / name)
        home.settings = {"FEDIWARDEN_POLICY__FILE": "policy.toml"}
        home.settings |= {f"FEDIWARDEN_{key}": value for key, value in settings.items()}
        return home

    return make


@pytest.fixture
def home(new_home: Callable[..., Home]) -> Home:
    """A home of this test's own."""
    return new_home()
