"""The path that fedi-safety takes through one picture, for speed: full decode, thumbnail to 512, ViT-L/14 fp32 in PyTorch, run twice.

Weights are random, which costs the same time as trained ones; what they say means nothing. Shapes are those of ViT-L/14 at
224 pixels: 24 layers, width 1024, 16 heads, patches of 14, QuickGELU (arXiv 2103.00020, table 20). Needs PyTorch, which is
no dependency of the project: `make bench` puts it into an environment of its own.

    python -m bench.peer FOLDER --count 4

prints one JSON object: images, threads, seconds, images_per_second.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

WIDTH, LAYERS, HEADS, PATCH, SIDE = 1024, 24, 16, 14, 224
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


class Block(nn.Module):
    """One residual block of the vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.between = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x`: [batch, 257, 1024]."""
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = self.up(self.between(x))
        return x + self.down(y * torch.sigmoid(1.702 * y))


class Tower(nn.Module):
    """The image tower: [batch, 3, 224, 224] to [batch, 768]."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.start = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.places = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2 + 1, WIDTH) * 0.02)
        self.first = nn.LayerNorm(WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.last = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, 768, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The embedding of each picture."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.start.expand(len(x), -1, -1), tokens], 1) + self.places
        embedded: torch.Tensor = self.out(self.last(self.blocks(self.first(tokens))[:, 0]))
        return embedded


def prepared(path: Path) -> torch.Tensor:
    """Decode all of it, thumbnail to 512, resize the short side to 224 and crop the middle."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((512, 512))
    scale = SIDE / min(picture.size)
    picture = picture.resize(
        (max(SIDE, round(picture.width * scale)), max(SIDE, round(picture.height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (picture.width - SIDE) // 2, (picture.height - SIDE) // 2
    pixels = np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255
    return torch.from_numpy(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)[None].copy())


def main() -> None:
    """Measure after one warm-up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=4)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tower = Tower().eval()
    paths = sorted(arguments.folder.glob("*.jpg"))[: arguments.count]
    with torch.inference_mode():
        tower(prepared(paths[0]))
        started = time.perf_counter()
        for path in paths:
            picture = prepared(path)
            tower(picture)
            tower(picture)
        seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "images": len(paths),
                "threads": threads,
                "seconds": round(seconds, 3),
                "images_per_second": round(len(paths) / seconds, 4),
            }
        )
    )


if __name__ == "__main__":
    main()
