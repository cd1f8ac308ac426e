"""Two-megapixel JPEGs to measure with: smooth colours under noise, the same for the same seed; nobody and nothing is in them."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (1920, 1080)


def make(folder: Path, count: int, seed: int = 1) -> Path:
    """Fill a folder with `count` JPEGs of about half a megabyte each; does nothing if it is full already."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.jpg"))) == count:
        return folder
    random = np.random.default_rng(seed)
    for number in range(count):
        colours = Image.fromarray(random.integers(0, 255, (27, 48, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        grain = random.normal(0, 6, (SIZE[1], SIZE[0], 1)).astype(np.int16)
        pixels = (np.asarray(colours).astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=88)
    return folder
