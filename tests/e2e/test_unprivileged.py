"""A scan needs no right to change anything: it runs as nobody, on a store that nobody may write to."""

import os
import shutil
from collections.abc import Generator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from tests.support.command import Home, files_below, write
from tests.support.disks import NOBODY
from tests.support.media_makers import animation, still

ANIMATION = animation("gif", 3)


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(mkdtemp(prefix="fediwarden-e2e-"))
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def facts(store: Path) -> dict[Path, tuple[int, int, int]]:
    """What a change would show in."""
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns, path.lstat().st_mode) for path in store.rglob("*")}


def test_a_scan_runs_as_nobody_on_a_folder_nobody_may_write_to(
    made_home: Home, open_folder: Path, python_for_nobody: str
) -> None:
    user = NOBODY if os.geteuid() == 0 else None
    home = made_home.copy(open_folder / "home")
    home.python = python_for_nobody
    models = (home.folder / "models").resolve()
    (home.folder / "models").unlink()
    shutil.copytree(models, home.folder / "models")
    home.settings = {"FEDIWARDEN_POLICY__FILE": "policy.toml", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    if user is not None:
        for path in (home.folder, *home.folder.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
    store = open_folder / "store"
    write(store, {"deep/a.gif": ANIMATION, "b.png": still("png", 96, 64), "secret/c.png": still("png", 64, 64), "d.png": b"x"})
    (store / "d.png").chmod(0o600 if user is not None else 0)
    for path in (store / "deep", store):
        path.chmod(0o555)
    before = facts(store)

    totals = home.run("scan", store, "--json", expect=1, user=user).last
    assert (totals["listed"], totals["seen"], totals["unreached"], totals["flagged"]) == (4, 3, 1, 1)
    unreached = home.run("list", "--not-scanned", user=user).out
    assert "d.png" in unreached
    assert facts(store) == before
    assert home.run("scan", store, "--json", expect=1, user=user).last["skipped"] == 3
    assert home.run("status", "--json", user=user).last["cage_layers"]
    assert all(home.run("status", "--json", user=user).last["cage_layers"].values())

    refused = home.run("apply", "--yes", expect=None, user=user)  # it may not, and says so; nothing is lost
    assert refused.code in (3, 4, 5, 74)
    assert "Traceback" not in refused.err
    assert "hint: " in refused.err
    assert (store / "deep/a.gif").read_bytes() == ANIMATION
    assert home.run("status", "--json", user=user).last["owed"] == 1
    (store / "secret").chmod(0)
    if user is not None:
        away = home.run("scan", store, expect=5, user=user)
        assert "secret" in away.err
        assert home.run("status", "--json", user=user).last["gone"] == 0
    (store / "secret").chmod(0o755)
    assert len(files_below(store)) == 4
