"""Every promise about pict-rs, kept beside the real one by the commands that an administrator gives."""

import signal
import time
from pathlib import Path

import pytest
from tests.real.conftest import Beside
from tests.support.command import Home
from tests.support.gate_process import GateProcess, running_gate
from tests.support.media_makers import animation, encode, movie, scene, still
from tests.support.postgres import Postgres
from tests.support.real_pictrs import SETUPS, RealPictrs, running, sums, versions
from tests.support.servers import S3Server

from fediwarden.model import DeedState

BAD = animation("gif", 3)  # what the stand-in policy hides
WAIT = 60.0


def pictures(seed: int = 0) -> dict[str, bytes]:
    """A picture or film of every kind that people upload, by Content-Type and word; none like those of another seed."""
    moving = [scene(64, 48, seed * 100 + number) for number in range(4)]
    return {
        "image/png": still("png", 64, 48, seed + 1),
        "image/jpeg": still("jpeg", 64, 48, seed + 2),
        "image/webp": still("webp", 64, 48, seed + 3),
        "image/avif": still("avif", 64, 48, seed + 4),
        "image/gif": encode(scene(64, 48, seed + 5).convert("P"), "gif"),
        "image/apng": animation("apng", moving),
        "image/webp animated": animation("webp", moving),
        "video/mp4": movie("mp4", moving * 3),
        "video/webm": movie("webm", moving * 3),
    }


def uploaded(pictrs: RealPictrs, seed: int = 0) -> dict[str, str]:
    """Upload one of each kind; aliases by kind, of those that this pict-rs takes."""
    told = {kind: pictrs.upload(data, kind.partition(" ")[0].replace("apng", "png")) for kind, data in pictures(seed).items()}
    return {kind: answer.alias for kind, answer in told.items() if answer.status == 201}


def suspecting(home: Home, format: str) -> None:
    """Have the stand-in policy hide another format than GIF."""
    policy = home.folder / "policy.toml"
    policy.write_text(policy.read_text().replace('format = ["gif"]', f'format = ["{format}"]'))


def until(ready: object, what: str, seconds: float = WAIT) -> None:
    """Wait for another process."""
    end = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.1)


def identity(home: Home) -> tuple[str, Path]:
    """The option that names a key of the vault."""
    return "--identity", home.identities[0]


def gated(home: Home, pictrs: RealPictrs, gate: GateProcess) -> None:
    """Have pict-rs ask this gate from now on."""
    pictrs.stop()
    pictrs.validator = gate.url
    pictrs.start()


# -- the gate -----------------------------------------------------------------------------------------------------------


def test_every_format_passes_the_gate_and_is_on_its_record_under_the_hash_that_pict_rs_lists(
    pictrs: RealPictrs, beside: Beside
) -> None:
    home = beside(pictrs)
    with running_gate(home, store="media", deadline_seconds=25) as gate:
        gated(home, pictrs, gate)

        taken = uploaded(pictrs)

        assert {"image/png", "image/jpeg", "image/webp", "image/apng", "video/mp4", "video/webm"} <= set(taken)
        listed = sums(pictrs.listed())
        for name, size in listed.items():
            (answer,) = home.run("explain", name, "--json").last["answers"]
            assert (answer["passed"], answer["why"], answer["debt"]) == (True, "looked", False), answer
            assert size > 0
        assert home.run("status", "--json").last["gate"]["debts"] == 0


def test_bytes_that_were_looked_at_are_known_and_suspected_ones_are_refused_and_sealed_as_they_are(
    pictrs: RealPictrs, beside: Beside
) -> None:
    home = beside(pictrs)
    good = still("png", 64, 48, 77)
    with running_gate(home, store="media", deadline_seconds=25) as gate:
        gated(home, pictrs, gate)

        first, again, bad, once_more = (
            pictrs.put(good),
            pictrs.put(good),
            pictrs.upload(BAD, "image/gif"),
            pictrs.upload(BAD, "image/gif"),
        )

        assert first != again
        assert (bad.status, bad.code) == (400, "failed-external-validation")
        assert (once_more.status, once_more.code) == (400, "failed-external-validation")
        (name,) = sums(pictrs.listed())
        assert [answer["why"] for answer in home.run("explain", name, "--json").last["answers"]] == ["looked", "known"]
        sealed = home.run("vault", "list", "--json").lines
        assert len(sealed) == 1
        opened = home.vault().open(sealed[0]["sha256"], home.identities[:1])
        assert opened[:3] == b"GIF"  # the picture, not what it came in


