"""Benign pictures to measure with: smooth colours under grain, as JPEG bytes; nobody and nothing is in them."""

import io
from collections.abc import Iterator

SIZE = (1920, 1080)
QUALITY = 88


def jpegs(count: int, seed: int = 1) -> Iterator[bytes]:
    """`count` different two-megapixel JPEGs of about half a megabyte, the same ones for the same seed."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    for _ in range(count):
        colours = Image.fromarray(random.integers(0, 255, (27, 48, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        grain = random.normal(0, 6, (SIZE[1], SIZE[0], 1)).astype(np.int16)
        pixels = (np.asarray(colours).astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
        with io.BytesIO() as out:
            Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
            yield out.getvalue()
