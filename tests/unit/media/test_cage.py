"""The walls of the cage in a real child, and what the outside makes of children that hang, crash, lie or die."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support import media_makers as make
from tests.support.looking import MisbehavingCage, blob, boot, look

from fediwarden.errors import Misconfigured, Unreached
from fediwarden.media import Cage, Limits
from fediwarden.media.lockdown import LAYERS
from fediwarden.model import Reason

QUICK = Limits(cpu_seconds=1, wall_seconds=30.0, memory_mb=300)


@pytest.fixture(scope="module")
def cage() -> Iterator[Cage]:
    with Cage(Limits()) as cage:
        yield cage


@pytest.fixture(scope="module")
def wild() -> Iterator[Cage]:
    with MisbehavingCage(QUICK) as cage:
        yield cage


def test_every_wall_stands_here(cage: Cage) -> None:
    assert dict(cage.layers) == dict.fromkeys(LAYERS, True)


@pytest.mark.parametrize("forbidden", ["open", "create", "listdir", "socket", "fork", "exec", "kill", "ptrace", "grow"])
def test_a_child_is_refused(cage: Cage, forbidden: str) -> None:
    _, answers = cage._running().test(10)

    assert answers[forbidden] == "refused"


@pytest.mark.parametrize("layer", LAYERS)
def test_a_missing_wall_stops_the_start_unless_reduced(layer: str) -> None:
    class Lacking(Cage):
        _boot = boot(f"unwalled({layer!r})")

    with pytest.raises(Misconfigured) as caught:
        Lacking(Limits()).start()
    with Lacking(Limits(), reduced=True) as cage:
        layers = dict(cage.layers)
        seen = look(cage, make.still("png", 20, 20))

    assert 'cage = "reduced"' in caught.value.hint
    assert not layers[layer]
    assert layers["rlimits"] or layer == "rlimits"
    assert seen.report.reason is None


def test_an_endless_loop_is_broken_as_too_slow(wild: Cage) -> None:
    seen = look(wild, b"MISBEHAVE:spin")

    assert seen.report.reason is Reason.TOO_SLOW


def test_a_hunger_for_memory_is_broken_as_a_bomb(wild: Cage) -> None:
    seen = look(wild, b"MISBEHAVE:hog")

    assert seen.report.reason is Reason.BOMB


@pytest.mark.parametrize("way", ["segv", "abort", "exit"])
def test_a_crash_is_broken_and_the_next_object_is_looked_at(wild: Cage, way: str) -> None:
    crashed = look(wild, f"MISBEHAVE:{way}".encode())
    following = look(wild, make.still("png", 20, 20))

    assert crashed.report.reason is Reason.CRASHED
    assert following.report.reason is None
    assert len(following.frames) == 1


def test_a_silent_child_is_unreached_not_judged() -> None:
    with MisbehavingCage(Limits(wall_seconds=0.5)) as hasty:
        hasty.start()
        with pytest.raises(Unreached, match="no sign of life"):
            look(hasty, b"MISBEHAVE:sleep")


def _frame(width: int, height: int, length: int, *, ground: int = 0, view: int = 0, codes: int = 0, at: float = 0.0) -> bytes:
    return struct.pack(">cI", b"F", length) + struct.pack(">IIIdBHHB", width, height, 0, at, ground, view, 0, codes)


@pytest.mark.parametrize(
    "lie",
    [
        b"F" + b"\xff" * 200,
        b"R" + b"\xff" * 4,
        b"X" + b"\0" * 4,
        b"R" + struct.pack(">I", 2) + b"{}",
        b"R" + struct.pack(">I", 60_000) + b"[" * 60_000,
        _frame(1 << 31, 1, 3 << 31 & 0xFFFFFFFF),
        _frame(0, 0, 26),
        _frame(2, 2, 26 + 11) + bytes(12),
        _frame(2, 2, 26 + 12, ground=9) + bytes(12),
        _frame(2, 2, 26 + 12, view=60_000),
        _frame(2, 2, 26 + 12, codes=200),
        _frame(2, 2, 26 + 12, at=float("nan")),
        _frame(2, 2, 26 + 2 + 4 + 12, codes=1) + struct.pack(">H", 4) + b"EVIL" + bytes(12),
        b"S" + struct.pack(">I", 2) + b"{}",
        b"R" + struct.pack(">I", 900) + json.dumps({"kind": ["exe", 1, 1, 1, 1, 1], "notes": []}).encode().ljust(900),
        b"F",
    ],
)
def test_a_child_that_lies_harms_nobody(wild: Cage, lie: bytes) -> None:
    seen = look(wild, b"MISBEHAVE:say:" + lie)

    assert seen.report.reason is Reason.CRASHED
    assert not seen.frames


def test_a_flood_of_messages_ends(wild: Cage) -> None:
    assert look(wild, b"MISBEHAVE:flood").report.reason is Reason.CRASHED


def test_a_child_killed_from_outside_is_unreached() -> None:
    with MisbehavingCage(Limits(wall_seconds=20)) as cage:
        cage.start()
        server = cage._running()._process.pid
        failures: list[Unreached] = []

        def looking() -> None:
            try:
                look(cage, b"MISBEHAVE:sleep")
            except Unreached as error:
                failures.append(error)

        thread = threading.Thread(target=looking)
        thread.start()
        os.kill(_child_of(server), signal.SIGKILL)
        thread.join(10)

    assert len(failures) == 1
    assert "killed from outside" in str(failures[0])


def test_a_dead_nursery_costs_one_look_and_is_replaced() -> None:
    with MisbehavingCage(Limits(wall_seconds=20)) as cage:
        cage.start()
        server = cage._running()._process.pid
        with cage.look(blob(b"MISBEHAVE:sleep")) as peek:
            os.kill(server, signal.SIGKILL)
            with pytest.raises(Unreached):
                list(peek.frames())
        after = look(cage, make.still("png", 20, 20))

    assert after.report.reason is None


def test_leaving_early_ends_the_child(cage: Cage) -> None:
    server = cage._running()._process.pid
    idle = _children_of(server)
    big = make.pages([make.scene(600, 500, n) for n in range(12)])
    with cage.look(blob(big)) as peek:
        next(peek.frames())

    deadline = time.monotonic() + 5
    while not _children_of(server) <= idle and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _children_of(server) <= idle


def test_many_threads_look_at_once(cage: Cage) -> None:
    files = [make.still("jpeg", 60 + n, 40, n) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda data: look(cage, data), files))

    assert [s.frames[0].width for s in seen] == [60 + n for n in range(24)]


def test_a_child_does_not_outlive_its_share_of_objects() -> None:
    with Cage(Limits(objects_per_child=3)) as cage:
        cage.start()
        server = cage._running()._process.pid
        seen = set()
        for _ in range(7):
            look(cage, make.still("png", 20, 20))
            seen |= _children_of(server)

    assert len(seen) >= 2


def test_a_failure_in_a_used_child_is_tried_again_in_a_fresh_one(wild: Cage) -> None:
    look(wild, make.still("png", 20, 20))
    before = wild._running()._last

    assert look(wild, b"MISBEHAVE:exit").report.reason is Reason.CRASHED
    assert wild._running()._last > before


def test_the_end_of_the_program_ends_everything_in_the_cage() -> None:
    code = (
        "import sys, os, signal\n"
        "from fediwarden.media import Cage, Limits\n"
        "from tests.support.looking import look\n"
        "from tests.support import media_makers as make\n"
        "cage = Cage(Limits()); look(cage, make.still('png', 20, 20))\n"
        "print(cage._running()._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parents[3], check=False)
    server = int(ran.stdout)

    deadline = time.monotonic() + 5
    while Path(f"/proc/{server}/cmdline").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{server}/cmdline").exists()


def test_importing_media_loads_no_decoder() -> None:
    code = (
        "import sys, fediwarden.media as m; m.Cage; m.Limits; m.Report; m.Peek\n"
        "print([n for n in ('PIL', 'av', 'numpy', 'zxingcpp') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"


def test_the_version_follows_what_is_seen_and_nothing_else(cage: Cage) -> None:
    with Cage(Limits(wall_seconds=9.0)) as patient, Cage(Limits(frame_bound=9)) as hasty:
        assert patient.version == cage.version
        assert hasty.version != cage.version


def test_the_cage_works_for_an_unprivileged_user(python_for_nobody: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("this run is unprivileged already")
    code = (
        "import os, sys\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "from fediwarden.media import Cage, Limits\n"
        "from fediwarden.model import Blob, ObjectRef\n"
        "data = sys.stdin.buffer.read()\n"
        "with Cage(Limits()) as cage, cage.look(Blob.of(ObjectRef('s', 'a.mp4', 1, ''), data)) as peek:\n"
        "    print(all(cage.layers.values()), len(list(peek.frames())), peek.report.reason)\n"
    )
    ran = subprocess.run([python_for_nobody, "-I", "-c", code], input=make.movie("mp4", 5), capture_output=True, check=False)

    assert ran.stdout.decode().strip() == "True 5 None", ran.stderr.decode()


def _children_of(process: int) -> set[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return {int(child) for child in listed}


def _child_of(process: int) -> int:
    """The child that sleeps in an order, waited for."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = _children_of(process)
        if len(children) == 1:
            time.sleep(0.2)
            return children.pop()
        time.sleep(0.02)
    raise AssertionError("no child came")