def test_the_drill_at_the_gate_proves_the_road_through_pict_rs_and_fails_without_it(pictrs: RealPictrs, beside: Beside) -> None:
    home = beside(pictrs)
    suspecting(home, "tiff")  # every format that a drill sends is to pass
    with running_gate(home, store="media", deadline_seconds=25) as gate:
        home.run("drill", "gate", "--json", expect=3)  # pict-rs asks nobody
        gated(home, pictrs, gate)

        stations = home.run("drill", "gate", "--json").lines

        assert [station for station in stations if not station["passed"]] == []
        assert pictrs.listed() == {}


# -- looking ------------------------------------------------------------------------------------------------------------


def test_a_scan_finds_what_was_uploaded_and_the_store_behind_adds_nothing_but_renderings(
    pictrs: RealPictrs, beside: Beside
) -> None:
    home = beside(pictrs)
    taken = uploaded(pictrs)
    assert pictrs.get(taken["image/png"], thumbnail=32).status_code == 200

    scanned = home.run("scan", "--json", expect=None)

    assert scanned.code in (0, 1), scanned.err
    known = {line["key"] for line in home.run("list", "--json").lines if line["store"] == "media"}
    assert known == set(pictrs.listed())
    assert {line["standing"] for line in home.run("list", "--json").lines} == {"seen"}


def test_a_watch_looks_at_what_comes_in(pictrs: RealPictrs, beside: Beside) -> None:
    home = beside(pictrs)
    home.settings |= {"FEDIWARDEN_WATCH__SECONDS": "2", "FEDIWARDEN_WATCH__REQUESTS_PER_HOUR": "3600"}
    process = home.start("watch", "media")
    try:
        aliases = [pictrs.put(still("png", 64, 48, seed)) for seed in range(5)] + [pictrs.put(BAD, "image/gif")]
        assert len(aliases) == 6

        until(lambda: len(home.run("list", "--standing", "seen", "--json", expect=None).lines) == 6, "the watch does not look")

        assert len(home.run("list", "--step", "quarantine", "--json").lines) == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_lost_files_are_unreached_with_that_reason_and_the_rest_is_looked_at(
    pictrs: RealPictrs, beside: Beside, s3: S3Server
) -> None:
    home = beside(pictrs)
    aliases = [pictrs.put(still("png", 64, 48, seed)) for seed in range(6)]
    lost = [aliases[0], aliases[3], aliases[5]]
    names = {pictrs.named(alias) for alias in lost}
    for alias in lost:
        if pictrs.bucket:
            s3.delete(pictrs.bucket, str(pictrs.internal("identifier", alias=alias).json()["identifier"]))
        else:
            pictrs.file(alias).unlink()

    home.run("scan", "media", expect=3)

    entries = {line["key"]: line["standing"] for line in home.run("list", "--json").lines}
    assert {key for key, standing in entries.items() if standing == "unreached"} == names
    assert sorted(entries.values()) == ["seen"] * 3 + ["unreached"] * 3


# -- acting -------------------------------------------------------------------------------------------------------------


def test_what_is_hidden_is_gone_under_every_alias_and_comes_back_byte_for_byte(pictrs: RealPictrs, beside: Beside) -> None:
    home = beside(pictrs)
    first, second = pictrs.put(BAD, "image/gif"), pictrs.put(BAD, "image/gif")
    good = pictrs.put(still("png", 64, 48, 5))
    stored = pictrs.data(first)
    assert stored is not None
    key = pictrs.named(first)
    home.run("scan", expect=1)

    done = home.run("apply", "--yes", "--shared", "--json").lines

    assert done[0]["outcome"] == "done"
    assert [pictrs.get(alias).status_code for alias in (first, second, good)] == [404, 404, 200]
    assert home.unsealed(stored)
    if not pictrs.bucket:
        assert not any(path.read_bytes() == stored for path in pictrs.files.rglob("*") if path.is_file())

    back = home.run("restore", key, *identity(home), "--json").last

    assert (back["outcome"], back["altered"]) == ("restored", None)
    assert [pictrs.data(alias) for alias in (first, second)] == [stored, stored]
    home.run("scan", expect=0)  # a person's word stands


