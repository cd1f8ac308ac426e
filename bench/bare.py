"""How fast the hard work alone goes: decode, preparation and the two explicit-content models; no cage, store or ledger.

One process per core with one thread each, which is the best this hardware gives. The rate is what `scan` is compared with.
With --models-alone even decode and preparation are done before the clock starts: no scan with these models can be faster.

    python -m bench.bare FOLDER --models MODELS [--processes N] [--models-alone]

prints one JSON object: images, processes, seconds, images_per_second.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path

DRAFT_EDGE = 640  # twice what the larger model sees, as the cage decodes
PREPARED = 16  # pictures that the models alone see again and again: 2 MB each


@dataclass(frozen=True, slots=True)
class Rate:
    """What one measurement came to."""

    images: int
    processes: int
    seconds: float
    images_per_second: float


def _work(paths: Sequence[Path], models: Path, turn: "Synchronized[int]", ready: Barrier, done: Barrier, *, alone: bool) -> None:
    """Take the next picture until none is left. Everything is loaded and warmed up before the clock starts."""
    from PIL import Image

    from fediwarden.analysers import explicit, exposed
    from fediwarden.inference import registry
    from fediwarden.inference.sessions import OnnxSession

    network = OnnxSession(registry.load(models, explicit.MODEL).only, name=explicit.MODEL)
    detector = exposed.detector(registry.load(models, exposed.MODEL).only)
    whole, parts = explicit.Explicit(network), exposed.Exposed(detector)

    def decoded(path: Path) -> Image.Image:
        with Image.open(path) as image:
            scale = DRAFT_EDGE / max(image.size)
            image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
            return image.convert("RGB")

    def look(number: int) -> None:
        picture = decoded(paths[number])
        parts.look(picture)
        whole.look(picture)

    def run(number: int) -> None:
        for_detector, for_network = inputs[number % len(inputs)]
        detector.run(for_detector)
        network.run(for_network)

    pictures = [decoded(path) for path in paths[:PREPARED]] if alone else []
    inputs = [(exposed.prepared(picture), explicit.prepared(picture)) for picture in pictures]
    work = run if alone else look
    work(0)
    ready.wait()
    while True:
        with turn.get_lock():
            number = turn.value
            turn.value += 1
        if number >= len(paths):
            break
        work(number)
    done.wait()


def measure(folder: Path, models: Path, processes: int, *, alone: bool = False) -> Rate:
    """Look once at every JPEG in a folder; `alone` runs the models as often, on inputs that are there already."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        raise SystemExit(f"no JPEG in {folder}")
    spawn = multiprocessing.get_context("spawn")
    turn = spawn.Value("i", 0)
    ready, done = spawn.Barrier(processes + 1), spawn.Barrier(processes + 1)
    workers = [
        spawn.Process(target=_work, args=(paths, models, turn, ready, done), kwargs={"alone": alone}, daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait(timeout=120)
    started = time.perf_counter()
    done.wait(timeout=3600)
    seconds = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return Rate(len(paths), processes, round(seconds, 3), round(len(paths) / seconds, 2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, required=True, help="where `fediwarden models install` put them")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--models-alone", action="store_true", help="without decode and preparation")
    arguments = parser.parse_args()
    print(json.dumps(asdict(measure(arguments.folder, arguments.models, arguments.processes, alone=arguments.models_alone))))
