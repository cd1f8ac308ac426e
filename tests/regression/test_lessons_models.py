"""Row H5 of the lessons for models that come from a hub: broken downloads, kills half way, two at once, pickles."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.hub_server import WEIGHTS, HubServer, as_catalogue, at_once, hub_server, left_of, tiny
from tests.support.processes import started
from tests.support.waiting import until

from fediwarden.errors import Misconfigured
from fediwarden.inference import folder, obtain, registry
from fediwarden.inference.hub import Hub
from fediwarden.inference.manifest import ModelFile, ModelManifest, Role

ENTRY, FILES = tiny(side=1000)  # eight megabytes, so that there is a half way
WHOLE = {"tiny-clip", "tiny-clip/manifest.toml", f"tiny-clip/{WEIGHTS}", "tiny-clip/tokenizer.json"}
ROOT = Path(__file__).parents[2]
PULL = """
import sys
from pathlib import Path
from fediwarden.inference import catalogue, obtain
from fediwarden.inference.hub import Hub
entry = catalogue.find("tiny-clip", catalogue.known(Path(sys.argv[2])))
got = obtain.pull(Path(sys.argv[1]), entry, Hub(sys.argv[3]), lambda line: print(line, flush=True))
print("fresh" if got.fresh else "was there", flush=True)
"""
CHANGE = """
import os, shutil, signal, sys
from dataclasses import replace
from pathlib import Path
from fediwarden.inference import folder, registry
from fediwarden.inference.manifest import Role
original, work = Path(sys.argv[1]), Path(sys.argv[2])
exchanges = sys.argv[3] == "exchange"
tower = work / "image-fp16.onnx"
tower.write_bytes(b"a tower")
weighed = registry.weigh(tower, Role.IMAGE, precision="fp16")
for fatal in range(1, 200):
    copy = work / f"models-{fatal}"
    shutil.copytree(original, copy)
    child = os.fork()
    if child == 0:
        passed = 0
        def count(event, arguments):
            global passed
            if event in ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "ctypes.dlsym"):
                passed += 1
                if passed == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
        if not exchanges:
            folder._exchange = lambda one, other: False
        sys.addaudithook(count)
        registry.replace_files(copy, "tiny-clip", lambda before: replace(before, files=(*before.files, weighed)), {tower.name: tower})
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(fatal)
        break
