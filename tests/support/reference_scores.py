"""The scores of the bundled models by the plainest possible road: whole arrays, no shortcuts, none of the program's code.

It follows the models' own descriptions and shares only the model files with `fediwarden.analysers`. To write the stored
numbers anew after a deliberate change:

    python -m tests.support.reference_scores
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from PIL import Image
from tests.support.models import installed_models
from tests.support.pictures import drawn_face, frame_of, gradient, noise, shapes

from fediwarden.analysers.bundled import Bundled

STORED = Path(__file__).parents[1] / "reference" / "scores.json"


def pictures() -> dict[str, Image.Image]:
    """The benign pictures with stored scores, by name."""
    return {
        "noise 640x480": noise(640, 480, seed=1),
        "coarse noise 816x612": noise(816, 612, seed=2, grain=24),
        "gradient 300x700": gradient(300, 700),
        "shapes 900x300": shapes(900, 300, seed=3),
        "shapes 320x320": shapes(320, 320, seed=4),
        "drawn face 200": drawn_face(200),
        "drawn face 400": drawn_face(400),
        "drawn face 900 turned": drawn_face(900, turned=12),
        "black 50x40": Image.new("RGB", (50, 40)),
        "one pixel": Image.new("RGB", (1, 1), (120, 90, 60)),
        "line 2000x3": gradient(2000, 3),
    }


def exposed(image: Image.Image, models: Path) -> tuple[float, float]:
    """The highest score of the five uncovered parts, and of a face."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), "black")
    scale = 320 / side
    resized = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (320, 320), "black")
    square.paste(resized, (0, 0))
    tensor = (np.array(square, dtype=np.float64) / 255.0).transpose(2, 0, 1)[np.newaxis].astype(np.float32)
    session = onnxruntime.InferenceSession(str(models / "nudenet-320n" / "320n.onnx"), providers=["CPUExecutionProvider"])
    names = eval(session.get_modelmeta().custom_metadata_map["names"])  # noqa: S307 - the pinned file's own list of classes
    output = session.run(None, {"images": tensor})[0][0]
    best = {name: max(float(box[4 + number]) for box in output.T) for number, name in names.items()}
    parts = ("BUTTOCKS", "FEMALE_BREAST", "FEMALE_GENITALIA", "ANUS", "MALE_GENITALIA")
    return max(best[f"{part}_EXPOSED"] for part in parts), max(best["FACE_FEMALE"], best["FACE_MALE"])


def explicit(image: Image.Image, models: Path) -> float:
    """The whole picture's score."""
    file = io.BytesIO()
    image.resize((256, 256), Image.Resampling.BILINEAR).save(file, format="JPEG")
    pixels = np.array(Image.open(file).convert("RGB").crop((16, 16, 240, 240)), dtype=np.float64)
    tensor = np.stack([pixels[:, :, 2] - 104.0, pixels[:, :, 1] - 117.0, pixels[:, :, 0] - 123.0], axis=2)
    session = onnxruntime.InferenceSession(str(models / "open-nsfw" / "open-nsfw.onnx"), providers=["CPUExecutionProvider"])
    return float(session.run(None, {"input:0": tensor[np.newaxis].astype(np.float32)})[0][0][1])


def measured(bundled: Bundled, image: Image.Image) -> dict[str, Any]:
    """What the analyser says about one picture, as it is stored."""
    found = bundled.analyse([frame_of(image)])
    scores: dict[str, Any] = {one.concept: round(one.score, 5) for one in found if one.concept != "face"}
    scores["faces"] = [
        {"score": round(one.score, 5)} | {key: round(value, 3) for key, value in sorted(one.measures.items())}
        for one in found
        if one.concept == "face"
    ]
    return scores


if __name__ == "__main__":
    analyser = Bundled(installed_models())
    STORED.write_text(json.dumps({name: measured(analyser, image) for name, image in pictures().items()}, indent=2) + "\n")
