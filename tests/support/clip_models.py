"""A tiny image-text model made on the spot, whose scores a test can foresee: it looks at a picture's mean colour and nothing else.

The embedding of a picture is (red, green, blue, 1), each colour from -1 to 1, at unit length. The words of the first group of
concepts lie along red, those of the second along green, those of the third along blue; the controls along the 1, which is
plain grey. So red scores high for the first group, yellow for the first two at once, grey and black for none. No weights of
anybody are in it. Needs the package onnx.
"""

import io
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fediwarden.inference.manifest import (
    MANIFEST,
    Agreement,
    HubOrigin,
    ImageInput,
    ImageText,
    ModelFile,
    ModelManifest,
    Role,
    as_toml,
)
from fediwarden.model import Concepts

SIDE = 32  # pixels of the tower's input
SCALE = 20.0
GREY = (127, 128, 127)
_OPSET = 17
_IR = 9  # older than onnxruntime's newest
_INT8 = 1 / 127


def make_clip_model(
    models_dir: Path, concepts: Concepts, name: str = "tiny-clip", precisions: Sequence[str] = ("fp32",), turned: float = 0.0
) -> ModelManifest:
    """Write a whole model's folder, as `models build` leaves it, and return its manifest.

    `turned` (radians) turns red towards green, which makes another model of it.
    """
    folder = models_dir / name
    folder.mkdir(parents=True)
    made = [
        *(_write(folder, f"image-{one}.onnx", tower(one, turned), Role.IMAGE, precision=one) for one in precisions),
        _write(folder, f"text-{concepts.digest}.npz", text_file(concepts), Role.TEXT, concepts=concepts.digest),
    ]
    manifest = ModelManifest(
        name,
        measures="how well a picture fits short texts (a stand-in for tests: its mean colour)",
        licence="none needed",
        input=f"{SIDE} x {SIDE}",
        precision=", ".join(precisions),
        origin=HubOrigin("tests/tiny-clip", ""),
        files=tuple(made),
        image_text=ImageText(
            "tiny",
            dimensions=4,
            scale=SCALE,
            image=ImageInput(SIDE, "longest", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            agreements=tuple(Agreement(one, 4, 1.0, 1.0) for one in precisions if one != "fp32"),
        ),
    )
    (folder / MANIFEST).write_text(as_toml(manifest), encoding="utf-8")
    return manifest


def add_texts(models_dir: Path, manifest: ModelManifest, concepts: Concepts) -> ModelManifest:
    """The same model with the embeddings of other concepts beside those it has."""
    folder = models_dir / manifest.name
    file = _write(folder, f"text-{concepts.digest}.npz", text_file(concepts), Role.TEXT, concepts=concepts.digest)
    changed = ModelManifest(
        manifest.name,
        manifest.measures,
        manifest.licence,
        manifest.input,
        manifest.precision,
        manifest.origin,
        (*manifest.files, file),
        manifest.image_text,
    )
    (folder / MANIFEST).write_text(as_toml(changed), encoding="utf-8")
    return changed


def link_bundled(models_dir: Path, installed: Path) -> None:
    """The bundled models beside it, which every mode needs: links to those that are installed for all tests."""
    models_dir.mkdir(parents=True, exist_ok=True)
    for folder in installed.iterdir():
        if (folder / MANIFEST).is_file() and not (models_dir / folder.name).exists():
            (models_dir / folder.name).symlink_to(folder, target_is_directory=True)


def plain_picture(colour: tuple[int, int, int], grain: int = 0, seed: int = 0, side: int = 64) -> bytes:
    """A PNG of one colour; `grain` is how far its pixels scatter around it, so that no two need be the same bytes."""
    random = np.random.Generator(np.random.PCG64(seed))
    pixels = np.asarray(colour, np.int16) + random.integers(-grain, grain + 1, (side, side, 3))
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def colour_for(*strengths: float) -> tuple[int, int, int]:
    """A colour that scores for the first, second and third group by these strengths, 0 (grey) to 1; 0 where left out."""
    full = (*strengths, 0.0, 0.0, 0.0)[:3]
    red, green, blue = (round(127.5 + 127.5 * strength) for strength in full)
    return red, green, blue


def vectors(concepts: Concepts) -> NDArray[np.float32]:
    """The embeddings (texts, 4) of `concepts.texts`."""
    rows: list[list[float]] = []
    for number, group in enumerate(concepts.groups):
        for word in range(len(group.words)):  # each word a little apart from the others
            row = [0.0, 0.0, 0.0, 0.08 * word]
            row[number % 3] = 1.0
            rows.append(row)
    rows.extend([[0.0, 0.0, 0.05 * number, 1.0] for number in range(len(concepts.controls))])
    found = np.asarray(rows, np.float32)
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def text_file(concepts: Concepts) -> bytes:
    """The content of `text-DIGEST.npz`."""
    out = io.BytesIO()
    np.savez(out, vectors=vectors(concepts), texts=np.asarray(concepts.texts))
    return out.getvalue()


def tower(precision: str = "fp32", turned: float = 0.0) -> bytes:
    """The image tower in ONNX: pixel_values (batch, 3, SIDE, SIDE) to image_embeds (batch, 4), float32 at both ends."""
    weights = np.eye(3, 4, dtype=np.float32)
    weights[0, :2] = np.cos(turned), np.sin(turned)
    bias = np.asarray([0, 0, 0, 1], np.float32)
    half = precision == "fp16"
    number = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    constants = [
        numpy_helper.from_array(array.astype(np.float16 if half else np.float32), label)
        for label, array in (("weights", weights), ("bias", bias))
    ]
    nodes = [helper.make_node("ReduceMean", ["pixel_values"], ["mean"], axes=[2, 3], keepdims=0)]
    last = "mean"
    if half:
        nodes.append(helper.make_node("Cast", [last], ["half"], to=number))
        last = "half"
    if precision == "int8":
        constants += [
            numpy_helper.from_array(np.asarray(_INT8, np.float32), "step"),
            numpy_helper.from_array(np.asarray(0, np.int8), "zero"),
        ]
        nodes.append(helper.make_node("QuantizeLinear", [last, "step", "zero"], ["small"]))
        nodes.append(helper.make_node("DequantizeLinear", ["small", "step", "zero"], ["coarse"]))
        last = "coarse"
    nodes.append(helper.make_node("Gemm", [last, "weights", "bias"], ["embedding"]))
    last = "embedding"
    if half:
        nodes.append(helper.make_node("Cast", [last], ["float"], to=TensorProto.FLOAT))
        last = "float"
    nodes.append(helper.make_node("LpNormalization", [last], ["image_embeds"], axis=1, p=2))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    data: bytes = model.SerializeToString()
    return data


def _write(folder: Path, name: str, data: bytes, role: Role, *, precision: str = "", concepts: str = "") -> ModelFile:
    (folder / name).write_bytes(data)
    return ModelFile(name, sha256(data).hexdigest(), len(data), role, precision, concepts)