"""


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server(FILES) as running:
        yield running


@pytest.fixture
def catalogue_file(tmp_path: Path) -> Path:
    file = tmp_path / "catalogue.toml"
    file.write_text(as_catalogue(ENTRY))
    return file


def start_pull(home: Path, catalogue_file: Path, server: HubServer) -> "subprocess.Popen[str]":
    return started(
        subprocess.Popen(
            [sys.executable, "-c", PULL, str(home), str(catalogue_file), server.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
    )


def test_h5_a_pull_killed_half_way_leaves_no_half_model_and_the_next_one_goes_on(
    server: HubServer, tmp_path: Path, catalogue_file: Path
) -> None:
    home = tmp_path / "models"
    server.moods[WEIGHTS].slow = 0.005
    first = start_pull(home, catalogue_file, server)
    until(lambda: obtain.leftovers(home).get("tiny-clip", 0) > 2_000_000)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (home / "tiny-clip").exists()
    server.moods[WEIGHTS].slow = 0

    second = start_pull(home, catalogue_file, server)
    said, _ = second.communicate(timeout=60)

    assert "fresh" in said
    assert left_of(home) == WHOLE
    assert (home / "tiny-clip" / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert int(server.ranges(WEIGHTS)[-1].removeprefix("bytes=").rstrip("-")) > 2_000_000


def test_h5_two_pulls_of_one_model_fetch_it_once(server: HubServer, tmp_path: Path, catalogue_file: Path) -> None:
    home = tmp_path / "models"
    server.moods[WEIGHTS].slow = 0.002
    pulls = [start_pull(home, catalogue_file, server)]
    until(lambda: obtain.leftovers(home).get("tiny-clip", 0) > 0)
    pulls.append(start_pull(home, catalogue_file, server))

    said = [pull.communicate(timeout=60)[0] for pull in pulls]

    assert [pull.returncode for pull in pulls] == [0, 0]
    assert "fresh" in said[0]
    assert "another command is pulling tiny-clip; waiting for it" in said[1]
    assert "was there" in said[1]
    assert server.ranges(WEIGHTS) == [""]
    assert left_of(home) == WHOLE


@pytest.mark.parametrize("way", ["exchange", "two steps"])
def test_h5_a_change_killed_at_any_step_leaves_the_model_as_it_was_or_as_it_should_be(
    server: HubServer, tmp_path: Path, way: str
) -> None:
    """Killed before every single step that touches the disk; also where the file system cannot exchange two names."""
    home, work = tmp_path / "models", tmp_path / "work"
    work.mkdir()
    before = obtain.pull(home, ENTRY, Hub(server.address)).manifest
    done = subprocess.run(
        [sys.executable, "-c", CHANGE, str(home), str(work), way], capture_output=True, text=True, cwd=ROOT, check=True
    )
    steps = int(done.stdout)
    assert steps > 20
    became = set()
    for fatal in range(1, steps):
        killed = work / f"models-{fatal}"
        with folder.locked(killed):
            folder.sweep(killed)  # as the next command that changes the folder does

        after = registry.manifest_of(killed, "tiny-clip")
        towers = [file for file in after.files if file.role is Role.IMAGE]
        became.add(len(towers))
        assert set(after.files) - set(towers) == set(before.files)
        assert all(registry.state(killed, after, file) is registry.FileState.OK for file in after.files)
        assert left_of(killed) == WHOLE | {f"tiny-clip/{file.name}" for file in towers}
        shutil.rmtree(killed)
    assert became == {0, 1}


def test_h5_what_is_still_being_built_is_not_swept_and_what_a_killed_one_left_is(server: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "models"
    obtain.pull(home, ENTRY, Hub(server.address))
    (home / ".building-tiny-clip-left").mkdir()

    with folder.workspace(home, "tiny-clip") as mine:
        (mine / "tower").write_text("half")
        with folder.workspace(home, "tiny-clip") as other:
            assert mine != other
        assert [path.name for path in home.glob(".building-*")] == [mine.name]
        assert (mine / "tower").exists()
    assert left_of(home) == WHOLE


def test_h5_a_broken_or_exchanged_download_never_stays(server: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "models"
    server.moods[WEIGHTS].linked = sha256(b"something else").hexdigest()

    for _ in range(2):
        with pytest.raises(Misconfigured, match="SHA-256"):
            obtain.pull(home, ENTRY, Hub(server.address, sleep=at_once))
        assert left_of(home) == set()


def test_h5_a_pickle_is_refused_under_whatever_name_it_comes(server: HubServer, tmp_path: Path) -> None:
    server.files[WEIGHTS] = b"PK\x03\x04" + bytes(1000)

    with pytest.raises(Misconfigured, match="is a pickle, which is a program"):
        obtain.pull(tmp_path / "models", ENTRY, Hub(server.address, sleep=at_once))
    assert left_of(tmp_path / "models") == set()


def test_h5_what_was_pulled_is_hashed_at_every_load(server: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "models"
    manifest = obtain.pull(home, ENTRY, Hub(server.address)).manifest
    (source,) = (file for file in manifest.files if file.role is Role.SOURCE)
    assert registry.read_file(home, manifest, source) == FILES[WEIGHTS]
    with (home / "tiny-clip" / WEIGHTS).open("r+b") as out:
        out.seek(-1, os.SEEK_END)
        out.write(bytes([FILES[WEIGHTS][-1] ^ 1]))

    with pytest.raises(Misconfigured, match="altered") as caught:
        registry.read_file(home, manifest, source)
    assert "models pull tiny-clip" in caught.value.hint


def test_h5_a_file_that_is_not_what_was_weighed_is_not_taken_in(server: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "models"
    before = obtain.pull(home, ENTRY, Hub(server.address)).manifest
    tower = tmp_path / "image-fp16.onnx"
    tower.write_bytes(b"a tower")
    other = ModelFile(tower.name, sha256(b"another").hexdigest(), 7, Role.IMAGE, "fp16")

    def change(now: ModelManifest) -> ModelManifest:
        return ModelManifest(
            now.name, now.measures, now.licence, now.input, now.precision, now.origin, (*now.files, other), now.image_text
        )

    with pytest.raises(Misconfigured, match="SHA-256 or size"):
        registry.replace_files(home, "tiny-clip", change, {tower.name: tower})
    assert registry.manifest_of(home, "tiny-clip") == before
    assert left_of(home) == WHOLE
