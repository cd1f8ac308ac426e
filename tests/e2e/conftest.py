"""Homes for end-to-end tests: made once by the real `init` and `vault init`, then copied."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.command import POLICY, Home
from tests.support.models import installed_models


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home as the first three commands leave it. Copy it, never use it."""
    home = Home(tmp_path_factory.mktemp("made") / "home")
    home.run("init", "--profile", "other")
    home.run("vault", "init")
    (home.folder / "models").symlink_to(installed_models())
    (home.folder / "policy.toml").write_text(POLICY)
    return home


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