def test_a_restore_passes_the_gate_and_the_same_bytes_do_not_afterwards_unless_it_was_done(
    pictrs: RealPictrs, beside: Beside
) -> None:
    home = beside(pictrs)
    alias = pictrs.put(BAD, "image/gif")
    stored, key = pictrs.data(alias), pictrs.named(alias)
    home.run("scan", expect=1)
    home.run("apply", "--yes")
    with running_gate(home, store="media", deadline_seconds=25) as gate:
        gated(home, pictrs, gate)
        assert pictrs.upload(BAD, "image/gif").code == "failed-external-validation"

        home.run("restore", key, *identity(home))

        assert pictrs.data(alias) == stored


def test_a_video_comes_back_and_it_was_said_beforehand_that_its_bytes_change(pictrs: RealPictrs, beside: Beside) -> None:
    home = beside(pictrs)
    suspecting(home, "mp4")
    alias = pictrs.put(movie("mp4", [scene(64, 48, number) for number in range(12)]), "video/mp4")
    key = pictrs.named(alias)
    home.run("scan", expect=1)
    home.run("apply", "--yes")
    assert pictrs.get(alias).status_code == 404

    back = home.run("restore", key, *identity(home), "--json")

    assert "video" in back.err
    assert back.last["outcome"] == "restored"
    assert pictrs.get(alias).status_code == 200


def test_a_drill_goes_the_whole_road_and_leaves_nothing(pictrs: RealPictrs, beside: Beside) -> None:
    home = beside(pictrs)
    pictrs.put(still("png", 64, 48, 3))

    stations = home.run("drill", "run", "media", *identity(home), "--json").lines

    assert [station for station in stations if not station["passed"]] == []
    assert len(pictrs.listed()) == 1


@pytest.mark.parametrize("moment", [0.0, 0.15, 0.6])
def test_a_pict_rs_that_is_killed_in_the_middle_of_a_deed_loses_nothing(
    pictrs: RealPictrs, beside: Beside, moment: float
) -> None:
    home = beside(pictrs)
    aliases = [pictrs.put(animation("gif", number), "image/gif") for number in range(3, 7)]
    stored = {alias: pictrs.data(alias) for alias in aliases}
    keys = {alias: pictrs.named(alias) for alias in aliases}
    home.run("scan", expect=1)
    process = home.start("apply", "--yes", "--json")
    until(lambda: _sealed(home) or process.poll() is not None, "nothing was sealed")
    time.sleep(moment)
    pictrs.kill()
    process.communicate(timeout=120)
    pictrs.start()

    home.run("apply", "--yes", "--json")

    assert [pictrs.get(alias).status_code for alias in aliases] == [404] * 4
    assert all(home.unsealed(data) for data in stored.values() if data)
    for alias, key in keys.items():
        home.run("restore", key, *identity(home))
        assert pictrs.data(alias) == stored[alias]


def _sealed(home: Home) -> bool:
    """Whether an object is being acted on, and is sealed at least."""
    with home.ledger() as ledger:
        return any(entry.deed is not None and entry.deed[1] is not DeedState.BEGUN for entry in ledger.entries())


def test_a_fediwarden_that_is_killed_in_the_middle_of_a_restore_completes_it_at_the_next_try(
    pictrs: RealPictrs, beside: Beside
) -> None:
    home = beside(pictrs)
    aliases = [pictrs.put(BAD, "image/gif") for _ in range(4)]
    stored, key = pictrs.data(aliases[0]), pictrs.named(aliases[0])
    home.run("scan", expect=1)
    home.run("apply", "--yes", "--shared")
    process = home.start("restore", key, *identity(home))
    until(
        lambda: any(pictrs.get(alias).status_code == 200 for alias in aliases) or process.poll() is not None, "nothing came back"
    )
    process.kill()
    process.communicate()

    home.run("restore", key, *identity(home))

    assert [pictrs.data(alias) for alias in aliases] == [stored] * 4


