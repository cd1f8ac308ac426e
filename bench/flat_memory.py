"""Whether memory and threads stay flat over many analyses: a vision transformer of random weights, frames of every size.

    python -m bench.flat_memory [--count 50000] [--workers 4]

The transformer has the graph of the real ones and a fraction of their size, so that 50,000 pictures take minutes. Prints a
row every tenth of the way and, last, one JSON object: the memory after the first tenth and at the end, the ratio, the most
threads there were.
"""

import argparse
import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from tests.support import clip_weights

from fediwarden.analysers.clip import Clip
from fediwarden.inference import manifest as manifests
from fediwarden.inference.build.whole import build
from fediwarden.inference.manifest import HubOrigin, ImageInput, ImageText, ModelFile, ModelManifest, Role
from fediwarden.inference.towers import Tower, choose
from fediwarden.model import ConceptGroup, Concepts, Frame
from fediwarden.pipeline.measuring import memory

SIZES = replace(clip_weights.VIT_B_32, image_width=384, image_layers=6, text_width=64, text_layers=1, words=100, dimensions=256)
CONCEPTS = Concepts((ConceptGroup("one", ("a", "b", "c")), ConceptGroup("two", ("d",))), ("e", "f"), ("{}",))


def small_model(models: Path, name: str) -> ModelManifest:
    """A built model of these sizes."""
    folder = models / name
    folder.mkdir(parents=True)
    weights = folder / "source.safetensors"
    clip_weights.save(weights, clip_weights.random_tensors(SIZES))
    data = weights.read_bytes()
    image = ImageInput(SIZES.size, "longest", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    made = ModelManifest(
        name, "nothing", "none", "224 x 224", "fp32", HubOrigin("bench/small", ""),
        (ModelFile(weights.name, sha256(data).hexdigest(), len(data), Role.SOURCE),),
        ImageText("ViT-B-32-quickgelu", SIZES.dimensions, 100.0, image),
    )  # fmt: skip
    (folder / manifests.MANIFEST).write_text(manifests.as_toml(made))
    return build(models, name, None, ("fp32",)).manifest


def frames(count: int) -> list[Frame]:
    """Frames of many shapes."""
    random = np.random.default_rng(1)
    made = []
    for number in range(count):
        width, height = (int(side) for side in random.integers(1, 900, 2))
        made.append(Frame(random.bytes(width * height * 3), width, height, index=number))
    return made


def main() -> None:
    """Analyse and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = small_model(Path(folder), "small")
        tower = Tower(Path(folder), choose([manifest], precision="fp32", device="cpu"))
        random = np.random.default_rng(2).standard_normal((len(CONCEPTS.texts), SIZES.dimensions)).astype(np.float32)
        clip = Clip(tower, random / np.linalg.norm(random, axis=1, keepdims=True), CONCEPTS)
        seen = frames(64)
        most = 0
        rows: list[tuple[int, int]] = []
        tenth = arguments.count // 10
        started = time.perf_counter()
        with ThreadPoolExecutor(arguments.workers) as pool:
            for part in range(10):
                for _ in pool.map(lambda number: clip.analyse([seen[number % 64]]), range(tenth)):
                    pass
                most = max(most, len(list(Path("/proc/self/task").iterdir())))
                rows.append(((part + 1) * tenth, memory()))
                print(
                    f"{rows[-1][0]:>7,} analyses  {rows[-1][1] / 1e6:8.1f} MB  {time.perf_counter() - started:6.0f} s", flush=True
                )
        first, last = rows[0][1], rows[-1][1]
        told = {
            "analyses": rows[-1][0],
            "memory_after_a_tenth": first,
            "memory_at_the_end": last,
            "ratio": round(last / first, 4),
            "threads": most,
            "of_them_ours": threading.active_count() + arguments.workers,
            "seconds": round(time.perf_counter() - started),
        }
        print(json.dumps(told))


if __name__ == "__main__":
    main()
