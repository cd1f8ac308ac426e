"""A folder from the first scan to the last undo, through the command line, with every exit code provoked for real."""

import shutil
import sqlite3
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest
from tests.support.command import POLICY, Home, by_key, files_below, listed, write
from tests.support.media_makers import animation, still, zip_of

PICTURE = still("png", 96, 64, seed=1)
ANIMATION = animation("gif", 3)
BITMAP = still("bmp", 64, 48, seed=3)


@pytest.fixture
def store(home: Home) -> Path:
    """A small store of every fate."""
    folder = home.folder.parent / "store"
    write(
        folder,
        {
            "aa/picture.png": PICTURE,
            "aa/again.png": PICTURE,
            "bb/other name.jpg": PICTURE,
            "bb/moving.gif": ANIMATION,
            "bitmap.bmp": BITMAP,
            "cut.jpg": still("jpeg", 200, 200)[:900],
            "empty.png": b"",
        },
    )
    (folder / "link.png").symlink_to("aa/picture.png")
    home.add_store("media", url=str(folder))
    return folder


def test_the_main_road_finds_hides_restores_and_decides_again(home: Home, store: Path) -> None:
    before = files_below(store)
    first = home.run("scan", "--json", expect=1)
    totals = first.last
    assert {
        "listed", "skipped", "seen", "broken", "gone", "unreached", "flagged", "review", "passed", "seconds", "not_scanned", "owed",
    } <= totals.keys()  # fmt: skip
    assert (totals["listed"], totals["skipped"], totals["seen"], totals["broken"]) == (7, 0, 5, 2)
    assert totals["listed"] == listed(totals)
    assert (totals["flagged"], totals["passed"], totals["owed"], totals["not_scanned"]) == (2, 3, 2, 1)
    assert files_below(store) == before

    again = home.run("scan", "--json", expect=1).last
    assert (again["listed"], again["skipped"], again["bytes"]) == (7, 7, 0)
    looked = [event for event in home.events() if event["event"] == "object looked"]
    assert len(looked) == 7

    lines = home.run("list", "--json").lines
    assert all({"store", "key", "sha256", "standing", "decision", "deed"} <= line.keys() for line in lines)
    known = by_key(lines)
    assert known.keys() == before.keys() - {"link.png"}
    assert known["bb/moving.gif"]["decision"] == "quarantine"
    assert known["bb/moving.gif"]["sha256"] == sha256(ANIMATION).hexdigest()
    assert known["cut.jpg"]["standing"] == "broken"
    assert known["cut.jpg"]["decision"] is None
    assert by_key(home.run("list", "--json", "--not-scanned").lines).keys() == {"cut.jpg"}

    assert "1 of 7 objects not scanned" in home.run("status").out.splitlines()[0]
    told = home.run("explain", "bb/moving.gif").out
    assert "animations stand in" in told
    assert "a lead from classifiers, not a fact" in told

    home.run("apply", "--yes")
    assert files_below(store).keys() == before.keys() - {"bb/moving.gif", "bitmap.bmp"}
    assert home.unsealed(ANIMATION)
    assert home.unsealed(BITMAP)
    hidden = by_key(home.run("list", "--json", "--hidden").lines)
    assert {key: line["deed"] for key, line in hidden.items()} == {"bb/moving.gif": "hidden", "bitmap.bmp": "hidden"}

    assert store.with_name("store.quarantine").stat().st_mode & 0o777 == 0o700
    home.run("restore", "bb/moving.gif", "--because", "it is a cat")
    assert (store / "bb/moving.gif").read_bytes() == ANIMATION
    assert abs((store / "bb/moving.gif").stat().st_mtime - (store / "aa/picture.png").stat().st_mtime) < 60
    told = home.run("explain", "bb/moving.gif").out
    assert "it is a cat" in told
    assert "restore: done" in told

    after = home.run("scan", "--json").last  # a person's word stands: nothing is owed, so nothing is flagged
    assert (after["owed"], after["flagged"], after["listed"]) == (0, 0, 6)

    shutil.rmtree(store / "aa")  # a new policy needs no picture
    (home.folder / "policy.toml").write_text(POLICY.replace('format = ["gif"]', 'format = ["gif", "png"]'))
    decided = home.run("rejudge", "--json").last
    assert decided["flagged"] == 3
    assert by_key(home.run("list", "--json", "--step", "quarantine").lines).keys() >= {"aa/picture.png", "bb/other name.jpg"}
    with home.ledger() as ledger:
        assert ledger.verify() == []


