"""What cannot be read from the weights of a plain vision transformer: its activation, its heads, how its text ends; no weights."""

import re
from dataclasses import dataclass
from enum import StrEnum


class TowerFamily(StrEnum):
    """How the towers are put together."""

    CLIP = "clip"  # class token, causal text, the end token is the text's embedding
    SIGLIP = "siglip"  # attention pooling, text that sees all of itself, the last token is the text's embedding


class Activation(StrEnum):
    """The activation between the two layers of a block."""

    QUICK = "x sigmoid(1.702 x)"
    GELU = "gelu"
    TANH = "gelu, approximated with tanh"


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture; widths, layers, patches and lengths are those of the weights."""

    name: str
    family: TowerFamily
    image_act: Activation
    text_act: Activation
    image_head: int = 64  # width of an attention head
    text_head: int = 64

    @property
    def epsilon(self) -> float:
        """What layer normalisation adds to the variance."""
        return 1e-5 if self.family is TowerFamily.CLIP else 1e-6


# names and numbers are those of open_clip's model configurations (and of timm's, for SigLIP)
_CLIP = re.compile(r"(ViT-(?:[BL]-(?:32|16|14)(?:-256|-336)?|H-14(?:-378)?|g-14|bigG-14))(-quickgelu)?")
_CLIP_HEADS = {"ViT-H-14": 80, "ViT-H-14-378": 80, "ViT-g-14": 88, "ViT-bigG-14": 104}
_SIGLIP = re.compile(r"ViT-(B-32|B-16|L-16|SO400M-14|SO400M-16|gopt-16)-SigLIP(2?)(-\d+)?")
_SIGLIP_HEADS = {"SO400M-14": (72, 72), "SO400M-16": (72, 72), "gopt-16": (96, 72)}


def known(name: str) -> Architecture | None:
    """The plain vision transformer of this name in open_clip; None for all others."""
    if match := _CLIP.fullmatch(name):
        act = Activation.QUICK if match[2] else Activation.GELU
        return Architecture(name, TowerFamily.CLIP, act, act, _CLIP_HEADS.get(match[1], 64))
    if match := _SIGLIP.fullmatch(name):
        image = Activation.TANH if match[1] in ("B-32", "gopt-16") else Activation.GELU
        text = Activation.TANH if match[2] else Activation.GELU
        return Architecture(name, TowerFamily.SIGLIP, image, text, *_SIGLIP_HEADS.get(match[1], (64, 64)))
    return None
