"""Tiny image-text models with random weights as `models pull` leaves them, ready to be built; needs no network."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.support import clip_weights
from tests.support.clip_weights import TINY, Sizes

from fediwarden.inference import manifest as manifests
from fediwarden.inference import registry
from fediwarden.inference.manifest import HubOrigin, ImageInput, ImageText, ModelManifest, Role
from fediwarden.model import ConceptGroup, Concepts

CONCEPTS = Concepts(
    (ConceptGroup("plant", ("a tree", "a flower")), ConceptGroup("building", ("a house",))),
    ("a bicycle", "the sea"),
    ("{}", "a photo of {}"),
)
WORDS = ("a", "tree", "flower", "house", "bicycle", "the", "sea", "photo", "of")


def tokenizer(folder: Path, *, siglip: bool) -> list[Path]:
    """The smallest tokenizer that knows the words above."""
    if siglip:
        import tokenizers

        known = ["<pad>", "<eos>", "<unk>", *WORDS]
        library = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>")
        )
        library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        library.save(str(folder / "tokenizer.json"))
        return [folder / "tokenizer.json"]
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "th", "the</w>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)} | {"<|startoftext|>": 598, "<|endoftext|>": 599}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")
    return [folder / "vocab.json", folder / "merges.txt"]


def pulled(
    home: Path,
    sizes: Sizes = TINY,
    architecture: str = "ViT-B-32-quickgelu",
    *,
    change: Callable[[dict[str, NDArray[np.float32]]], None] = lambda _: None,
    with_tokenizer: bool = True,
) -> Path:
    """A model as `models pull` leaves it, with random weights; returns the folder of models."""
    folder = home / "models" / "tiny"
    folder.mkdir(parents=True)
    tensors = clip_weights.random_tensors(sizes)
    change(tensors)
    clip_weights.save(folder / "source.safetensors", tensors)
    files = [registry.weigh(folder / "source.safetensors", Role.SOURCE)]
    if with_tokenizer:
        made = tokenizer(folder, siglip=sizes.family == "siglip")
        files += [registry.weigh(path, Role.TOKENIZER) for path in made]
    special = ImageText(
        architecture, sizes.dimensions, 100.0, ImageInput(sizes.size, "longest", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    )
    manifest = ModelManifest(
        "tiny", "random", "none", str(sizes.size), "fp32", HubOrigin("tests/tiny", ""), tuple(files), special
    )
    (folder / manifests.MANIFEST).write_text(manifests.as_toml(manifest), encoding="utf-8")
    return home / "models"