def test_identical_bytes_under_many_names_are_analysed_once(home: Home, store: Path) -> None:
    home.run("scan", expect=1)

    spent = [event["ms"] for event in home.events() if event.get("sha256") == sha256(PICTURE).hexdigest()]
    assert len(spent) == 3
    assert sum(1 for ms in spent if ms > 0) == 1
    with sqlite3.connect(home.folder / "ledger.sqlite3") as database:
        rows = database.execute("SELECT COUNT(*) FROM looks WHERE sha256 = ?", (sha256(PICTURE).hexdigest(),)).fetchone()
    assert rows[0] >= 1


def test_the_allowance_hides_the_worst_first_and_leaves_the_rest_owed(new_home: Callable[..., Home], tmp_path: Path) -> None:
    home = new_home(ACTING__ALLOWANCE="2")
    store = tmp_path / "store"
    animations = {f"{number}.gif": animation("gif", 2 + number) for number in range(3)}
    write(store, {**animations, "z.bmp": BITMAP})
    home.run("scan", store, expect=1)

    applied = home.run("apply", "--yes", "--json", expect=6)
    assert applied.last["over_allowance"] == 2
    assert applied.last["owed"] == 2
    assert [line["key"] for line in applied.lines[:-1]][0] == "z.bmp"  # noqa: RUF015 - the first of all, in order
    assert len(files_below(store)) == 2

    used_up = home.run("apply", "--yes", expect=6)
    assert "allowance is used up" in used_up.out
    assert len(files_below(store)) == 2
    status = home.run("status", "--json").last
    assert (status["owed"], status["hidden"], status["allowance_used"]) == (2, 2, 2)

    asked = home.run("apply", "--budget", "10", expect=2)  # nobody is there to agree
    assert "--yes" in asked.err
    home.run("apply", "--budget", "10", "--yes")
    assert files_below(store) == {}


def test_apply_does_no_more_than_limit_and_only_say(home: Home, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store, {f"{number}.gif": animation("gif", 2 + number) for number in range(4)})
    home.run("scan", store, expect=1)

    home.run("apply", "--yes", "--only", "2.gif")
    assert files_below(store).keys() == {"0.gif", "1.gif", "3.gif"}
    home.run("apply", "--yes", "--limit", "1")
    assert len(files_below(store)) == 2


def test_an_estimate_lists_and_fetches_nothing(home: Home, store: Path) -> None:
    (store / "aa/picture.png").chmod(0)

    told = home.run("scan", "--estimate", "--json").last
    assert told["objects"] == 7
    assert told["bytes"] == sum(len(data) for data in files_below(store).values()) - len(PICTURE)  # without the link
    assert {"requests", "hours", "gigabytes"} <= told.keys()
    assert home.run("list", "--json").lines == []
    assert "Nothing was fetched" in home.run("scan", "--estimate").out


def test_check_tells_all_about_single_files(home: Home, tmp_path: Path) -> None:
    write(tmp_path, {"a.gif": ANIMATION, "b.png": PICTURE, "c.txt": b"no picture", "d.png": PICTURE + zip_of({"x.png": PICTURE})})

    checked = home.run("check", "--json", *(tmp_path / name for name in ("a.gif", "b.png", "c.txt", "d.png")), expect=1)
    lines = checked.lines
    assert len(lines) == 4
    for line in lines:
        assert {"path", "sha256", "standing", "kind", "decision", "rule", "because", "findings"} <= line.keys()
    assert (lines[0]["decision"], lines[0]["rule"], lines[0]["kind"]) == ("quarantine", "animation", "gif")
    assert (lines[1]["decision"], lines[1]["standing"]) == ("pass", "seen")
    assert lines[2]["standing"] == "broken"
    assert any(note["what"] == "archive" for note in lines[3]["notes"])
    assert home.run("check", tmp_path / "b.png").code == 0
    assert home.run("check", tmp_path / "c.txt", expect=3).code == 3
    assert home.run("check", tmp_path / "missing.png", expect=3).code == 3
    assert not (home.folder / "ledger.sqlite3").exists()


