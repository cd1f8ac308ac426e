"""How fast an image tower looks at JPEGs in one process: decode, preparation, one run of the encoder a picture; no cage or ledger.

    python -m bench.clip_rate FOLDER --models MODELS --name clip-vit-l-14 --precision int8 [--seconds 20] [--threads N]

As many threads as cores share one session, each computing in its own thread. Prints one JSON object: images, threads,
seconds, images_per_second, memory.
"""

import argparse
import json
import os
from pathlib import Path

from bench.bare import DRAFT_EDGE
from PIL import Image

from fediwarden.analysers.clip import prepared
from fediwarden.inference import registry
from fediwarden.inference.towers import Tower, choose
from fediwarden.model import Frame
from fediwarden.pipeline.measuring import measure


def main() -> None:
    """Measure after a warm-up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--name", default="clip-vit-l-14")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    choice = choose(registry.image_text(arguments.models), arguments.name, arguments.precision, arguments.device)
    tower = Tower(arguments.models, choice)
    special = choice.manifest.image_text
    assert special is not None
    paths = sorted(arguments.folder.glob("*.jpg"))

    def look(number: int) -> None:
        with Image.open(paths[number % len(paths)]) as image:
            scale = DRAFT_EDGE / max(image.size)
            image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
            picture = image.convert("RGB")
        frame = Frame(picture.tobytes(), picture.width, picture.height)
        tower.embed(prepared(frame, special.image)[None])

    rate = measure(look, arguments.threads, arguments.seconds)
    print(
        json.dumps(
            {
                "images": rate.images,
                "threads": arguments.threads,
                "seconds": round(rate.seconds, 3),
                "images_per_second": round(rate.per_second, 4),
                "memory": rate.memory,
            }
        )
    )


if __name__ == "__main__":
    main()
