"""The way of architectures that are no plain vision transformers: open_clip computes, PyTorch exports; only where both are installed.

MobileCLIP2 is one. Its image tower is built in fp32 alone.
"""

import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured
from fediwarden.inference.build.tokens import Tokenizer
from fediwarden.inference.build.transformer import IMAGE_INPUT, IMAGE_OUTPUT
from fediwarden.inference.manifest import ImageText

ONLY_FP32 = "a convolutional image tower is built in fp32 only: eight bits and sixteen gain little there on a CPU"
_NEEDED = ("torch", "open_clip", "safetensors", "onnxscript")
_OPSET = 18
_TEXTS = 16  # at once


def require(architecture: str) -> None:
    """Raises: Misconfigured where a package that this architecture needs is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise Misconfigured(
            f"{architecture} is no plain vision transformer, and building it needs PyTorch and open_clip; missing: {', '.join(missing)}",
            hint="pip install 'fediwarden[build-torch]' (some gigabytes; into an environment of its own if you like), "
            "or choose a ViT: `fediwarden models pull` lists them",
        )


def image_tower(source: Path, special: ImageText, path: Path) -> None:
    """Write the image tower in fp32, as `transformer.image_tower` has it. Raises: Misconfigured, OSError."""
    import torch

    class Tower(torch.nn.Module):
        def __init__(self, visual: Any) -> None:
            super().__init__()
            self.visual = visual

        def forward(self, pixel_values: Any) -> Any:
            return torch.nn.functional.normalize(self.visual(pixel_values), dim=-1)

    tower = Tower(_reparameterised(_model(source, special).visual)).eval()
    size = special.image.size
    example = torch.zeros(2, 3, size, size)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # what the exporter says of its own workings
        program = torch.onnx.export(
            tower,
            (example,),
            input_names=[IMAGE_INPUT],
            output_names=[IMAGE_OUTPUT],
            dynamic_shapes={IMAGE_INPUT: {0: torch.export.Dim("batch")}},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    program.save(str(path), external_data=False)


def embed(source: Path, special: ImageText, tokenizer: Tokenizer, texts: Sequence[str]) -> NDArray[np.float32]:
    """The embeddings (texts, dimensions) of texts, not of unit length. Raises: Misconfigured."""
    import torch

    model = _model(source, special)
    length = int(getattr(model, "context_length", 77))
    numbers = tokenizer(texts, length).numbers
    with torch.inference_mode():
        parts = [
            model.encode_text(torch.from_numpy(numbers[start : start + _TEXTS])).numpy() for start in range(0, len(texts), _TEXTS)
        ]
    found: NDArray[np.float32] = np.concatenate(parts)
    return found


def _model(source: Path, special: ImageText) -> Any:
    """open_clip's model with these weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # some of its architectures would fetch settings of their text towers
    import open_clip
    from safetensors.torch import load_file

    if special.architecture not in open_clip.list_models():
        raise Misconfigured(
            f"open_clip knows no architecture {special.architecture}", hint="check the name with `fediwarden models show`"
        )
    model = open_clip.create_model(special.architecture, pretrained=None)
    try:
        model.load_state_dict(load_file(source))
    except RuntimeError as error:  # names every tensor that is missing or has another shape
        raise Misconfigured(
            f"{source.name} does not hold the weights of {special.architecture}: {str(error).splitlines()[0]}",
            hint="check the model's architecture with `fediwarden models show`",
        ) from error
    return model.eval()


def _reparameterised(visual: Any) -> Any:
    """The same tower with its parallel branches folded into one, which is faster."""
    from timm.utils import reparameterize_model

    return reparameterize_model(visual)
