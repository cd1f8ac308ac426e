"""Random weights under the names that open_clip and timm give them, as safetensors; sizes from tiny to the real ones.

They cost the time and memory of trained ones, and what they say means nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of both towers."""

    family: str = "clip"  # or "siglip"
    image_width: int = 128
    image_layers: int = 2
    patch: int = 32
    size: int = 64
    text_width: int = 64
    text_layers: int = 2
    words: int = 600
    length: int = 77
    dimensions: int = 48  # of the embeddings; SigLIP's are as wide as its image tower
    ratio: float = 4.0  # width of the middle of a block


TINY = Sizes()
TINY_SIGLIP = Sizes("siglip", length=64, dimensions=128)
VIT_B_32 = Sizes("clip", 768, 12, 32, 224, 512, 12, 49408, 77, 512)
VIT_L_14 = Sizes("clip", 1024, 24, 14, 224, 768, 12, 49408, 77, 768)
SIGLIP2_B_16 = Sizes("siglip", 768, 12, 16, 224, 768, 12, 256000, 64, 768)


def shapes(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and shape of every tensor."""
    width, side = sizes.image_width, sizes.size // sizes.patch
    middle = round(width * sizes.ratio)
    if sizes.family == "clip":
        yield "visual.conv1.weight", (width, 3, sizes.patch, sizes.patch)
        yield "visual.class_embedding", (width,)
        yield "visual.positional_embedding", (side * side + 1, width)
        for name in ("ln_pre", "ln_post"):
            yield from _both(f"visual.{name}", (width,))
        for number in range(sizes.image_layers):
            yield from _block(f"visual.transformer.resblocks.{number}", width, middle)
        yield "visual.proj", (width, sizes.dimensions)
    else:
        trunk = "visual.trunk"
        yield from _both(f"{trunk}.patch_embed.proj", (width, 3, sizes.patch, sizes.patch))
        yield f"{trunk}.pos_embed", (1, side * side, width)
        for number in range(sizes.image_layers):
            block = f"{trunk}.blocks.{number}"
            yield from _both(f"{block}.norm1", (width,))
            yield from _both(f"{block}.attn.qkv", (3 * width, width))
            yield from _both(f"{block}.attn.proj", (width, width))
            yield from _both(f"{block}.norm2", (width,))
            yield from _both(f"{block}.mlp.fc1", (middle, width))
            yield from _both(f"{block}.mlp.fc2", (width, middle))
        yield from _both(f"{trunk}.norm", (width,))
        pool = f"{trunk}.attn_pool"
        yield f"{pool}.latent", (1, 1, width)
        yield from _both(f"{pool}.q", (width, width))
        yield from _both(f"{pool}.kv", (2 * width, width))
        yield from _both(f"{pool}.proj", (width, width))
        yield from _both(f"{pool}.norm", (width,))
        yield from _both(f"{pool}.mlp.fc1", (middle, width))
        yield from _both(f"{pool}.mlp.fc2", (width, middle))
    prefix = "" if sizes.family == "clip" else "text."
    yield f"{prefix}token_embedding.weight", (sizes.words, sizes.text_width)
    yield f"{prefix}positional_embedding", (sizes.length, sizes.text_width)
    for number in range(sizes.text_layers):
        yield from _block(f"{prefix}transformer.resblocks.{number}", sizes.text_width, round(sizes.text_width * sizes.ratio))
    yield from _both(f"{prefix}ln_final", (sizes.text_width,))
    if sizes.family == "clip":
        yield "text_projection", (sizes.text_width, sizes.dimensions)
    else:
        yield from _both("text.text_projection", (sizes.dimensions, sizes.text_width))
        yield "logit_bias", ()
    yield "logit_scale", ()


def _both(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _block(name: str, width: int, middle: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _both(f"{name}.ln_1", (width,))
    yield f"{name}.attn.in_proj_weight", (3 * width, width)
    yield f"{name}.attn.in_proj_bias", (3 * width,)
    yield from _both(f"{name}.attn.out_proj", (width, width))
    yield from _both(f"{name}.ln_2", (width,))
    yield from _both(f"{name}.mlp.c_fc", (middle, width))
    yield from _both(f"{name}.mlp.c_proj", (width, middle))


def tensor(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Random numbers as large as initial ones: a layer keeps the length of what it is given."""
    if name == "logit_scale":
        return np.array(np.log(100.0), np.float32)
    if not shape:
        return np.array(-10, np.float32)
    found = generator.standard_normal(shape, np.float32)
    if len(shape) == 1 and name.endswith("weight"):  # of a normalisation
        return 1 + 0.1 * found
    if len(shape) == 1:
        return 0.1 * found
    given = int(np.prod(shape[1:])) if len(shape) != 2 or "proj" not in name.split(".")[-1] else shape[0]
    scale = 1.0 if "embedding" in name or "latent" in name or "pos_embed" in name else given**-0.5
    return scale * found


def random_tensors(sizes: Sizes, seed: int = 0) -> dict[str, Array]:
    """All tensors, always the same for one seed."""
    generator = np.random.default_rng(seed)
    return {name: tensor(name, shape, generator) for name, shape in shapes(sizes)}


def save(path: Path, tensors: Mapping[str, NDArray[np.generic]], kinds: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file. `kinds` names the type of tensors that numpy has none for (BF16, as uint16)."""
    names = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, array in tensors.items():
        kind = (kinds or {}).get(name) or names[str(array.dtype)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for array in tensors.values():
            out.write(np.ascontiguousarray(array).tobytes())
