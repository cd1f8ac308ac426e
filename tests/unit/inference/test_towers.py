"""Choosing a tower, and refusing one that is not what its manifest says."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.clip_models import SIDE, add_texts, make_clip_model, tower

from fediwarden.errors import Misconfigured, Unreached
from fediwarden.inference import registry
from fediwarden.inference.manifest import MANIFEST, ModelManifest, Role, as_toml
from fediwarden.inference.towers import Tower, check, choose, text_vectors, trial_pixels
from fediwarden.model import ConceptGroup, Concepts

CONCEPTS = Concepts((ConceptGroup("red_things", ("a tomato", "a fire engine")),), ("a wall", "fog"), ("{}",))


@pytest.fixture
def made(tmp_path: Path) -> ModelManifest:
    return make_clip_model(tmp_path, CONCEPTS, precisions=("fp32", "int8", "fp16"))


@pytest.mark.parametrize(
    ("there", "device", "precision", "expected"),
    [
        (("cpu",), "", "", ("int8", "cpu")),
        (("cuda", "cpu"), "", "", ("fp16", "cuda")),
        (("cuda", "cpu"), "cpu", "", ("int8", "cpu")),
        (("cpu",), "", "fp32", ("fp32", "cpu")),
        (("tensorrt", "openvino", "cpu"), "", "", ("int8", "cpu")),
        (("openvino", "cpu"), "openvino", "", ("fp16", "openvino")),
    ],
)
def test_precision_and_device_are_chosen_by_what_there_is(
    made: ModelManifest, there: tuple[str, ...], device: str, precision: str, expected: tuple[str, str]
) -> None:
    choice = choose([made], precision=precision, device=device, there=there)

    assert (choice.precision, choice.device) == expected
    assert choice.forced == bool(device)


def test_a_model_without_a_tower_is_not_chosen(made: ModelManifest) -> None:
    bare = replace(made, name="bare", files=tuple(file for file in made.files if file.role is not Role.IMAGE))

    assert choose([bare, made], there=("cpu",)).manifest is made
    with pytest.raises(Misconfigured, match="bare") as caught:
        choose([bare, made], model="bare", there=("cpu",))
    assert "models build" in caught.value.hint


def test_a_precision_or_device_that_is_not_there_is_said_with_what_there_is(tmp_path: Path) -> None:
    made = make_clip_model(tmp_path, CONCEPTS)

    with pytest.raises(Misconfigured, match="int8") as caught:
        choose([made], precision="int8", there=("cpu",))
    assert "--precision int8" in caught.value.hint
    with pytest.raises(Misconfigured, match="cuda") as caught:
        choose([made], device="cuda", there=("cpu",))
    assert "cpu" in caught.value.hint


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_gives_unit_embeddings(tmp_path: Path, made: ModelManifest, precision: str) -> None:
    built = Tower(tmp_path, choose([made], precision=precision, there=("cpu",)))

    found = built.embed(trial_pixels(made, 5))

    assert found.shape == (5, 4)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(5), abs=1e-2)
    assert built.device == "cpu"
    assert not built.drifts


def altered(models_dir: Path, made: ModelManifest, data: bytes, *, fitting: bool) -> ModelManifest:
    """The fp32 tower exchanged for other bytes, with a manifest that fits them or does not."""
    (models_dir / made.name / "image-fp32.onnx").write_bytes(data)
    if not fitting:
        return made
    files = tuple(
        replace(file, sha256=sha256(data).hexdigest(), size=len(data)) if file.name == "image-fp32.onnx" else file
        for file in made.files
    )
    changed = replace(made, files=files)
    (models_dir / made.name / MANIFEST).write_text(as_toml(changed))
    return changed


@pytest.mark.parametrize("data", [tower()[:-40], b"", tower("int8")], ids=["cut short", "empty", "swapped"])
def test_a_tower_cut_short_or_swapped_is_refused_before_it_is_loaded(tmp_path: Path, made: ModelManifest, data: bytes) -> None:
    changed = altered(tmp_path, made, data, fitting=False)

    with pytest.raises(Misconfigured, match="altered") as caught:
        Tower(tmp_path, choose([changed], precision="fp32", there=("cpu",)))
    assert "\n" not in str(caught.value)


def test_half_a_model_with_a_fitting_hash_is_refused_by_the_runtime(tmp_path: Path, made: ModelManifest) -> None:
    changed = altered(tmp_path, made, tower()[:-40], fitting=True)

    with pytest.raises(Misconfigured, match="does not accept"):
        Tower(tmp_path, choose([changed], precision="fp32", there=("cpu",)))


@pytest.mark.parametrize("field", ["dimensions", "size"])
def test_a_tower_of_another_architecture_is_refused(tmp_path: Path, made: ModelManifest, field: str) -> None:
    assert made.image_text is not None
    other = (
        replace(made.image_text, dimensions=5)
        if field == "dimensions"
        else replace(made.image_text, image=replace(made.image_text.image, size=SIDE + 1))
    )

    with pytest.raises(Misconfigured, match="another architecture"):
        Tower(tmp_path, choose([replace(made, image_text=other)], precision="fp32", there=("cpu",)))


def test_a_tower_that_answers_with_rubbish_is_refused(made: ModelManifest) -> None:
    class Rubbish:
        def run(
            self, batch: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
        ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return np.full((len(batch), 4), np.nan, np.float32)

    with pytest.raises(Misconfigured, match="rubbish"):
        check(Rubbish(), made, "m")


class Zeros:
    """A device that answers, and computes nothing."""

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.zeros((len(batch), 4), np.float32)


def test_an_answer_that_is_no_embedding_leaves_the_object_unreached(tmp_path: Path, made: ModelManifest) -> None:
    embedder = Tower(tmp_path, choose([made], precision="fp32", there=("cpu",)))
    embedder._session = Zeros()

    with pytest.raises(Unreached, match="rubbish"):
        embedder.embed(trial_pixels(made, 2))


def test_texts_are_those_of_these_concepts_or_none(tmp_path: Path, made: ModelManifest) -> None:
    other = replace(CONCEPTS, controls=("a wall",))

    assert text_vectors(tmp_path, made, CONCEPTS).shape == (4, 4)
    with pytest.raises(Misconfigured, match="not embedded") as caught:
        text_vectors(tmp_path, made, other)
    assert "models build tiny-clip" in caught.value.hint
    assert text_vectors(tmp_path, add_texts(tmp_path, made, other), other).shape == (3, 4)


def test_texts_of_other_concepts_under_this_name_are_refused(tmp_path: Path, made: ModelManifest) -> None:
    other = replace(CONCEPTS, controls=("a hedge", "rain"))
    files = tuple(replace(file, concepts=other.digest) if file.role is Role.TEXT else file for file in made.files)
    lying = replace(made, files=files)
    (tmp_path / made.name / MANIFEST).write_text(as_toml(lying))

    with pytest.raises(Misconfigured, match="other embeddings"):
        text_vectors(tmp_path, lying, other)


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path, made: ModelManifest) -> None:
    assert registry.image_text(tmp_path) == (made,)
    assert made.precisions == ("int8", "fp16", "fp32")
