"""Two-megapixel JPEGs to measure with, as files: those of `media.benign`, the same for the same seed."""

from pathlib import Path

from fediwarden.media.benign import jpegs


def make(folder: Path, count: int, seed: int = 1) -> Path:
    """Fill a folder with `count` JPEGs of about half a megabyte each; does nothing if it is full already."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.jpg"))) == count:
        return folder
    for number, data in enumerate(jpegs(count, seed)):
        (folder / f"{number:05}.jpg").write_bytes(data)
    return folder
