"""kill -9 in the middle of everything: before every step that lasts, and at random moments; nothing is lost, doubled or unsealed.

`FEDIWARDEN_SOAK=25` makes 25 times as many random rounds (`make soak`); `FEDIWARDEN_SEED` moves the moments.
"""

import os
import random
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from tests.support.command import Home, listed
from tests.support.crashes import (
    KILLED,
    Forks,
    Site,
    all_accounted_for,
    bucket_site,
    folder_site,
    nothing_hidden_unsealed,
)
from tests.support.media_makers import animation, colours, still
from tests.support.servers import S3Server, SshServer

TIMES = int(os.environ.get("FEDIWARDEN_SOAK", "1"))
SEED = int(os.environ.get("FEDIWARDEN_SEED", "20261123"))
also = partial(pytest.param, marks=pytest.mark.long)  # left to `make long`


@pytest.fixture
def site(request: pytest.FixtureRequest, home: Home, tmp_path: Path) -> Site:
    """The store that the parameter names ("folder", "s3", "sftp"; "/remove" keeps hidden objects in the vault only), as "media"."""
    kind, _, hide = str(request.param).partition("/")
    more: dict[str, object] = {"hide": "remove"} if hide else {}
    home.settings |= {"FEDIWARDEN_ACTING__ALLOWANCE": "100000"}
    match kind:
        case "folder":
            home.add_store("media", url=str(tmp_path / "store"), **more)
            return folder_site("media", tmp_path / "store")
        case "s3":
            server: S3Server = request.getfixturevalue("s3_server")
            bucket = server.bucket()
            reader, keeper = server.credentials(tmp_path)
            home.add_store(
                "media", url=f"s3://{bucket}", endpoint=server.endpoint, credentials=reader, keeper_credentials=keeper, **more
            )
            return bucket_site("media", server, bucket)
        case _:
            host: SshServer = request.getfixturevalue("ssh_server")
            site = folder_site("media", tmp_path / "store")
            home.add_store(
                "media",
                url=host.url(tmp_path / "store"),
                credentials=host.credentials(tmp_path, name="reader"),
                keeper_credentials=host.credentials(tmp_path, "ecdsa", name="keeper"),
                known_hosts=host.known_hosts,
                **more,
            )
            return site


