"""Holds what `models build` makes against PyTorch's own computing of open_clip's models, with the same random weights.

    make parity                       all of them; about 20 GB of memory are needed for the largest
    make parity MODELS="ViT-B-32-quickgelu"

It needs PyTorch and open_clip, which is why it is no part of ./test. Random weights show that the two compute the same; they do
not predict how far int8 and fp16 drift with trained ones, which `models build` measures on the administrator's own machine.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.parity import stand_in

from fediwarden.inference import manifest as manifests
from fediwarden.inference import registry
from fediwarden.inference.build import tokens, whole
from fediwarden.inference.build.architecture import TowerFamily
from fediwarden.inference.build.pictures import pictures
from fediwarden.inference.manifest import HubOrigin, ImageInput, ImageText, ModelManifest, Role
from fediwarden.inference.sessions import runtime
from fediwarden.model import ConceptGroup, Concepts

BOUND = 1e-4  # largest difference between two numbers of an embedding
MODELS = ("ViT-B-32", "ViT-B-32-quickgelu", "ViT-L-14-quickgelu", "ViT-B-16-SigLIP2", "ViT-B-32-SigLIP2-256", "MobileCLIP2-S2")
COUNT = 6  # pictures that PyTorch embeds
CONCEPTS = Concepts(
    (ConceptGroup("plant", ("a tree", "a flower")), ConceptGroup("building", ("a house", "an old church"))),
    ("a bicycle", "a bowl of fruit", "the sea"),
    ("{}", "a photo of {}", "a drawing of {}."),
)


def random_model(name: str) -> Any:
    """open_clip's model of this name, initialised at random; the vocabulary of SigLIP is cut to save memory."""
    import open_clip
    import torch

    torch.manual_seed(1)
    settings = open_clip.get_model_config(name)
    if settings is None:
        raise SystemExit(f"open_clip knows no {name}")
    if settings["text_cfg"]["vocab_size"] > 100_000:
        settings["text_cfg"]["vocab_size"] = 4096
    settings["text_cfg"].pop("hf_tokenizer_name", None)
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    model = kind(**settings)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            # what begins as zero or one would hide a bias or a normalisation that is left out
            if parameter_name.endswith(("bias", "norm1.weight", "norm2.weight", "ln_1.weight", "ln_2.weight")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval(), settings


def small_tokenizer(path: Path, words: int) -> None:
    """A tokenizer.json with SigLIP2's special tokens and a few words."""
    import tokenizers

    known = ["<pad>", "<eos>", "<bos>", "<unk>"]
    known += sorted({word for text in CONCEPTS.texts for word in text.split()} | {"photo", "of", "drawing", "a"})
    library = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(known[:words])}, unk_token="<unk>")
    )
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.save(str(path))


def install(home: Path, name: str) -> Any:
    """The random model as `models pull` would leave it; returns PyTorch's."""
    import open_clip
    from safetensors.torch import save_file

    model, settings = random_model(name)
    folder = home / "peer"
    folder.mkdir(parents=True)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "source.safetensors")
    if "SigLIP" in name:
        tokenizer = folder / "tokenizer.json"
        small_tokenizer(tokenizer, settings["text_cfg"]["vocab_size"])
    else:
        tokenizer = folder / "bpe_simple_vocab_16e6.txt.gz"
        shutil.copy(Path(open_clip.__file__).with_name(tokenizer.name), tokenizer)
    size = settings["vision_cfg"]["image_size"]
    manifest = ModelManifest(
        "peer",
        "random numbers",
        "none",
        str(size),
        "fp32",
        HubOrigin("random", ""),
        (registry.weigh(folder / "source.safetensors", Role.SOURCE), registry.weigh(tokenizer, Role.TOKENIZER)),
        ImageText(name, settings["embed_dim"], 100.0, ImageInput(size, "longest", (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))),
    )
    (folder / manifests.MANIFEST).write_text(manifests.as_toml(manifest), encoding="utf-8")
    return model


