"""Backup, loss of everything, restore, verify, and an object put back from it: as an administrator would, with real processes."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.support.command import Home, files_below, write
from tests.support.media_makers import animation, still

from fediwarden.ledger import Ledger


def test_all_that_was_lost_comes_back_from_a_backup_and_an_object_can_be_put_back(home: Home, tmp_path: Path) -> None:
    store, backups = tmp_path / "media", tmp_path / "backups"
    write(store, {"bad.gif": animation("gif", 2), "fine.png": still("png", 64, 48)})
    before = files_below(store)
    home.add_store("media", url=store)
    home.run("scan", expect=1)
    home.run("apply", "--yes")
    home.run("backup", backups)
    identity = tmp_path / "usb.txt"
    shutil.move(home.identities[0], identity)
    assert home.run("verify", "--json").last == {
        "sealed": 1,
        "hidden": 1,
        "restored": 0,
        "disagree": 0,
        "mended": 0,
        "agrees": True,
    }

    shutil.rmtree(home.folder)
    shutil.rmtree(tmp_path / "media.quarantine")
    again = Home(home.folder, dict(home.settings))
    brought = again.run("backup", backups, "--restore", "--json").last

    assert (brought["files"], brought["sealed"]) == (5, 2)
    lost = again.run("verify", "--json", expect=70).lines
    assert [line["what"] for line in lost[:-1]] == ["copy missing"]
    again.run("restore", "bad.gif", "--identity", identity, "--because", "a benign picture")
    assert files_below(store) == before
    assert again.run("verify", "--json").last["restored"] == 1


def test_rolling_back_leaves_a_copy_and_a_ledger_that_the_version_before_can_open(new_home: Callable[..., Home]) -> None:
    home = new_home()
    home.run("verify", "--local")
    ledger = home.folder / "ledger.sqlite3"

    home.run("rollback", expect=2)
    told = home.run("rollback", "--yes", "--json").last

    with sqlite3.connect(ledger) as connection:
        assert connection.execute("SELECT version_num FROM ledger_version").fetchone() == (told["to"],)
    assert int(told["to"]) == int(told["from"]) - 1
    with Ledger.open(told["copy"], read_only=True) as kept:
        assert kept.verify() == []
    assert home.run("verify", "--local", "--json").last["agrees"]
    with home.ledger() as brought_up:
        assert brought_up.verify() == []
