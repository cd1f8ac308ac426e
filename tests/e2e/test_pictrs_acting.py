"""Hidden and restored through pict-rs by the commands an administrator gives, with who else is met shown first."""

import json
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest
from tests.support.command import Home
from tests.support.fake_pictrs import KEY, FakePictrs, Refusal, Seen, running_pictrs
from tests.support.gate_process import running_gate
from tests.support.media_makers import animation, still
from tests.support.postgres import Postgres, run_sql

from fediwarden.app import App

BAD = animation("gif", 3)
GOOD = still("png", 64, 48)
POSTED = "aaaaaaaa-0000-4000-8000-000000000001.jpeg"  # of post 401 in the stand-in for Lemmy's database


@pytest.fixture
def pictrs() -> Iterator[FakePictrs]:
    with running_pictrs() as fake:
        yield fake


@pytest.fixture
def guarded(new_home: Callable[..., Home], pictrs: FakePictrs) -> Home:
    """A home whose only store is that pict-rs."""
    home = new_home()
    for name in ("read.toml", "keep.toml"):
        file = home.folder / name
        file.write_text(f'api_key = "{KEY}"\n')
        file.chmod(0o600)
    home.add_store("media", url=f"pictrs://127.0.0.1:{pictrs.port}", credentials="read.toml", keeper_credentials="keep.toml")
    return home


def test_what_is_hidden_is_purged_with_its_variants_and_comes_back_under_its_alias(guarded: Home, pictrs: FakePictrs) -> None:
    bad, good = pictrs.put(BAD, "image/gif", alias="bad.gif", animated=True), pictrs.put(GOOD, "image/png", alias="good.png")
    variant = pictrs.variant(bad)
    guarded.run("scan", expect=1)
    (owed,) = guarded.run("list", "--step", "quarantine", "--json").lines

    done = guarded.run("apply", "--yes", "--json").lines

    assert (done[0]["outcome"], done[0]["radius"]["aliases"], done[0]["radius"]["shared"]) == ("done", ["bad.gif"], False)
    assert pictrs.row(bad) is None
    assert variant not in pictrs.objects
    assert pictrs.data(good) == GOOD
    assert guarded.unsealed(BAD)
    assert guarded.run("explain", "bad.gif").out.count("hide: done") == 1

    key = owed["key"]
    assert "only the vault holds" in guarded.run("restore", key, expect=4).err
    back = guarded.run("restore", "bad.gif", "--identity", guarded.identities[0], "--json")
    assert "Delete tokens that were given out no longer work" in back.err
    assert "Lemmy" not in back.err  # none is configured
    assert (back.last["outcome"], back.last["altered"]) == ("restored", None)
    assert pictrs.data(bad) == BAD


def test_what_several_uploads_share_stays_owed_until_somebody_says_so_and_both_come_back(
    guarded: Home, pictrs: FakePictrs
) -> None:
    for alias in ("one.gif", "two.gif"):
        pictrs.put(BAD, "image/gif", alias=alias, animated=True)
    guarded.run("scan", expect=1)

    left = guarded.run("apply", "--yes", "--json", expect=6).lines

    assert (left[0]["outcome"], left[0]["radius"]["aliases"]) == ("shared", ["one.gif", "two.gif"])
    assert (left[-1]["owed"], left[-1]["shared"]) == (1, 1)
    assert pictrs.data("one.gif") == BAD
    assert "2 aliases" in guarded.run("apply", "--yes", expect=6).out
    _watch_leaves_it(guarded)
    assert pictrs.data("one.gif") == BAD

    assert guarded.run("apply", "--yes", "--shared", "--json").lines[0]["outcome"] == "done"
    assert pictrs.row("one.gif") is None
    assert pictrs.row("two.gif") is None
    guarded.run("restore", left[0]["key"], "--identity", guarded.identities[0])
    assert (pictrs.data("one.gif"), pictrs.data("two.gif")) == (BAD, BAD)