def test_a_store_in_good_order_ends_with_zero_and_a_broken_object_with_three(home: Home, tmp_path: Path) -> None:
    write(tmp_path / "store", {"a.png": PICTURE})
    assert home.run("scan", tmp_path / "store").code == 0

    write(tmp_path / "store", {"cut.jpg": still("jpeg", 200, 200)[:900]})
    assert home.run("scan", tmp_path / "store", expect=3).code == 3
    assert (
        home.run("scan", tmp_path / "store", "--json", expect=None).last["not_scanned"] == 0
    )  # settled; `status` still counts it
    assert "1 of 2 objects not scanned" in home.run("status").out


def test_wrong_usage_ends_with_two_and_shows_the_usage(home: Home) -> None:
    for arguments in (["scan", "--no-such-option"], ["restore"], ["no-such-command"], ["apply", "--limit", "0"]):
        refused = home.run(*arguments, expect=2)
        assert "Traceback" not in refused.err
        assert refused.err.strip()


@pytest.mark.parametrize(
    ("broken", "arguments", "says"),
    [
        ('profile = "atlantis"', ["status"], "atlantis"),
        ("[acting]\nallowance = -1", ["status"], "allowance"),
        ("[acting\n", ["status"], "line 1"),
        ('profile = ""', ["apply", "--yes"], "profile"),
        ('profile = "other"', ["scan"], "no store"),
        ('profile = "other"', ["scan", "s3://bucket"], "keys"),
        ('profile = "other"', ["restore", "a.gif"], "not hidden"),
        ('profile = "other"', ["explain", "a.gif"], "knows no object"),
    ],
)
def test_a_configuration_that_makes_it_impossible_ends_with_four(
    home: Home, broken: str, arguments: list[str], says: str
) -> None:
    (home.folder / "fediwarden.toml").write_text(broken + "\n")

    refused = home.run(*arguments, expect=4)
    assert says in refused.err
    assert "hint: " in refused.err
    assert "Traceback" not in refused.err


def test_a_policy_that_cannot_be_read_names_the_line_and_ends_with_four(home: Home, tmp_path: Path) -> None:
    (home.folder / "policy.toml").write_text('version = 1\nname = "x"\n\n[[rule]\n')
    refused = home.run("scan", tmp_path, expect=4)

    assert "policy.toml" in refused.err
    assert "line 4" in refused.err


def test_a_missing_model_ends_with_four_and_names_the_command(home: Home, store: Path) -> None:
    (home.folder / "models").unlink()

    refused = home.run("scan", expect=4)
    assert "fediwarden models install" in refused.err


def test_a_store_that_is_away_ends_with_five_and_nothing_is_taken_for_gone(home: Home, store: Path) -> None:
    home.run("scan", expect=1)
    store.rename(store.with_name("unmounted"))

    away = home.run("scan", "--json", expect=5)
    assert away.last["listed"] == 0
    assert "cannot be opened" in away.err
    assert home.run("status", "--json").last["gone"] == 0
    store.with_name("unmounted").rename(store)
    assert home.run("scan", "--json", expect=1).last["skipped"] == 7


def test_an_object_replaced_between_scan_and_apply_is_left_alone_and_looked_at_again(home: Home, store: Path) -> None:
    home.run("scan", expect=1)
    write(store, {"bb/moving.gif": PICTURE})

    applied = home.run("apply", "--yes", "--json", expect=3)
    assert {line["key"]: line["outcome"] for line in applied.lines[:-1]} == {"bitmap.bmp": "done", "bb/moving.gif": "changed"}
    assert (store / "bb/moving.gif").read_bytes() == PICTURE
    assert not home.unsealed(ANIMATION)
    again = home.run("scan", "--json", expect=None).last
    assert (again["owed"], again["skipped"], again["seen"]) == (0, 5, 1)


