"""Disks that are full or read-only: one clear line and a hint, exit code 74, nothing lost and nothing hidden unsealed."""

import errno
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.command import Home, Ran, files_below, write
from tests.support.disks import small_disk
from tests.support.media_makers import animation, colours, still

GIFS = {f"{number:02}.gif": animation("gif", colours(2, 40 + number, 30)) for number in range(12)}


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """A file system of twelve megabytes (a write-ahead log grows to four before it is folded in). Only root may make one; CI is root, and there this never is skipped."""
    with small_disk(tmp_path / "disk", "12m") as mounted:
        if not mounted:
            assert os.geteuid() != 0, "root could not mount a tmpfs"
            pytest.skip("needs root, to make a small disk")
        yield tmp_path / "disk"


def fill(folder: Path, leave: int = 0) -> Path:
    """A file that takes all room but `leave` bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - the disk is what is being tested
        size = file.tell()
        file.truncate(max(0, size - leave))
    return filler


def told_plainly(ran: Ran) -> None:
    """One line and one hint, nothing else that looks like a failure."""
    assert ran.code == 74, ran
    lines = [line for line in ran.err.splitlines() if line.strip()]
    assert len([line for line in lines if line.startswith("fediwarden: cannot ")]) == 1, lines
    assert len([line for line in lines if line.startswith("  hint: ")]) == 1, lines
    assert "Traceback" not in ran.err
    assert "Logging error" not in ran.err


@pytest.mark.parametrize("room", [0, pytest.param(80 << 10, marks=pytest.mark.long)])
def test_a_disk_that_fills_under_the_ledger_ends_the_scan_and_the_next_completes_it(
    made_home: Home, disk: Path, tmp_path: Path, room: int
) -> None:
    home = made_home.copy(disk / "home")
    home.settings = {"FEDIWARDEN_POLICY__FILE": "policy.toml"}
    store = tmp_path / "store"
    write(store, {"first.gif": animation("gif", 4)})
    home.run("scan", store, expect=1)
    write(store, {f"{number:03}.png": still("png", 30 + number, 24, seed=number) for number in range(20)})
    write(store, GIFS)
    filler = fill(disk, room)

    ran = home.run("scan", store, "--json", expect=None)
    told_plainly(ran)
    filler.unlink()
    with home.ledger() as ledger:
        assert ledger.verify() == []
        looked = {entry.ref.key for entry in ledger.entries() if entry.look is not None}
    totals = home.run("scan", store, "--json", expect=1).last
    assert (totals["listed"], totals["unreached"], totals["skipped"]) == (33, 0, len(looked))
    assert totals["owed"] == 13


def test_a_full_disk_under_the_vault_hides_nothing(home: Home, disk: Path, tmp_path: Path) -> None:
    home.settings["FEDIWARDEN_VAULT__FOLDER"] = str(disk / "vault")
    store = tmp_path / "store"
    objects = {"big.gif": animation("gif", colours(12, 400, 300)), **dict(list(GIFS.items())[:3])}
    write(store, objects)
    home.run("scan", store, expect=1)
    filler = fill(disk)

    told_plainly(home.run("apply", "--yes", expect=None))
    assert files_below(store) == objects
    assert home.run("status", "--json").last["owed"] == 4
    filler.unlink()
    home.run("apply", "--yes")
    assert files_below(store) == {}
    assert home.run("vault", "verify", "--json").last["altered"] == []


def test_a_full_disk_under_the_ledger_stops_apply_before_it_touches_anything(made_home: Home, disk: Path, tmp_path: Path) -> None:
    home = made_home.copy(disk / "home")
    home.settings = {"FEDIWARDEN_POLICY__FILE": "policy.toml", "FEDIWARDEN_VAULT__FOLDER": str(tmp_path / "vault")}
    store = tmp_path / "store"
    write(store, GIFS)
    home.run("scan", store, expect=1)
    filler = fill(disk)

    told_plainly(home.run("apply", "--yes", expect=None))
    assert files_below(store) == GIFS
    filler.unlink()
    filler = fill(disk, 500 << 10)  # room for some deeds, not for all
    told_plainly(home.run("apply", "--yes", expect=None))
    left = files_below(store)
    held = [path.read_bytes() for path in store.with_name("store.quarantine").rglob("*") if path.is_file()]
    assert sorted([*left.values(), *held]) == sorted(GIFS.values())
    assert held, "the room was meant for some of them"
    filler.unlink()
    sealed = {line["sha256"] for line in home.run("vault", "list", "--json").lines}
    assert len(sealed) >= len(held)
    home.run("apply", "--yes")
    assert files_below(store) == {}
    with home.ledger() as ledger:
        assert ledger.verify() == []
        assert len(list(ledger.hidden())) == len(GIFS)


def test_a_read_only_home_can_be_read_and_nothing_else(made_home: Home, disk: Path, tmp_path: Path) -> None:
    home = made_home.copy(disk / "home")
    home.settings = {"FEDIWARDEN_POLICY__FILE": "policy.toml", "FEDIWARDEN_LOG__FILE": ""}
    store = tmp_path / "store"
    write(store, {"a.gif": animation("gif", 4)})
    home.run("scan", store, expect=1)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    for command in (["scan", store], ["apply", "--yes"], ["rejudge"], ["restore", "a.gif"]):
        told_plainly(home.run(*command, expect=None))
    assert files_below(store).keys() == {"a.gif"}
    home.settings.pop("FEDIWARDEN_LOG__FILE")
    told_plainly(home.run("scan", store, expect=None))
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    home.run("apply", "--yes")
    assert files_below(store) == {}