def test_what_several_share_keeps_the_allowance_from_nothing_that_nobody_shares(guarded: Home, pictrs: FakePictrs) -> None:
    for number in range(2):
        pictrs.put(animation("gif", 10 + number), "image/gif", alias=f"alone{number}.gif", animated=True)
        worse = still("bmp", 20 + number, 20)
        for alias in (f"one{number}.png", f"two{number}.png"):
            pictrs.put(worse, "image/png", alias=alias)
    guarded.run("scan", expect=1)
    guarded.settings["FEDIWARDEN_ACTING__ALLOWANCE"] = "3"

    told = guarded.run("apply", "--yes", "--json", expect=6).lines

    assert sorted(line["outcome"] for line in told[:-1]) == ["done", "done", "shared", "shared"]
    assert (pictrs.row("alone0.gif"), pictrs.row("alone1.gif")) == (None, None)
    told = guarded.run("apply", "--yes", "--shared", "--json", expect=6).lines
    assert (told[-1]["done"], told[-1]["owed"], told[-1]["over_allowance"]) == (1, 1, 1)


def test_what_pict_rs_writes_anew_passes_the_gate_once_and_is_said_to_differ_and_a_drill_does_not_pass(
    guarded: Home, pictrs: FakePictrs
) -> None:
    assert "is the gate running?" in _drill(guarded, expect=3)["answered"]
    pictrs.put(BAD, "image/gif", alias="bad.gif", animated=True)
    guarded.run("scan", expect=1)
    key = guarded.run("apply", "--yes", "--json").lines[0]["key"]
    anew = BAD + b"\0"

    with running_gate(guarded, store="media") as gate:
        pictrs.validator = gate.url
        assert pictrs.upload(BAD, "image/gif", animated=True).code == "failed-external-validation"
        stations = _drill(guarded)
        assert list(stations)[:7] == ["answered", "on record", "refused", "apart", "sealed", "chunked", "form"]
        assert "refused here by your own policy, rule animation" in stations["gif"]
        assert "refused through pict-rs" in stations["drill"]
        pictrs.alters = lambda _: anew
        back = guarded.run("restore", key, "--identity", guarded.identities[0], "--json").last

    assert (back["outcome"], back["altered"]) == ("restored", sha256(anew).hexdigest())
    assert pictrs.data("bad.gif") == anew
    gate_said = guarded.run("explain", back["altered"], "--json").last
    assert [(answer["passed"], answer["why"]) for answer in gate_said["answers"]] == [(True, "restoring")]
    assert {word["step"] for word in gate_said["words"]} == {"pass"}
    assert guarded.run("status", "--json").last["gate"]["refused_today"] == {"known": 1, "looked": 2}  # drills apart


def refuses_imports(seen: Seen) -> None:
    """As a pict-rs that asks a gate which refuses."""
    if seen.path == "/internal/import":
        raise Refusal(400, "as the test wants", "failed-external-validation")


def _watch_leaves_it(home: Home) -> None:
    """A watch that may act asks nobody, so it leaves what several people share."""
    app = App(home.environment)

    def not_needed() -> NoReturn:
        raise AssertionError("it takes the lock from `apply` for nothing")

    app._acting(app._automatic(), not_needed).turn()


def killed_restore(home: Home, pictrs: FakePictrs, key: str, imports: int) -> None:
    """A restore that is killed while pict-rs is at the import after so many; that one is never done."""
    reached, goes_on, left = threading.Event(), threading.Event(), [imports]

    def before(seen: Seen) -> None:
        if seen.path == "/internal/import":
            left[0] -= 1
            if left[0] < 0:
                reached.set()
                goes_on.wait(60)
                raise Refusal(500, "as the test wants", "hung")

    pictrs.before = before
    process = home.start("restore", key, "--identity", home.identities[0])
    try:
        assert reached.wait(60)
    finally:
        process.kill()
        process.communicate()
        goes_on.set()
        pictrs.before = lambda seen: None


def test_after_a_killed_restore_the_gate_refuses_these_bytes_at_once_and_after_apply(guarded: Home, pictrs: FakePictrs) -> None:
    for alias in ("one.gif", "two.gif"):
        pictrs.put(BAD, "image/gif", alias=alias, animated=True)
    guarded.run("scan", expect=1)
    key = guarded.run("apply", "--yes", "--shared", "--json").lines[0]["key"]
    with running_gate(guarded, store="media") as gate:
        pictrs.validator = gate.url
        killed_restore(guarded, pictrs, key, imports=1)
        assert pictrs.data("one.gif") == BAD

        assert pictrs.upload(BAD, "image/gif", animated=True).code == "failed-external-validation"

        pictrs.put(BAD, "image/gif", alias="theirs.gif", animated=True)  # as if it had come in between
        left = guarded.run("apply", "--yes", "--json", expect=6).lines
        assert (left[0]["outcome"], left[-1]["shared"], left[-1]["owed"]) == ("shared", 1, 1)
        assert (pictrs.data("one.gif"), pictrs.data("theirs.gif")) == (None, BAD)
        assert guarded.run("apply", "--yes", "--json", expect=6).last["shared"] == 1
        _watch_leaves_it(guarded)
        assert pictrs.data("theirs.gif") == BAD
        guarded.run("apply", "--yes", "--shared")
        assert pictrs.rows == {}
        assert pictrs.upload(BAD, "image/gif", animated=True).code == "failed-external-validation"
        guarded.run("restore", key, "--identity", guarded.identities[0])
        assert (pictrs.data("one.gif"), pictrs.data("two.gif")) == (BAD, BAD)