def embedded(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a built tower says."""
    session = runtime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"pixel_values": pixels[number : number + 1]})[0] for number in range(len(pixels))])


def peers_texts(model: Any, home: Path, length: int, *, siglip: bool) -> NDArray[np.float32]:
    """The vectors of the concepts as PyTorch and open_clip's own tokenizer make them."""
    import open_clip
    import torch

    sentences = [prompt.format(word) for word in CONCEPTS.texts for prompt in CONCEPTS.prompts]
    if siglip:  # open_clip's needs the model's own, of 34 MB; its cleaning and its filling are done here by hand
        from open_clip.tokenizer import basic_clean, canonicalize_text
        from tokenizers import Tokenizer

        library = Tokenizer.from_file(str(home / "peer" / "tokenizer.json"))
        rows = [[*library.encode(canonicalize_text(basic_clean(one))).ids[: length - 1], 1] for one in sentences]
        numbers = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    else:
        numbers = open_clip.SimpleTokenizer(context_length=length)(sentences)
    with torch.inference_mode():
        found = torch.nn.functional.normalize(model.encode_text(numbers), dim=-1)
        grouped = found.reshape(len(CONCEPTS.texts), len(CONCEPTS.prompts), -1).mean(1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(grouped, dim=-1).numpy()
    return vectors


def compare(name: str) -> dict[str, object]:
    """Build one random model and hold it against PyTorch."""
    import torch

    with tempfile.TemporaryDirectory(prefix="parity-") as place:
        home = Path(place)
        model = install(home, name)
        started = time.monotonic()
        plain = not name.startswith("MobileCLIP")
        asked = ("fp32", "int8", "fp16") if plain else ("fp32",)
        built = whole.build(home, "peer", CONCEPTS, asked, lambda line: print(f"  {line}", file=sys.stderr))
        seconds = time.monotonic() - started
        special = built.manifest.image_text
        assert special is not None
        pixels = pictures(special.image, COUNT)
        with torch.inference_mode():
            theirs = model.encode_image(torch.from_numpy(pixels), normalize=True).numpy()
        ours = embedded(home / "peer" / "image-fp32.onnx", pixels)
        file = built.manifest.only(Role.TEXT)
        assert file is not None
        with np.load(home / "peer" / file.name, allow_pickle=False) as arrays:
            vectors = arrays["vectors"]
        length = int(getattr(model, "context_length", 77))
        their_vectors = peers_texts(model, home, length, siglip="SigLIP" in name)
        return {
            "model": name,
            "image_difference": float(np.abs(ours - theirs).max()),
            "text_difference": float(np.abs(vectors - their_vectors).max()),
            "agreement": {one.precision: [round(one.mean, 5), round(one.least, 5)] for one in built.agreements},
            "megabytes": {one.precision: one.size // 1_000_000 for one in built.manifest.files if one.role is Role.IMAGE},
            "build_seconds": round(seconds),
        }


def many_texts() -> Iterator[str]:
    """Ordinary and odd ones."""
    yield from (
        "",
        " ",
        "a",
        "A  Tree\tin\nthe park",
        "it's we're I'll they'd",
        "3.14 & 2,718 <b>",
        "&amp;&lt;tag&gt;",
        "co-op/e-mail",
    )
    yield from (
        "Grüße aus Köln",
        "naïve café",
        "東京タワー",
        "Привет, мир!",
        "🌳🌻 a tree",
        "x" * 300,
        "word " * 200,
        "…—–",
        "a\u00a0b",
        "Ǆ ß ﬁn ｗｉｄｅ “quoted” ‘so’",
    )
    words = [word for text in CONCEPTS.texts for word in text.split()] + [
        "unbelievably",
        "photo",
        "12345",
        "half-timbered",
        "(left)",
    ]
    generator = np.random.default_rng(0)
    for _ in range(500):
        yield " ".join(generator.choice(words, int(generator.integers(1, 12))))
    signs = [chr(number) for number in range(32, 127)]
    greek = [chr(number) for number in range(0x391, 0x3CA) if number != 0x3A2]
    cyrillic = [chr(number) for number in range(0x410, 0x450)]
    # one script at a time: letters of several in a heap look like wrongly decoded text, which open_clip tries to decode again
    for letters in (signs, [*"äöüßéèêçñåøæ ", *signs], [*greek, *signs], [*cyrillic, *signs]):
        for _ in range(250):
            yield "".join(generator.choice(letters, int(generator.integers(1, 60))))


def compare_tokens() -> dict[str, object]:
    """CLIP's tokens from open_clip's own file, against open_clip's own tokenizer."""
    import open_clip

    texts = list(many_texts())
    path = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    theirs = open_clip.SimpleTokenizer()(texts).numpy()
    found = tokens.read([path], TowerFamily.CLIP)(texts, 77)
    as_json = merged_as_json(path)
    again = tokens.read([as_json], TowerFamily.CLIP)(texts, 77)
    shutil.rmtree(as_json.parent)
    unlike = [text for text, mine, other in zip(texts, found.numbers, theirs, strict=True) if (mine != other).any()]
    same_file = bool((again.numbers == found.numbers).all())
    places = bool((found.places[:, 0] == theirs.argmax(axis=1)).all())
    return {"texts": len(texts), "unlike": unlike, "same_from_json": same_file, "same_places": places}


def merged_as_json(path: Path) -> Path:
    """The same tokenizer in the form of a tokenizer.json."""
    library = tokens._library(__import__("tokenizers"), {path.name: path})
    folder = Path(tempfile.mkdtemp(prefix="parity-"))
    library.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def main() -> int:
    """Exit code 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    stand_in.put()
    about_tokens = compare_tokens()
    print(json.dumps(about_tokens, ensure_ascii=False), flush=True)
    good = not about_tokens["unlike"] and bool(about_tokens["same_from_json"]) and bool(about_tokens["same_places"])
    for name in arguments.models:
        row = compare(name)
        same = max(float(str(row["image_difference"])), float(str(row["text_difference"]))) <= BOUND
        print(json.dumps({**row, "same": same}), flush=True)
        good = good and same
    print("Random weights show that both compute the same. They do not predict how far int8 and fp16 drift with trained ones.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
