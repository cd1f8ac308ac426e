"""Several commands at the same time on one installation: nothing is lost, nothing happens twice, and who must wait is told."""

from pathlib import Path

from tests.support.command import Home, files_below, write
from tests.support.media_makers import animation, still

from fediwarden.app import acting_alone


def test_who_acts_while_another_does_is_told_and_nothing_is_done(home: Home, tmp_path: Path) -> None:
    moving = animation("gif", 3)
    write(tmp_path / "store", {"a.gif": moving})
    home.run("scan", tmp_path / "store", expect=1)

    with acting_alone(home.folder / "ledger.sqlite3"):
        for arguments in (["apply", "--yes"], ["drill", "run", str(tmp_path / "store")]):
            refused = home.run(*arguments, expect=4)
            assert "another command is acting" in refused.err
            assert "hint: " in refused.err
        home.run("scan", tmp_path / "store", expect=1)  # looking goes on
        home.run("status")
    assert files_below(tmp_path / "store") == {"a.gif": moving}
    home.run("apply", "--yes")
    with acting_alone(home.folder / "ledger.sqlite3"):
        home.run("restore", "a.gif", expect=4)
    assert files_below(tmp_path / "store") == {}
    home.run("restore", "a.gif")


def test_applies_and_scans_at_once_hide_each_object_once(home: Home, tmp_path: Path) -> None:
    store = tmp_path / "store"
    suspects = {f"{number}.gif": animation("gif", 2 + number) for number in range(12)}
    write(store, {**suspects, **{f"{number}.png": still("png", 32, 32, seed=number) for number in range(20)}})
    home.run("scan", store, expect=1)

    running = [home.start(*arguments) for arguments in [["apply", "--yes"]] * 3 + [["scan", str(store), "--again"]] * 2]
    outputs = [process.communicate(timeout=120) for process in running]
    codes = [process.returncode for process in running]
    assert set(codes[:3]) <= {0, 4}, outputs
    assert 0 in codes[:3], outputs
    assert set(codes[3:]) <= {0, 1, 3}, outputs
    home.run("scan", store, expect=None)
    home.run("apply", "--yes")

    assert not any(name.endswith(".gif") for name in files_below(store))
    hidden = files_below(store.with_name("store.quarantine"))
    assert sorted(hidden.values()) == sorted(suspects.values())
    with home.ledger() as ledger:
        assert ledger.verify() == []
        assert len(list(ledger.hidden())) == len(suspects)
        assert list(ledger.owed()) == []
    home.run("restore", *suspects)
    assert {name: data for name, data in files_below(store).items() if name in suspects} == suspects