def test_the_preview_that_lemmy_made_of_a_picture_is_sealed_hidden_and_restored_with_it(
    guarded: Home, pictrs: FakePictrs, postgres: Postgres
) -> None:
    bad, small = pictrs.put(BAD, "image/gif", alias=POSTED, animated=True), pictrs.put(GOOD, "image/png", alias="small.webp")
    url = postgres.database(Path("lemmy_019.sql"), Path("lemmy_019_data.sql"))
    run_sql(
        url,
        "DELETE FROM post WHERE id <> 401; UPDATE post SET thumbnail_url = 'https://lemmy.example/pictrs/image/small.webp';"
        "UPDATE person SET bio = NULL; DELETE FROM private_message",
    )
    file = guarded.folder / "lemmy.toml"
    file.write_text(f"database = {json.dumps(url)}\n")
    file.chmod(0o600)
    guarded.settings["FEDIWARDEN_LEMMY__URL"] = "https://lemmy.example"
    guarded.settings["FEDIWARDEN_LEMMY__CREDENTIALS"] = str(file)
    guarded.run("scan", expect=1)
    (owed,) = guarded.run("list", "--step", "quarantine", "--json").lines

    original, preview, _ = guarded.run("apply", "--yes", "--json").lines

    assert (original["outcome"], original["copy_of"], preview["outcome"], preview["copy_of"]) == (
        "done",
        None,
        "done",
        owed["key"],
    )
    assert [copy["key"] for copy in original["radius"]["copies"]] == [preview["key"]]
    assert (pictrs.row(bad), pictrs.row(small)) == (None, None)
    assert guarded.unsealed(BAD)
    assert guarded.unsealed(GOOD)
    assert f"a copy that Lemmy made of media: {owed['key']}" in guarded.run("explain", "small.webp").out
    assert "copies" in guarded.run("restore", owed["key"], "--identity", guarded.identities[0]).err
    assert (pictrs.data(bad), pictrs.data(small)) == (BAD, GOOD)


def _drill(home: Home, *, expect: int = 0) -> dict[str, str]:
    """A drill at the gate: stations and what each says."""
    if not (home.folder / "gate.secrets").exists():
        home.run("gate", "--new-secret")
    return {station["station"]: station["detail"] for station in home.run("drill", "gate", "--json", expect=expect).lines}


def test_a_drill_goes_the_whole_road_through_pict_rs_and_leaves_nothing(guarded: Home, pictrs: FakePictrs) -> None:
    pictrs.put(GOOD, "image/png", alias="good.png")
    stations = guarded.run("drill", "run", "media", "--identity", guarded.identities[0], "--json").lines
    assert [station["station"] for station in stations if not station["passed"]] == []
    assert {"sealed", "hidden", "restored", "cleaned up"} <= {station["station"] for station in stations}
    assert [row.aliases.keys() for row in pictrs.rows.values()] == [{"good.png": ""}.keys()]


def test_a_drill_that_could_not_restore_does_not_say_end_to_end(guarded: Home) -> None:
    last = guarded.run("drill", "run", "media").out.splitlines()[-1]
    assert "the road works as far as it was tried; not proved: that it comes back. Give --identity" in last


def test_a_drill_behind_a_gate_says_that_the_gate_did_what_it_is_for(guarded: Home, pictrs: FakePictrs) -> None:
    pictrs.before = refuses_imports
    (put,) = guarded.run("drill", "run", "media", "--json", expect=3).lines
    assert "it did what it is for" in put["detail"]
    assert "Leave the gate on" in put["detail"]