def test_a_profile_that_keeps_metadata_only_seals_nothing_and_destroys_nothing(home: Home, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store, {"a.gif": ANIMATION, "b.bmp": BITMAP})
    shipped = (files("fediwarden") / "data" / "profiles" / "other.toml").read_text()
    (home.folder / "profiles").mkdir()
    (home.folder / "profiles" / "mine.toml").write_text(shipped.replace('keep = "preserve"', 'keep = "metadata only"'))
    home.settings["FEDIWARDEN_PROFILE"] = "mine"
    home.add_store("media", url=str(store))
    home.run("scan", expect=1)

    home.settings["FEDIWARDEN_STORES__MEDIA__HIDE"] = "remove"
    refused = home.run("apply", "--yes", expect=4)
    assert "only copy would be destroyed" in refused.err
    assert len(files_below(store)) == 2
    home.settings.pop("FEDIWARDEN_STORES__MEDIA__HIDE")
    home.run("apply", "--yes")
    assert files_below(store) == {}
    assert not (home.folder / "vault").exists()
    home.run("restore", "a.gif", "b.bmp")
    assert files_below(store) == {"a.gif": ANIMATION, "b.bmp": BITMAP}


def test_two_contents_hidden_from_one_key_are_told_apart(home: Home, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for data in (ANIMATION, BITMAP):
        write(store, {"a": data})
        home.run("scan", store, expect=1)
        home.run("apply", "--yes")

    asked = home.run("restore", "a", expect=4)
    assert "--sha256" in asked.err
    home.run("restore", "a", "--sha256", sha256(ANIMATION).hexdigest()[:10])
    assert (store / "a").read_bytes() == ANIMATION
    occupied = home.run("restore", "a", expect=3)
    assert "move it away first" in occupied.err
    assert by_key(home.run("list", "--json", "--hidden").lines).keys() == {"a"}
    (store / "a").unlink()
    home.run("restore", "a")
    assert (store / "a").read_bytes() == BITMAP
    assert "restored already" in home.run("restore", "a").out


def test_where_the_vault_is_the_only_copy_a_private_key_brings_it_back(home: Home, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store, {"deep/a.gif": ANIMATION})
    (store / "deep/a.gif").chmod(0o640)
    facts = (store / "deep/a.gif").stat()
    home.add_store("media", url=str(store), hide="remove")
    home.run("scan", expect=1)

    home.run("apply", "--yes")
    assert files_below(store) == {}
    assert ANIMATION not in files_below(store.with_name("store.quarantine")).values()
    refused = home.run("restore", "deep/a.gif", expect=4)
    assert "--identity" in refused.err
    home.run("restore", "deep/a.gif", "--identity", home.identities[1])
    assert files_below(store) == {"deep/a.gif": ANIMATION}
    back = (store / "deep/a.gif").stat()
    assert (back.st_mode, back.st_uid, back.st_mtime_ns) == (facts.st_mode, facts.st_uid, facts.st_mtime_ns)


def test_the_drill_goes_the_whole_road_and_leaves_nothing_behind(home: Home, store: Path) -> None:
    home.settings.pop("FEDIWARDEN_POLICY__FILE")
    before = files_below(store)

    stations = home.run("drill", "run", "media", "--json").lines
    assert [station["station"] for station in stations] == [
        "put", "listed", "looked at", "decided", "owed", "sealed", "hidden", "restored", "cleaned up",
    ]  # fmt: skip
    assert all(station["passed"] for station in stations)
    assert files_below(store) == before
    status = home.run("status", "--json").last
    assert (status["allowance_used"], status["hidden"], status["owed"]) == (0, 0, 0)


def test_what_was_not_opened_leads_to_review_under_the_default_policy(home: Home, tmp_path: Path) -> None:
    home.settings.pop("FEDIWARDEN_POLICY__FILE")
    write(tmp_path / "store", {"a.png": PICTURE + zip_of({"x.png": PICTURE}, encrypted=True)})

    totals = home.run("scan", tmp_path / "store", "--json", expect=3).last
    assert (totals["partly"], totals["review"], totals["not_scanned"], totals["flagged"]) == (1, 1, 1, 0)


def test_doctor_finds_nothing_vital_missing_and_nags_about_private_keys(home: Home) -> None:
    lines = {line["what"]: line for line in home.run("doctor", "--json").lines}

    assert not lines["private keys"]["well"]
    assert lines["cage"]["well"]
    assert lines["models"]["well"]
