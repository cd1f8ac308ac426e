"""Installing, listing and verifying models; what bad days do to them is in `tests/regression`."""

import shutil
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.models import models  # noqa: F401 - a fixture

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.inference import registry
from fediwarden.inference.registry import Check, FileState
from fediwarden.inference.sessions import OnnxSession


def own_model(folder: Path, name: str = "my-model", file: str = "weights.onnx", data: bytes = b"numbers") -> Path:
    """A model that is not bundled, with a sound manifest."""
    place = folder / name
    place.mkdir(parents=True)
    if "/" not in file:
        (place / file).write_bytes(data)
    (place / "manifest.toml").write_text(
        f'name = "{name}"\nmeasures = "m"\nlicence = "l"\ninput = "i"\nprecision = "fp32"\n'
        f'[origin]\npackage = "p"\nversion = "1"\nwheel = "w"\nmember = "m"\nsha256 = "s"\nsize = 1\n'
        f'[[file]]\nname = "{file}"\nsha256 = "{sha256(data).hexdigest()}"\nsize = {len(data)}\n'
    )
    return place


def test_the_bundled_models_install_list_and_verify(models: Path) -> None:  # noqa: F811
    names = {manifest.name for manifest in registry.installed(models)}

    assert {"nudenet-320n", "open-nsfw", "age-v1", "face-landmarks-5"} == set(registry.bundled()) <= names
    assert {check.state for check in registry.verify(models) if check.model in registry.bundled()} == {FileState.OK}
    assert all(manifest.licence and manifest.measures for manifest in registry.installed(models))


def test_installing_twice_does_nothing_and_needs_no_network(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setitem(sys.modules, "pip", None)
    said: list[str] = []

    assert registry.install(models, said.append) == ()
    assert said == []


def test_an_empty_folder_lists_nothing_and_misses_every_bundled_model(tmp_path: Path) -> None:
    assert registry.installed(tmp_path / "none") == ()
    assert {check.state for check in registry.verify(tmp_path / "none")} == {FileState.MISSING}
    with pytest.raises(Misconfigured, match="not installed") as caught:
        registry.load(tmp_path, "open-nsfw")
    assert "models install" in caught.value.hint


def test_a_model_of_ones_own_is_listed_verified_and_loaded(tmp_path: Path) -> None:
    place = own_model(tmp_path)

    assert [manifest.name for manifest in registry.installed(tmp_path)] == ["my-model"]
    assert Check("my-model", "weights.onnx", FileState.OK) in registry.verify(tmp_path)
    assert registry.load(tmp_path, "my-model").only == b"numbers"

    (place / "weights.onnx").unlink()
    assert Check("my-model", "weights.onnx", FileState.MISSING) in registry.verify(tmp_path)


@pytest.mark.parametrize(
    "file", ["weights.pkl", "weights.pt", "weights.npy", "../my-model/weights.onnx", ".hidden.onnx", "/etc/x.npz"]
)
def test_a_manifest_names_plain_files_of_numbers_only(tmp_path: Path, file: str) -> None:
    own_model(tmp_path, file=file)

    with pytest.raises(Misconfigured, match="plain name"):
        registry.load(tmp_path, "my-model")
    assert Check("my-model", "manifest.toml", FileState.ALTERED) in registry.verify(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"name = 3", b"name = [", b'name = "my-model"\nfile = 7'])
def test_a_manifest_that_cannot_be_read_is_said_with_its_path(tmp_path: Path, content: bytes) -> None:
    (own_model(tmp_path) / "manifest.toml").write_bytes(content)

    with pytest.raises(Misconfigured, match=r"my-model/manifest\.toml"):
        registry.load(tmp_path, "my-model")


def test_another_model_under_a_bundled_name_is_refused(tmp_path: Path) -> None:
    own_model(tmp_path, name="open-nsfw", file="open-nsfw.onnx")

    with pytest.raises(Misconfigured, match="pins"):
        registry.load(tmp_path, "open-nsfw")


def test_without_pip_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)

    with pytest.raises(Misconfigured, match="pip") as caught:
        registry.install(tmp_path)
    assert "ensurepip" in caught.value.hint


def test_without_an_index_the_way_out_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(Misconfigured, match=r"could not fetch nudenet 3\.4\.2") as caught:
        registry.install(tmp_path / "models")
    assert "PIP_FIND_LINKS" in caught.value.hint
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [".lock"]


def test_an_index_that_offers_other_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with the right name and version, and with something else inside."""
    with zipfile.ZipFile(tmp_path / "nudenet-3.4.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nudenet/320n.onnx", b"not the model")
        wheel.writestr("nudenet-3.4.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: nudenet\nVersion: 3.4.2\n")
        wheel.writestr("nudenet-3.4.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("nudenet-3.4.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(Misconfigured, match="other bytes"):
        registry.install(tmp_path / "models")
    assert not (tmp_path / "models" / "nudenet-320n").exists()


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CannotWrite, match="models cannot be written"):
        registry.install(tmp_path / "file" / "models")


def test_bytes_that_are_no_model_are_refused_by_name() -> None:
    with pytest.raises(Misconfigured, match="nonsense"):
        OnnxSession(b"nothing of the kind", name="nonsense")


def test_without_the_runtime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(Misconfigured) as caught:
        OnnxSession(b"", name="any")
    assert caught.value.hint == "pip install 'fediwarden[cpu]'"


def test_what_an_interrupted_run_left_is_swept_by_the_next(tmp_path: Path, models: Path) -> None:  # noqa: F811
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    (copy / ".installing-abc" / "nudenet-320n").mkdir(parents=True)
    (copy / "nudenet-320n" / "320n.onnx").unlink()

    registry.install(copy)

    assert not list(copy.glob(".installing-*"))


def test_a_folder_that_cannot_be_entered_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):  # here because of its length, which stops root as well
        registry.load(tmp_path, "m" * 300)


def test_a_finished_install_that_was_killed_while_sweeping_is_swept_later(tmp_path: Path, models: Path) -> None:  # noqa: F811
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    (copy / ".installing-abc" / "wheel-0").mkdir(parents=True)

    assert registry.install(copy) == ()
    assert not list(copy.glob(".installing-*"))
