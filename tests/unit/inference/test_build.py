"""`whole.build` on tiny models with random weights: what it makes, keeps, refuses, and leaves as it was."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support import clip_weights
from tests.support.clip_weights import TINY, TINY_SIGLIP, Sizes
from tests.support.disks import largest_file
from tests.support.pulled_models import CONCEPTS, pulled

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.inference import manifest as manifests
from fediwarden.inference import towers
from fediwarden.inference.build import exported, transformer, weights, whole
from fediwarden.inference.build.graph import Graph
from fediwarden.inference.manifest import ImageText, ModelManifest, Role


def read(models_dir: Path) -> ModelManifest:
    return manifests.read(models_dir / "tiny")


def image_text(manifest: ModelManifest) -> ImageText:
    assert manifest.image_text is not None
    return manifest.image_text


def leftovers(models_dir: Path) -> list[str]:
    return [entry.name for entry in models_dir.iterdir() if entry.is_dir() and entry.name != "tiny"]


@pytest.mark.parametrize(("sizes", "architecture"), [(TINY, "ViT-B-32-quickgelu"), (TINY_SIGLIP, "ViT-B-16-SigLIP2")])
def test_a_pulled_model_is_built_whole_and_can_be_used(tmp_path: Path, sizes: Sizes, architecture: str) -> None:
    models_dir = pulled(tmp_path, sizes, architecture)
    said: list[str] = []

    built = whole.build(models_dir, "tiny", CONCEPTS, ("fp32", "int8", "fp16"), said.append)

    assert (built.manifest, built.towers, built.texts) == (read(models_dir), ("fp32", "int8", "fp16"), 5)
    assert {one.precision: one.pictures for one in image_text(built.manifest).agreements} == {"int8": 48, "fp16": 48}
    assert all(one.least > whole.LEAST[one.precision] for one in image_text(built.manifest).agreements)
    assert "writing the image tower in int8" in said
    assert leftovers(models_dir) == []
    for precision in ("fp32", "int8", "fp16"):
        tower = towers.Tower(models_dir, towers.choose([built.manifest], precision=precision, device="cpu"))
        found = tower.embed(np.zeros((2, 3, sizes.size, sizes.size), np.float32))
        assert found.shape == (2, sizes.dimensions)
    vectors = towers.text_vectors(models_dir, built.manifest, CONCEPTS)
    assert vectors.shape == (5, sizes.dimensions)
    assert len({row.tobytes() for row in vectors}) == 5


def test_a_second_build_makes_nothing_and_new_words_make_words_only(tmp_path: Path) -> None:
    models_dir = pulled(tmp_path)
    first = whole.build(models_dir, "tiny", CONCEPTS, ("fp32",))
    other = replace(CONCEPTS, controls=("a flower",))

    second = whole.build(models_dir, "tiny", CONCEPTS, ("fp32",))
    third = whole.build(models_dir, "tiny", other, ("fp32",))

    assert (second.manifest, second.towers, second.texts) == (first.manifest, (), 0)
    assert (third.towers, third.texts) == ((), 4)
    assert towers.text_vectors(models_dir, third.manifest, other).shape[0] == 4
    assert towers.text_vectors(models_dir, third.manifest, CONCEPTS).shape[0] == 5


def test_again_builds_what_is_there_to_the_same_bytes(tmp_path: Path) -> None:
    models_dir = pulled(tmp_path)
    first = whole.build(models_dir, "tiny", CONCEPTS, ("fp32", "int8"))

    second = whole.build(models_dir, "tiny", CONCEPTS, ("fp32", "int8"), again=True)

    assert (second.towers, second.texts) == (("fp32", "int8"), 5)
    assert sorted(file.sha256 for file in second.manifest.files) == sorted(file.sha256 for file in first.manifest.files)


def test_without_a_precision_named_a_machine_without_a_gpu_gets_int8_and_fp32(tmp_path: Path) -> None:
    built = whole.build(pulled(tmp_path), "tiny", None)

    assert set(built.manifest.precisions) >= {"int8", "fp32"}
    assert built.manifest.only(Role.TEXT) is None


def test_int8_alone_is_compared_with_an_fp32_tower_that_is_not_kept(tmp_path: Path) -> None:
    built = whole.build(pulled(tmp_path), "tiny", None, ("int8",))

    assert built.manifest.precisions == ("int8",)
    assert [one.precision for one in built.agreements] == ["int8"]


def test_discarded_weights_are_gone_and_needed_again_for_other_words(tmp_path: Path) -> None:
    models_dir = pulled(tmp_path)

    built = whole.build(models_dir, "tiny", CONCEPTS, ("fp32",), discard_source=True)

    assert not (models_dir / "tiny" / "source.safetensors").exists()
    assert built.manifest.only(Role.SOURCE) is None
    assert whole.build(models_dir, "tiny", CONCEPTS, ("fp32",), discard_source=True).towers == ()
    with pytest.raises(Misconfigured, match="were discarded"):
        whole.build(models_dir, "tiny", replace(CONCEPTS, controls=("a flower",)), ("fp32",))


def test_a_tower_that_drifts_too_far_is_not_kept_and_the_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models_dir = pulled(tmp_path)
    monkeypatch.setitem(whole.LEAST, "int8", 0.99999999)

    built = whole.build(models_dir, "tiny", CONCEPTS, ("fp32", "int8"))

    assert built.manifest.precisions == ("fp32",)
    (refusal,) = built.refused
    assert refusal.precision == "int8"
    assert "under the bound of 0.99999999" in refusal.why
    assert image_text(built.manifest).agreements == ()
    assert not (models_dir / "tiny" / "image-int8.onnx").exists()


def test_what_the_pictures_say_of_drift_is_the_cosine_between_the_embeddings() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    turned = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)

    found = whole.agree("int8", turned, reference)

    assert (found.pictures, found.mean, found.least) == (2, 0.9, 0.8)


def test_weights_that_are_no_numbers_are_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    def spoil(tensors: dict[str, NDArray[np.float32]]) -> None:
        tensors["visual.transformer.resblocks.1.mlp.c_fc.weight"][3, 3] = np.nan

    models_dir = pulled(tmp_path, change=spoil)
    before = read(models_dir)

    with pytest.raises(Misconfigured, match=r"not finite in visual\.transformer\.resblocks\.1\.mlp\.c_fc\.weight"):
        whole.build(models_dir, "tiny", CONCEPTS, ("fp32",))

    assert read(models_dir) == before
    assert leftovers(models_dir) == []


def test_a_tower_that_answers_with_no_numbers_is_refused(tmp_path: Path) -> None:
    def overflow(tensors: dict[str, NDArray[np.float32]]) -> None:
        tensors["visual.proj"] *= np.float32(1e30)
        tensors["visual.ln_post.weight"] *= np.float32(1e30)

    models_dir = pulled(tmp_path, change=overflow)

    with pytest.raises(Misconfigured, match="what is no number"):
        whole.build(models_dir, "tiny", None, ("fp32",))

    assert read(models_dir).precisions == ()


def test_a_tower_whose_answer_depends_on_the_other_pictures_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mixing(self: Graph, value: str, name: str, shape: list[int | str]) -> None:
        mixed = self.op("Add", value, self.op("ReduceMean", value, self.shape(0), keepdims=1))
        honest(self, self.op("Div", mixed, self.op("ReduceL2", mixed, self.shape(-1), keepdims=1)), name, shape)

    models_dir = pulled(tmp_path)
    honest = Graph.output
    monkeypatch.setattr(Graph, "output", mixing)

    with pytest.raises(Misconfigured, match="among others"):
        whole.build(models_dir, "tiny", None, ("fp32",))


def test_weights_altered_on_the_disk_are_not_built_upon(tmp_path: Path) -> None:
    models_dir = pulled(tmp_path)
    with (models_dir / "tiny" / "source.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")

    with pytest.raises(Misconfigured, match="was altered") as caught:
        whole.build(models_dir, "tiny", CONCEPTS, ("fp32",))

    assert caught.value.hint.startswith("run `fediwarden models pull tiny`")


def test_weights_of_another_architecture_leave_everything_as_it_was(tmp_path: Path) -> None:
    models_dir = pulled(tmp_path, architecture="ViT-B-16-SigLIP2")

    with pytest.raises(Misconfigured, match="does not hold the weights of this architecture"):
        whole.build(models_dir, "tiny", CONCEPTS, ("fp32",))

    assert read(models_dir).precisions == ()
    assert leftovers(models_dir) == []


def test_an_architecture_that_needs_pytorch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "find_spec", lambda _: None)

    with pytest.raises(
        Misconfigured, match=r"MobileCLIP2-S2 is no plain vision transformer.*missing: torch, open_clip"
    ) as caught:
        whole.build(pulled(tmp_path, architecture="MobileCLIP2-S2"), "tiny", CONCEPTS)

    assert "fediwarden[build-torch]" in caught.value.hint


def test_a_model_without_a_tokenizer_says_which_files_would_do(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no tokenizer came with the model") as caught:
        whole.build(pulled(tmp_path, with_tokenizer=False), "tiny", CONCEPTS, ("fp32",))

    assert "tokenizer.json" in caught.value.hint


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    models_dir = pulled(tmp_path, replace(TINY, words=40))

    with pytest.raises(Misconfigured, match="names token 599") as caught:
        whole.build(models_dir, "tiny", CONCEPTS, ("fp32",))

    assert "pull them together" in caught.value.hint


@pytest.mark.parametrize(("name", "precisions", "said"), [("other", (), "not installed"), ("../tiny", (), "not installed")])
def test_a_model_that_is_not_there_says_how_to_get_it(tmp_path: Path, name: str, precisions: tuple[str, ...], said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        whole.build(pulled(tmp_path), name, None, precisions)


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no precision int4"):
        whole.build(pulled(tmp_path), "tiny", None, ("int4",))


def test_a_full_disk_stops_it_and_installs_nothing_half(tmp_path: Path) -> None:
    models_dir = pulled(tmp_path)
    before = read(models_dir)

    with largest_file(2_000_000), pytest.raises(CannotWrite):
        whole.build(models_dir, "tiny", CONCEPTS, ("fp32", "int8", "fp16"))

    assert read(models_dir) == before
    assert leftovers(models_dir) == []


def test_weights_of_sixteen_bits_build_as_those_of_thirty_two(tmp_path: Path) -> None:
    tensors = clip_weights.random_tensors(TINY)
    upper = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in tensors.items()}
    cut = {name: (array.astype(np.uint32) << 16).view(np.float32) for name, array in upper.items()}
    clip_weights.save(tmp_path / "short.safetensors", upper, dict.fromkeys(upper, "BF16"))

    with weights.opened(tmp_path / "short.safetensors") as found:
        read = {name: found.read(name).copy() for name in found.names}

    assert all(np.array_equal(read[name], cut[name]) for name in cut)


@pytest.mark.parametrize("size", [0, 4, 100, 2000, 200_000])
def test_a_cut_weights_file_is_refused(tmp_path: Path, size: int) -> None:
    clip_weights.save(tmp_path / "whole.safetensors", clip_weights.random_tensors(TINY))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:size])

    with (
        pytest.raises(Misconfigured, match=r"cut\.safetensors is not a safetensors file"),
        weights.opened(tmp_path / "cut.safetensors") as found,
    ):
        found.read("visual.proj")


@pytest.mark.parametrize(
    "header",
    [
        b"{}x",
        b"[1, 2]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [400, 404]}}',
        b'{"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}',
        b"\xff\xfe",
    ],
)
def test_a_weights_file_with_a_strange_header_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)

    with pytest.raises(Misconfigured, match="not a safetensors file"), weights.opened(tmp_path / "odd.safetensors"):
        pass


def test_the_names_of_inputs_and_outputs_are_the_documented_ones() -> None:
    assert (transformer.IMAGE_INPUT, transformer.IMAGE_OUTPUT) == ("pixel_values", "image_embeds")