def gif(number: int) -> bytes:
    """An animation like no other: hidden by the stand-in policy."""
    return animation("gif", colours(2, 24 + number % 40, 24 + number // 40))


def steps_of(forked: Forks, home: Home, *arguments: str) -> int:
    """How many points an undisturbed command passes."""
    forked.run(home, *arguments)
    return forked.points


@pytest.mark.parametrize(
    "site", ["folder", also("folder/remove"), also("s3"), "s3/remove", "sftp", also("sftp/remove")], indirect=True
)
def test_a_kill_before_any_step_of_apply_and_of_restore_is_completed_by_the_same_command(
    site: Site, home: Home, forked: Forks, request: pytest.FixtureRequest
) -> None:
    removes = "remove" in request.node.callspec.params["site"]
    objects = {f"deep/{number:03}.gif": gif(number) for number in range(70)}
    for key, data in objects.items():
        site.put(key, data)
    forked.run(home, "scan", expect=1)
    keys = iter(objects)
    warm = next(keys)  # the first hiding makes folders and asks the server what it can do
    steps = steps_of(forked, home, "apply", "--yes", "--only", warm)
    identity = ["--identity", str(home.identities[0])] if removes else []
    undo = steps_of(forked, home, "restore", warm, *identity)
    done: dict[str, bytes] = {warm: objects[warm]}
    fatal = 0

    for fatal in range(1, max(steps, undo) + 3):
        key = next(keys)
        done[key] = objects[key]
        for word, command in (("apply", ["--yes", "--only", key]), ("restore", [key, *identity])):
            killed = forked.run(home, word, *command, fatal=fatal)
            nothing_hidden_unsealed(home, site, objects)
            if killed.code == KILLED:
                with home.ledger() as ledger:
                    finished = not any(event.key == key for event in ledger.hidden()) if word == "restore" else False
                if not finished:
                    forked.run(home, word, *command)
            else:
                assert killed.code == 0, (word, fatal, killed)
            with home.ledger() as ledger:
                assert [event.key for event in ledger.hidden()] == ([key] if word == "apply" else []), (word, fatal)
    assert fatal > 10
    left = {key: data for key, data in objects.items() if key not in done}
    forked.run(home, "apply", "--yes")
    all_accounted_for(home, site, objects, hidden=set(left), removes=removes)


@pytest.mark.parametrize("site", ["folder", also("s3")], indirect=True)
def test_a_scan_between_a_killed_apply_and_the_next_loses_nothing(site: Site, home: Home, forked: Forks) -> None:
    objects = {f"{number:03}.gif": gif(number) for number in range(60)}
    for key, data in objects.items():
        site.put(key, data)
    forked.run(home, "scan", expect=1)
    keys = list(objects)
    for fatal in count(1):
        if forked.run(home, "apply", "--yes", "--only", keys[fatal], fatal=fatal).code != KILLED:
            break

    forked.run(home, "scan", expect=1)
    nothing_hidden_unsealed(home, site, objects)
    forked.run(home, "apply", "--yes")
    all_accounted_for(home, site, objects, hidden=set(objects))
    assert forked.run(home, "scan", "--json").last["owed"] == 0
    all_accounted_for(home, site, objects, hidden=set(objects))


def moments(rounds: int, longest: float, name: str) -> list[float]:
    """When to kill: the same moments at every run of the test, spread over the time the command takes."""
    chance = random.Random(f"{SEED} {name}")
    return [chance.uniform(0.0, longest) for _ in range(rounds * TIMES)]


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def no_process_left(home: Home) -> bool:
    """Whether every process that was told this home is gone."""
    wanted = f"FEDIWARDEN_HOME={home.folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                return False
        except OSError:
            continue
    return True


@pytest.mark.parametrize(("site", "rounds"), [("folder", 4), also("folder", 12), also("s3", 4)], indirect=["site"])
def test_scan_killed_at_random_moments_is_completed_by_the_next(site: Site, rounds: int, home: Home, forked: Forks) -> None:
    objects: dict[str, bytes] = {}

    def more(start: int) -> None:
        for number in range(start, start + 6):
            data = (gif(number), still("png", 32 + number % 90, 24 + number // 90, seed=number), b"no picture %d" % number)[
                number % 3
            ]
            objects[f"{number}"] = data
            site.put(f"{number}", data)

    more(0)
    longest = timed(lambda: forked.run(home, "scan", expect=1))
    killed = 0
    for number, moment in enumerate(moments(rounds, longest, "scan"), 1):
        more(number * 6)
        killed += forked.run(home, "scan", after=moment).code == KILLED
        assert site.present() == objects
        totals = forked.run(home, "scan", "--json", expect=1).last

        assert totals["listed"] == len(objects) == listed(totals)
        assert totals["unreached"] == 0
        with home.ledger() as ledger:
            assert ledger.verify() == []
            entries = list(ledger.entries())
            assert {entry.ref.key for entry in entries if entry.look is not None and entry.look.settles} == objects.keys()
            assert sum(1 for _ in ledger.owed()) == sum(1 for data in objects.values() if data.startswith(b"GIF8"))
    assert killed > 0
    deadline = time.monotonic() + 5
    while not no_process_left(home):
        assert time.monotonic() < deadline, "a process outlived its killed scan"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("site", "rounds"), [("folder", 4), also("folder", 12), also("s3", 5), also("sftp", 4)], indirect=["site"]
)
def test_apply_and_restore_killed_at_random_moments_are_completed_by_the_next(
    site: Site, rounds: int, home: Home, forked: Forks
) -> None:
    objects = {f"{number // 4}/{number}.gif": gif(number) for number in range(4 * (rounds * TIMES + 1))}
    for key, data in objects.items():
        site.put(key, data)
    forked.run(home, "scan", expect=1)
    keys = list(objects)
    only = [word for key in keys[:4] for word in ("--only", key)]
    applying = timed(lambda: forked.run(home, "apply", "--yes", *only))
    restoring = timed(lambda: forked.run(home, "restore", *keys[:4]))
    killed = 0
    for number, (first, second) in enumerate(
        zip(moments(rounds, applying, "apply"), moments(rounds, restoring, "restore"), strict=True), 1
    ):
        mine = keys[4 * number : 4 * number + 4]
        command = ["apply", "--yes", *(word for key in mine for word in ("--only", key))]
        killed += forked.run(home, *command, after=first).code == KILLED
        nothing_hidden_unsealed(home, site, objects)
        forked.run(home, *command)
        assert not site.present().keys() & set(mine)
        killed += forked.run(home, "restore", *mine, after=second).code == KILLED
        nothing_hidden_unsealed(home, site, objects)
        with home.ledger() as ledger:
            left = [event.key for event in ledger.hidden()]
        if left:
            forked.run(home, "restore", *left)
    assert killed > 0
    all_accounted_for(home, site, objects, hidden=set())
