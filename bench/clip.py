"""The table of issue 3's numbers on a processor, measured side by side in one run; writes nothing but what it prints.

    python -m bench.clip --peer PYTHON_WITH_TORCH [--rounds 3] [--names clip-vit-l-14,clip-vit-b-32,siglip2-b-16]

Weights are random, which costs the same time as trained ones; what they say means nothing. Every rate is the median of some
rounds, taken in turn, so that a machine whose speed drifts drifts for all of them alike. Prints a Markdown table and, last,
one JSON object.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.pictures import make
from bench.run import PICTURES, ROOT, fediwarden
from tests.support import clip_weights

from fediwarden.inference import registry
from fediwarden.inference.build.whole import build

SIZES = {
    "clip-vit-l-14": clip_weights.VIT_L_14,
    "clip-vit-b-32": clip_weights.VIT_B_32,
    "siglip2-b-16": clip_weights.SIGLIP2_B_16,
}


def model_of(work: Path, name: str) -> None:
    """The named model with random weights, imported and built as an administrator would; nothing if it is there."""
    if any(manifest.name == name and manifest.precisions for manifest in registry.image_text(work / "models")):
        return
    folder = work / f"weights-{name}"
    folder.mkdir(exist_ok=True)
    clip_weights.save(folder / "open_clip_model.safetensors", clip_weights.random_tensors(SIZES[name]))
    (folder / "tokenizer.json").write_text('{"model": {}}')  # no words are embedded
    fediwarden(work, "models", "import", str(folder), "--name", name)
    shutil.rmtree(folder)
    started = time.perf_counter()
    build(work / "models", name, None, progress=lambda line: print(f"{name}: {line}", file=sys.stderr))
    print(f"{name}: built in {time.perf_counter() - started:.0f} s", file=sys.stderr)


def told(command: list[str]) -> dict[str, float]:
    """What a measuring program prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".work" / "bench-clip")
    parser.add_argument("--peer", default="", help="a Python that has torch, pillow and numpy; without it the peer is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--names", default=",".join(SIZES))
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    pictures = make(work / "pictures", PICTURES)
    ways: dict[str, list[str]] = {}
    if arguments.peer:
        ways["peer"] = [arguments.peer, "-m", "bench.peer", str(pictures), "--count", "4"]
    for name in arguments.names.split(","):
        model_of(work, name)
        (manifest,) = (one for one in registry.image_text(work / "models") if one.name == name)
        for precision in manifest.precisions:
            command = [sys.executable, "-m", "bench.clip_rate", str(pictures), "--models", str(work / "models")]
            command += ["--name", name, "--precision", precision, "--seconds", str(arguments.seconds)]
            ways[f"{name} {precision}"] = command
    measured: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, command in ways.items():
            found = told(command)
            measured[name].append(found["images_per_second"])
            memory[name] = found.get("memory", 0.0)
            print(f"{name}: {measured[name][-1]:.3f}", file=sys.stderr)
    middle = {name: statistics.median(rates) for name, rates in measured.items()}
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, {arguments.rounds} rounds\n"
    )
    print("| what | images/s (least to most) | ratio to the peer | memory, MB |\n| --- | --- | --- | --- |")
    for name, rates in measured.items():
        ratio = f"{middle[name] / middle['peer']:.1f}" if "peer" in middle else ""
        print(f"| {name} | {middle[name]:.3f} ({min(rates):.3f} to {max(rates):.3f}) | {ratio} | {memory[name] / 1e6:,.0f} |")
    print("\n" + json.dumps({name: round(rate, 4) for name, rate in middle.items()}))


if __name__ == "__main__":
    main()