# -- from version to version --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upgraded", SETUPS)
def test_an_upgrade_in_place_looks_at_nothing_twice_and_takes_nothing_for_gone(
    upgraded: str, tmp_path: Path, s3: S3Server, postgres: Postgres, beside: Beside
) -> None:
    first, *later = versions()
    assert later, "one version is not enough for an upgrade"
    with running(first, upgraded, tmp_path / "pictrs", s3, postgres) as pictrs:
        home = beside(pictrs)
        taken = uploaded(pictrs)
        suspected = pictrs.put(BAD, "image/gif")
        assert pictrs.get(taken["image/jpeg"], thumbnail=32).status_code == 200
        home.run("scan", expect=1)
        before = {(line["store"], line["key"]) for line in home.run("list", "--json").lines}

        for version in later:
            pictrs.become(version)

            told = home.run("scan", "--json", expect=None).last

            after = {(line["store"], line["key"]) for line in home.run("list", "--json").lines}
            new = after - before  # a later pict-rs makes a still of each video when it is first listed
            assert before <= after, version
            assert {store for store, _ in new} <= {"files"}, (version, new)
            assert (told["seen"], told["gone"]) == (len(new), 0), (version, told)
            assert home.run("scan", "--json", expect=None).last["seen"] == 0
            before = after
        key = pictrs.named(suspected)
        assert home.run("apply", "--yes", "--json").lines[0]["outcome"] == "done"
        home.run("restore", key, *identity(home))
        assert pictrs.get(suspected).status_code == 200


def test_a_row_that_poisons_every_listing_stops_neither_scan_nor_apply(
    tmp_path: Path, s3: S3Server, postgres: Postgres, beside: Beside
) -> None:
    first, *later = versions()
    with running(first, "folder", tmp_path / "pictrs", s3, postgres) as pictrs:
        home = beside(pictrs)
        aliases = [pictrs.put(still("png", 64, 48, seed)) for seed in range(7)]
        bad = pictrs.put(BAD, "image/gif")
        lost = [aliases[0], aliases[2], aliases[3], aliases[6]]
        names = {pictrs.named(alias) for alias in lost}
        for alias in lost:
            pictrs.file(alias).unlink()
        for version in later:
            pictrs.become(version)
            assert pictrs.internal("hashes", limit=100).status_code == 500  # so it is with the real one

            home.run("scan", "media", expect=None)

            entries = {line["key"]: line["standing"] for line in home.run("list", "--json").lines}
            assert {key for key, standing in entries.items() if standing == "unreached"} == names, version
            assert len(entries) == 8, version
        home.run("apply", "--yes")
        assert pictrs.get(bad).status_code == 404


def test_a_repository_that_began_empty_beside_the_old_store_takes_nothing_for_gone(
    tmp_path: Path, s3: S3Server, postgres: Postgres, beside: Beside
) -> None:
    *_, last = versions()
    first = versions()[0]
    with running(first, "folder", tmp_path / "pictrs", s3, postgres) as pictrs:
        home = beside(pictrs)
        for seed in range(8):
            pictrs.put(still("png", 64, 48, seed))
        pictrs.put(BAD, "image/gif")
        home.run("scan", expect=1)
        before = len(home.run("list", "--json").lines)
        pictrs.stop()
        pictrs.repository = {"REPO__TYPE": "fjall", "REPO__FJALL_PATH": str(tmp_path / "empty")}
        pictrs.start(last)

        told = home.run("scan", "--json", expect=None)

        assert told.code not in (0, 1), told.out
        assert told.last["gone"] == 0
        assert len(home.run("list", "--json").lines) == before
        assert len(home.run("list", "--step", "quarantine", "--json").lines) >= 1
        files = sorted(path.name for path in pictrs.files.rglob("*") if path.is_file())
        home.run("apply", "--yes", expect=None)
        assert sorted(path.name for path in pictrs.files.rglob("*") if path.is_file()) == files  # nothing behind its back
