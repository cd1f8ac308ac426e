"""Rows of the defect tables that concern models, analysers and imports; each test is named after its row."""

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.models import bundled, models  # noqa: F401 - fixtures
from tests.support.pictures import drawn_face, frame_of

from fediwarden.analysers import age, explicit, exposed
from fediwarden.analysers.bundled import Bundled
from fediwarden.errors import Misconfigured
from fediwarden.inference import registry
from fediwarden.inference.registry import FileState
from fediwarden.inference.sessions import OnnxSession
from fediwarden.model import EngineVersion, Finding, Look, ObjectRef, Standing, StoreName


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Path:  # noqa: F811
    """Installed models that a test may damage."""
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    return folder


@pytest.mark.parametrize(
    "file", ["nudenet-320n/320n.onnx", "open-nsfw/open-nsfw.onnx", "age-v1/age-v1.onnx", "face-landmarks-5/landmarks.npz"]
)
def test_h5_a_model_altered_after_it_was_installed_is_refused_at_every_load(copy: Path, file: str) -> None:
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)

    with pytest.raises(Misconfigured, match="altered"):
        Bundled(copy)
    altered = [check for check in registry.verify(copy) if check.state is FileState.ALTERED]
    assert [f"{check.model}/{check.file}" for check in altered] == [file]


def test_h5_a_manifest_rewritten_to_fit_an_altered_model_is_refused(copy: Path) -> None:
    folder = copy / "open-nsfw"
    pinned = registry.load(copy, "open-nsfw").manifest.files[0]
    shutil.copy(copy / "age-v1" / "age-v1.onnx", folder / pinned.name)
    other = registry.load(copy, "age-v1").manifest.files[0]
    manifest = (folder / "manifest.toml").read_text()
    (folder / "manifest.toml").write_text(
        manifest.replace(pinned.sha256, other.sha256).replace(str(pinned.size), str(other.size))
    )

    with pytest.raises(Misconfigured, match="pins"):
        Bundled(copy)


def test_h5_an_install_killed_half_way_leaves_no_half_model_and_the_next_one_completes(copy: Path) -> None:
    """The process is killed, not asked, after the download and before the model is in its place."""
    shutil.rmtree(copy / "nudenet-320n")
    program = (
        "import os, signal, sys; from pathlib import Path; from fediwarden.inference import registry\n"
        "def said(line):\n"
        "    if line.startswith('installing'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "registry.install(Path(sys.argv[1]), said)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(copy)], check=False)

    assert killed.returncode == -signal.SIGKILL
    assert not (copy / "nudenet-320n").exists()
    with pytest.raises(Misconfigured, match="not installed"):
        Bundled(copy)
    assert registry.install(copy) == ("nudenet-320n",)
    assert Bundled(copy).analyse([frame_of(Image.new("RGB", (8, 8)))])
    assert not list(copy.glob(".installing-*"))


def test_h5_a_pickle_is_refused_even_with_a_fitting_hash(copy: Path) -> None:
    folder = copy / "age-v1"
    (folder / "age-v1.onnx").rename(folder / "age-v1.pkl")
    (folder / "manifest.toml").write_text(
        (folder / "manifest.toml").read_text().replace('name = "age-v1.onnx"', 'name = "age-v1.pkl"')
    )

    with pytest.raises(Misconfigured, match=r"\.onnx or \.npz"):
        registry.load(copy, "age-v1")


def test_h7_a_result_says_what_found_it_with_which_version_and_when(bundled: Bundled) -> None:  # noqa: F811
    at = datetime(2026, 5, 1, tzinfo=UTC)

    findings = tuple(bundled.analyse([frame_of(drawn_face(200))]))
    look = Look(
        ObjectRef(StoreName("s"), "k", 1, "e"), Standing.SEEN, at, engine=EngineVersion(bundled.version), findings=findings
    )

    assert look.at == at
    assert look.engine
    assert {finding.analyser for finding in findings} == {"bundled/exposed", "bundled/explicit", "bundled/age"}
    assert len({finding.version for finding in findings}) == 3
    assert all(len(finding.version) == 16 for finding in findings)


def test_h7_other_preprocessing_is_another_version(models: Path, bundled: Bundled, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("fediwarden.analysers.explicit.PREPROCESSING", "without the jpeg step")

    assert Bundled(models).version != bundled.version


def test_f20_the_device_is_told_and_is_the_one_asked_for(bundled: Bundled) -> None:  # noqa: F811
    assert bundled.device == "cpu"


def test_f21_each_model_runs_once_for_a_frame(models: Path) -> None:  # noqa: F811
    class Counting:
        def __init__(self, name: str) -> None:
            self.session = OnnxSession(registry.load(models, name).only, name=name)
            self.runs = 0

        def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            self.runs += 1
            return self.session.run(batch)

    sessions = {name: Counting(name) for name in (exposed.MODEL, explicit.MODEL, age.MODEL)}
    picture = drawn_face(400)
    both = Image.new("RGB", (800, 400))
    both.paste(picture, (0, 0))
    both.paste(picture, (400, 0))

    _, faces = exposed.Exposed(sessions[exposed.MODEL]).look(both)
    explicit.Explicit(sessions[explicit.MODEL]).look(both)
    landmarks = registry.load_landmarks(models, age.LANDMARK_MODEL)
    ages = age.Age(landmarks, sessions[age.MODEL]).look(np.asarray(both), both, faces)

    assert len(ages) == len(faces) == 2
    assert {name: counting.runs for name, counting in sessions.items()} == dict.fromkeys(sessions, 1)


def test_f22_an_analyser_always_answers_with_findings(bundled: Bundled) -> None:  # noqa: F811
    for size in ((1, 1), (1, 900), (64, 64)):
        found = bundled.analyse([frame_of(Image.new("RGB", size, "navy"))])

        assert [type(finding) for finding in found] == [Finding, Finding]
        assert all(isinstance(finding.score, float) for finding in found)
    assert bundled.analyse([]) == []


IMPORT_ALL = """
import importlib, os, pkgutil, sys, threading

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DENIED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.fork",
          "os.mkdir", "os.remove", "os.rename", "os.chmod", "sqlite3.connect", "signal.signal")

def watch(event, args):
    writes = event == "open" and args[2] is not None and args[2] & WRITING
    if (event in DENIED or writes) and not (writes and args[0] == os.devnull):
        raise RuntimeError(f"import caused {event} {args}")

sys.addaudithook(watch)
import fediwarden
names = [module.name for module in pkgutil.walk_packages(fediwarden.__path__, "fediwarden.") if module.name != "fediwarden.__main__"]
for name in names:
    importlib.import_module(name)
print(len(names), threading.active_count(), *sorted({"onnxruntime", "asyncssh"} & set(sys.modules)))
"""


def test_f19_importing_every_module_writes_connects_starts_and_loads_nothing_heavy(tmp_path: Path) -> None:
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path), "PATH": os.environ["PATH"]}

    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    count, threads, *heavy = done.stdout.split()
    assert int(count) > 15
    assert threads == "1"
    assert heavy == []
    assert list(tmp_path.iterdir()) == []
