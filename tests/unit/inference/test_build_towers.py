"""The towers that are written down here, held against the same arithmetic in plain numpy, on random weights."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support import clip_weights
from tests.support.clip_weights import Sizes

from fediwarden.errors import Misconfigured
from fediwarden.inference.build import architecture as architectures
from fediwarden.inference.build import transformer, weights
from fediwarden.inference.build.architecture import Activation
from fediwarden.inference.build.pictures import pictures
from fediwarden.inference.manifest import ImageInput, ImageText
from fediwarden.inference.sessions import OnnxSession, runtime

Array = NDArray[np.float64]

CLIP = Sizes(patch=14, size=56)
SIGLIP = Sizes("siglip", patch=16, size=48, length=64, dimensions=128, ratio=3.7362)


def plain_norm(tensors: Mapping[str, Array], name: str, value: Array, epsilon: float) -> Array:
    centred = value - value.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    found: Array = scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
    return found


def plain_linear(tensors: Mapping[str, Array], name: str, value: Array) -> Array:
    return value @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def plain_act(value: Array, act: Activation) -> Array:
    match act:
        case Activation.QUICK:
            found: Array = value / (1 + np.exp(-1.702 * value))
        case Activation.GELU:
            found = 0.5 * value * (1 + np.vectorize(math.erf)(value / math.sqrt(2)))
        case Activation.TANH:
            found = 0.5 * value * (1 + np.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))
    return found


def plain_attention(query: Array, key: Array, value: Array, head: int, *, causal: bool = False) -> Array:
    parts = []
    for start in range(0, query.shape[-1], head):
        one = slice(start, start + head)
        scores = query[..., one] @ key[..., one].swapaxes(-1, -2) / math.sqrt(head)
        if causal:
            scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        parts.append(shares / shares.sum(-1, keepdims=True) @ value[..., one])
    return np.concatenate(parts, -1)


def plain_block(
    tensors: Mapping[str, Array],
    names: tuple[str, ...],
    value: Array,
    head: int,
    act: Activation,
    epsilon: float,
    *,
    causal: bool = False,
) -> Array:
    before, joined, bias, out, between, up, down = names
    normed = plain_norm(tensors, before, value, epsilon)
    query, key, found = np.split(normed @ tensors[joined].T + tensors[bias], 3, -1)
    value = value + plain_linear(tensors, out, plain_attention(query, key, found, head, causal=causal))
    middle = plain_act(plain_linear(tensors, up, plain_norm(tensors, between, value, epsilon)), act)
    return value + plain_linear(tensors, down, middle)


def open_clip_names(prefix: str) -> tuple[str, ...]:
    last = ("ln_1", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    return tuple(f"{prefix}.{name}" for name in last)


def timm_names(prefix: str) -> tuple[str, ...]:
    last = ("norm1", "attn.qkv.weight", "attn.qkv.bias", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    return tuple(f"{prefix}.{name}" for name in last)


def plain_patches(kernel: Array, pixels: Array) -> Array:
    width, _, patch, _ = kernel.shape
    many, _, size, _ = pixels.shape
    side = size // patch
    cut = pixels.reshape(many, 3, side, patch, side, patch).transpose(0, 2, 4, 1, 3, 5).reshape(many, side * side, -1)
    return cut @ kernel.reshape(width, -1).T


def plain_clip_image(tensors: Mapping[str, Array], sizes: Sizes, pixels: Array, act: Activation) -> Array:
    value = plain_patches(tensors["visual.conv1.weight"], pixels)
    start = np.broadcast_to(tensors["visual.class_embedding"], (len(pixels), 1, sizes.image_width))
    value = np.concatenate([start, value], 1) + tensors["visual.positional_embedding"]
    value = plain_norm(tensors, "visual.ln_pre", value, 1e-5)
    for number in range(sizes.image_layers):
        value = plain_block(tensors, open_clip_names(f"visual.transformer.resblocks.{number}"), value, 64, act, 1e-5)
    found = plain_norm(tensors, "visual.ln_post", value[:, 0], 1e-5) @ tensors["visual.proj"]
    unit: Array = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def plain_siglip_image(tensors: Mapping[str, Array], sizes: Sizes, pixels: Array, act: Activation) -> Array:
    value = plain_patches(tensors["visual.trunk.patch_embed.proj.weight"], pixels)
    value = value + tensors["visual.trunk.patch_embed.proj.bias"] + tensors["visual.trunk.pos_embed"]
    for number in range(sizes.image_layers):
        value = plain_block(tensors, timm_names(f"visual.trunk.blocks.{number}"), value, 64, act, 1e-6)
    value = plain_norm(tensors, "visual.trunk.norm", value, 1e-6)
    pool = "visual.trunk.attn_pool"
    query = plain_linear(tensors, f"{pool}.q", np.broadcast_to(tensors[f"{pool}.latent"], (len(pixels), 1, sizes.image_width)))
    key, found = np.split(plain_linear(tensors, f"{pool}.kv", value), 2, -1)
    value = plain_linear(tensors, f"{pool}.proj", plain_attention(query, key, found, 64))
    middle = plain_act(plain_linear(tensors, f"{pool}.mlp.fc1", plain_norm(tensors, f"{pool}.norm", value, 1e-6)), act)
    found = (value + plain_linear(tensors, f"{pool}.mlp.fc2", middle))[:, 0]
    unit: Array = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def special(sizes: Sizes, name: str) -> ImageText:
    return ImageText(name, sizes.dimensions, 100.0, ImageInput(sizes.size, "longest", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))


def saved(folder: Path, sizes: Sizes) -> tuple[Path, dict[str, Array]]:
    tensors = clip_weights.random_tensors(sizes)
    clip_weights.save(folder / "source.safetensors", tensors)
    return folder / "source.safetensors", {name: array.astype(np.float64) for name, array in tensors.items()}


def built_image(source: Path, sizes: Sizes, name: str, precision: str) -> OnnxSession:
    known = architectures.known(name)
    assert known is not None
    path = source.with_name(f"{name}-{precision}.onnx")
    with weights.opened(source) as tensors:
        transformer.image_tower(tensors, known, special(sizes, name), precision).write(path)
    return OnnxSession(path.read_bytes(), name=name)


@pytest.mark.parametrize(("name", "act"), [("ViT-B-16-quickgelu", Activation.QUICK), ("ViT-B-16", Activation.GELU)])
def test_the_image_tower_of_a_clip_computes_what_the_architecture_says(tmp_path: Path, name: str, act: Activation) -> None:
    source, tensors = saved(tmp_path, CLIP)
    pixels = pictures(special(CLIP, name).image, 6)

    found = built_image(source, CLIP, name, "fp32").run(pixels)

    assert np.abs(found - plain_clip_image(tensors, CLIP, pixels.astype(np.float64), act)).max() < 1e-4


@pytest.mark.parametrize(("name", "act"), [("ViT-B-16-SigLIP2", Activation.GELU), ("ViT-B-32-SigLIP2-256", Activation.TANH)])
def test_the_image_tower_of_a_siglip_computes_what_the_architecture_says(tmp_path: Path, name: str, act: Activation) -> None:
    source, tensors = saved(tmp_path, SIGLIP)
    pixels = pictures(special(SIGLIP, name).image, 6)

    found = built_image(source, SIGLIP, name, "fp32").run(pixels)

    assert np.abs(found - plain_siglip_image(tensors, SIGLIP, pixels.astype(np.float64), act)).max() < 1e-4


@pytest.mark.parametrize(("sizes", "name"), [(CLIP, "ViT-B-16-quickgelu"), (SIGLIP, "ViT-B-16-SigLIP2")])
@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.9999), ("int8", 0.99)])
def test_a_tower_of_lower_precision_stays_near_and_takes_any_batch(
    tmp_path: Path, sizes: Sizes, name: str, precision: str, least: float
) -> None:
    source, _ = saved(tmp_path, sizes)
    pixels = pictures(special(sizes, name).image, 9)
    reference = built_image(source, sizes, name, "fp32").run(pixels)

    tower = built_image(source, sizes, name, precision)

    together = tower.run(pixels)
    alone = np.concatenate([tower.run(pixels[number : number + 1]) for number in range(len(pixels))])
    assert together.dtype == np.float32
    assert (together * reference).sum(1).min() > least
    assert np.abs(together - alone).max() < 1e-3  # what a picture gets does not depend on its neighbours


def test_a_tower_in_bytes_says_the_same_of_a_picture_whatever_else_is_in_the_batch(tmp_path: Path) -> None:
    source, _ = saved(tmp_path, CLIP)
    pixels = pictures(special(CLIP, "ViT-B-16").image, 2)
    tower = built_image(source, CLIP, "ViT-B-16", "int8")

    beside_another = tower.run(pixels)[:1]
    beside_a_glaring_one = tower.run(np.concatenate([pixels[:1], 50 * pixels[1:]]))[:1]

    assert np.array_equal(beside_another, beside_a_glaring_one)


@pytest.mark.parametrize(
    ("sizes", "name", "act", "epsilon"),
    [
        (CLIP, "ViT-B-16", Activation.GELU, 1e-5),
        (SIGLIP, "ViT-B-16-SigLIP2", Activation.TANH, 1e-6),
        (SIGLIP, "ViT-B-16-SigLIP", Activation.GELU, 1e-6),
    ],
)
def test_the_text_tower_computes_what_the_architecture_says(
    tmp_path: Path, sizes: Sizes, name: str, act: Activation, epsilon: float
) -> None:
    source, tensors = saved(tmp_path, sizes)
    known = architectures.known(name)
    assert known is not None
    clip = sizes.family == "clip"
    prefix = "" if clip else "text."
    numbers = np.random.default_rng(0).integers(0, sizes.words, (3, sizes.length))
    places = np.array([[3], [5], [sizes.length - 1]]) if clip else np.full((3, 1), sizes.length - 1)
    value = tensors[f"{prefix}token_embedding.weight"][numbers] + tensors[f"{prefix}positional_embedding"]
    for number in range(sizes.text_layers):
        names = open_clip_names(f"{prefix}transformer.resblocks.{number}")
        value = plain_block(tensors, names, value, 64, act, epsilon, causal=clip)
    pooled = plain_norm(tensors, f"{prefix}ln_final", value, epsilon)[np.arange(3), places[:, 0]]
    expected = pooled @ tensors["text_projection"] if clip else plain_linear(tensors, "text.text_projection", pooled)

    with weights.opened(source) as opened:
        transformer.text_tower(opened, known, special(sizes, name)).write(tmp_path / "text.onnx")
        rows = opened.rows(f"{prefix}token_embedding.weight", numbers)
    session = runtime().InferenceSession(str(tmp_path / "text.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"tokens": rows, "places": places})

    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_weights_of_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    source, _ = saved(tmp_path, CLIP)

    with pytest.raises(Misconfigured, match=r"no tensor visual\.trunk\.patch_embed\.proj\.weight"):
        built_image(source, CLIP, "ViT-B-16-SigLIP2", "fp32")


@pytest.mark.parametrize("missing", ["visual.ln_pre.bias", "visual.transformer.resblocks.0.mlp.c_fc.weight", "visual.proj"])
def test_a_missing_tensor_is_named(tmp_path: Path, missing: str) -> None:
    tensors = clip_weights.random_tensors(CLIP)
    del tensors[missing]
    clip_weights.save(tmp_path / "source.safetensors", tensors)

    with pytest.raises(Misconfigured, match=missing.replace(".", r"\.")):
        built_image(tmp_path / "source.safetensors", CLIP, "ViT-B-16", "fp32")


def test_weights_for_pictures_of_another_size_or_embeddings_of_another_are_refused(tmp_path: Path) -> None:
    source, _ = saved(tmp_path, CLIP)

    with pytest.raises(Misconfigured, match="for pictures of 56 pixels a side"):
        built_image(source, Sizes(patch=14, size=28), "ViT-B-16", "fp32")
    with pytest.raises(Misconfigured, match="48 dimensions instead of 64"):
        built_image(source, Sizes(patch=14, size=56, dimensions=64), "ViT-B-16", "fp32")


def test_weights_too_large_for_sixteen_bits_are_refused_for_fp16(tmp_path: Path) -> None:
    tensors = clip_weights.random_tensors(CLIP)
    tensors["visual.proj"] = tensors["visual.proj"] * np.float32(1e6)
    clip_weights.save(tmp_path / "source.safetensors", tensors)

    with pytest.raises(Misconfigured, match="too large for fp16"):
        built_image(tmp_path / "source.safetensors", CLIP, "ViT-B-16", "fp16")


@pytest.mark.parametrize(
    "name", ["MobileCLIP2-S2", "MobileCLIP2-B", "RN50", "ViT-L-14-CLIPA", "EVA02-L-14", "", "ViT-B-16-SigLIP-i18n-256"]
)
def test_what_is_no_plain_vision_transformer_is_not_taken_for_one(name: str) -> None:
    assert architectures.known(name) is None


@pytest.mark.parametrize(
    ("name", "heads"), [("ViT-H-14", (80, 64)), ("ViT-SO400M-14-SigLIP2-378", (72, 72)), ("ViT-L-14-336", (64, 64))]
)
def test_heads_are_those_of_the_architecture(name: str, heads: tuple[int, int]) -> None:
    known = architectures.known(name)

    assert known is not None
    assert (known.image_head, known.text_head) == heads


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("visual.conv1.weight", (128, 4, 14, 14)),
        ("visual.conv1.weight", (128,)),
        ("visual.positional_embedding", (17,)),
        ("visual.proj", ()),
        ("visual.transformer.resblocks.0.mlp.c_fc.weight", (0, 128)),
        ("visual.transformer.resblocks.1.attn.in_proj_weight", (384, 64)),
        ("visual.ln_post.weight", (64,)),
    ],
)
def test_a_tensor_of_another_shape_is_named(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    tensors = clip_weights.random_tensors(CLIP)
    tensors[name] = np.zeros(shape, np.float32)
    clip_weights.save(tmp_path / "source.safetensors", tensors)

    with pytest.raises(Misconfigured, match=name.replace(".", r"\.")):
        built_image(tmp_path / "source.safetensors", CLIP, "ViT-B-16", "fp32")
