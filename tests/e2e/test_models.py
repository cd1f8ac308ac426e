"""`models ...` at the command line, against a hub on this machine: what is printed, which exit code, what is left."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from tests.support.command import Home
from tests.support.disks import small_disk
from tests.support.hub_server import REPOSITORY, REVISION, WEIGHTS, HubServer, as_catalogue, hub_server, left_of, tiny

from fediwarden.errors import Exit

ENTRY, FILES = tiny()
FREE, _ = tiny(name="for-research", research_only=True)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server(FILES) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path, server: HubServer) -> Home:
    """A home without any model, whose catalogue knows two more."""
    home = Home(tmp_path / "home", {"FEDIWARDEN_MODELS__HUB": server.address})
    home.folder.mkdir()
    (home.folder / "catalogue.toml").write_text(as_catalogue(ENTRY) + "\n" + as_catalogue(FREE))
    return home


def test_pull_shows_what_it_got_and_what_to_do_next(own: Home) -> None:
    ran = own.run("models", "pull", "tiny-clip")

    assert f"installed tiny-clip from {REPOSITORY} {REVISION[:12]}" in ran.out
    assert WEIGHTS in ran.out
    assert "unverified" in ran.err
    assert "next: `fediwarden models build tiny-clip`" in ran.err
    assert own.run("models", "pull", "tiny-clip").out == "tiny-clip is in place\n"


def test_pull_as_json_is_one_object_and_no_talk(own: Home) -> None:
    ran = own.run("models", "pull", "tiny-clip", "--json")

    assert ran.err == ""
    assert ran.last["fresh"] is True
    assert (ran.last["repository"], ran.last["revision"], ran.last["verified"]) == (REPOSITORY, REVISION, False)
    assert set(ran.last["files"]) == set(FILES)


def test_a_licence_for_research_only_has_to_be_accepted(own: Home) -> None:
    refused = own.run("models", "pull", "for-research", expect=Exit.CONFIGURATION)

    assert "research only" in refused.err
    assert "--accept-licence" in refused.err
    own.run("models", "pull", "for-research", "--accept-licence")


def test_a_person_at_a_terminal_sees_how_far_it_is_and_may_interrupt(own: Home, server: HubServer) -> None:
    server.moods[WEIGHTS].slow = 0.05
    command, *rest = own.command("models", "pull", "tiny-clip")
    environment = {**own.environment, "TERM": "xterm-256color", "COLUMNS": "160"}
    pull = pexpect.spawn(command, rest, env=environment, encoding="utf-8", timeout=60, dimensions=(40, 160))
    pull.expect(r"open_clip_model.safetensors: [\d.]+ kB of 720\.\d kB \(\d+ %\) \| [\d.]+ kB/s \| \d+ s left")
    pull.sendintr()
    pull.expect("interrupted; what was finished is recorded, the same command goes on from here")
    pull.expect(pexpect.EOF)
    pull.close()
    assert pull.exitstatus == Exit.INTERRUPTED
    server.moods[WEIGHTS].slow = 0

    own.run("models", "pull", "tiny-clip")

    assert server.ranges(WEIGHTS)[0] == ""
    assert server.ranges(WEIGHTS)[1].startswith("bytes=")


def test_a_name_that_nobody_knows_is_answered_with_those_that_are(own: Home) -> None:
    for command in ("pull", "show"):
        ran = own.run("models", command, "clip", expect=Exit.CONFIGURATION)

        assert "clip-vit-l-14" in ran.err


def test_without_a_network_one_line_and_the_way_round_it(own: Home) -> None:
    own.settings["FEDIWARDEN_MODELS__HUB"] = "http://127.0.0.1:9"

    ran = own.run("models", "pull", "tiny-clip", expect=Exit.UNREACHED)

    complaint = [line for line in ran.err.splitlines() if line.startswith("fediwarden: ")]
    assert len(complaint) == 1
    assert "models import" in ran.err
    assert "Traceback" not in ran.err
    assert left_of(own.folder / "models") == set()


def test_a_model_of_another_architecture_is_refused_and_nothing_is_left(own: Home, server: HubServer) -> None:
    server.files[WEIGHTS] = tiny(side=20)[1][WEIGHTS]

    ran = own.run("models", "pull", "tiny-clip", expect=Exit.CONFIGURATION)

    assert "does not hold weights of Tiny" in ran.err
    assert left_of(own.folder / "models") == set()


def test_a_disk_without_room_is_74(own: Home) -> None:
    with small_disk(own.folder / "models", "1m") as mounted:
        if not mounted:
            pytest.skip("this user may not mount")

        ran = own.run("models", "pull", "tiny-clip", expect=Exit.CANNOT_WRITE)

        assert "MB free" in ran.err


def test_a_pull_that_broke_off_is_shown_and_goes_on(own: Home, server: HubServer) -> None:
    server.moods[WEIGHTS].break_after = [400_000]
    server.moods[WEIGHTS].statuses = []
    server.moods["tokenizer.json"].statuses = [(404, {})]
    own.run("models", "pull", "tiny-clip", expect=Exit.CONFIGURATION)

    assert "a pull of tiny-clip broke off after 720" in own.run("models", "list").err
    own.run("models", "pull", "tiny-clip")
    assert "broke off" not in own.run("models", "list").err


def test_list_shows_what_is_there_and_on_demand_what_is_to_be_had(own: Home) -> None:
    own.run("models", "pull", "tiny-clip")

    listed = own.run("models", "list")
    assert "not built" in listed.out
    assert "clip-vit-l-14" not in listed.out
    assert "models list --all" in listed.err
    everything = own.run("models", "list", "--all").out
    assert "75.3 %" in everything
    assert "1,715 MB" in everything
    assert {line["name"]: line["installed"] for line in own.run("models", "list", "--all", "--json").lines} == {
        "tiny-clip": True,
        "for-research": False,
        "clip-vit-b-32": False,
        "clip-vit-l-14": False,
        "mobileclip2-s2": False,
        "siglip2-b-16": False,
    }


def test_show_says_all_of_it_installed_or_not(own: Home) -> None:
    known = own.run("models", "show", "clip-vit-l-14").out
    assert "arXiv:2103.00020" in known
    assert "blind to" in known
    assert "unverified" in known
    assert "RESEARCH ONLY" in own.run("models", "show", "mobileclip2-s2").out

    own.run("models", "pull", "tiny-clip")

    shown = own.run("models", "show", "tiny-clip")
    assert REVISION in shown.out
    assert "nothing yet" in shown.out
    assert own.run("models", "show", "tiny-clip", "--json").last["installed"] is True


def test_verify_names_what_was_altered_and_what_to_do(own: Home) -> None:
    own.run("models", "pull", "tiny-clip")
    with (own.folder / "models" / "tiny-clip" / WEIGHTS).open("r+b") as out:
        out.write(b"altered!")

    ran = own.run("models", "verify", expect=Exit.CONFIGURATION)

    assert f"altered  tiny-clip/{WEIGHTS}" in ran.out
    assert "fediwarden models pull tiny-clip" in ran.err
    own.run("models", "pull", "tiny-clip")
    assert f"ok       tiny-clip/{WEIGHTS}" in own.run("models", "verify", expect=Exit.CONFIGURATION).out


def test_what_was_pulled_here_is_taken_in_elsewhere(own: Home, tmp_path: Path) -> None:
    own.run("models", "pull", "tiny-clip")
    shutil.copytree(own.folder / "models" / "tiny-clip", tmp_path / "stick")
    other = Home(tmp_path / "other", {"FEDIWARDEN_MODELS__HUB": "http://127.0.0.1:9"})
    other.folder.mkdir()
    (other.folder / "catalogue.toml").write_text(as_catalogue(ENTRY))

    ran = other.run("models", "import", tmp_path / "stick", "--json")

    assert ran.last["revision"] == REVISION
    assert other.run("models", "list", "--json").last["name"] == "tiny-clip"


def test_remove_asks_and_keeps_what_every_scan_needs(own: Home) -> None:
    own.run("models", "pull", "tiny-clip")
    assert "--yes" in own.run("models", "remove", "tiny-clip", expect=Exit.USAGE).err
    assert "it stays" in own.run("models", "remove", "open-nsfw", "--yes", expect=Exit.CONFIGURATION).err

    ran = own.run("models", "remove", "tiny-clip", "--yes", "--json")

    assert ran.last["removed"] == "tiny-clip"
    assert ran.last["bytes"] > len(FILES[WEIGHTS])
    assert left_of(own.folder / "models") == set()


def test_a_catalogue_of_ones_own_that_cannot_be_read_is_one_line(own: Home) -> None:
    (own.folder / "catalogue.toml").write_text("[[model]]\nname = 5\n")

    ran = own.run("models", "list", expect=Exit.CONFIGURATION)

    assert "catalogue.toml" in ran.err
    assert len(ran.err.splitlines()) == 2
    assert json.dumps(ran.out) == '""'
