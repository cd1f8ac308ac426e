"""How the embedded default's scores move when only the rendering of skin or light changes; benign pictures, no rate of errors.

    python -m pip install --no-deps --target PICTURES scikit-image==0.26.0 matplotlib==3.11.2 arcade==3.3.3
    python -m bench.fairness PICTURES --models MODELS [--people FOLDER]

The packages are only unpacked for the pictures in them; none is imported. `--people` adds photographs of your own, of
adults who agreed. Prints the tables of docs/fairness.md. What this cannot measure is said there.
"""

import argparse
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from tests.support.pictures import drawn_face, frame_of, shapes

from fediwarden import config
from fediwarden.analysers.bundled import Bundled
from fediwarden.analysers.exposed import MODEL as EXPOSED
from fediwarden.analysers.exposed import Exposed
from fediwarden.analysers.flat import evenness
from fediwarden.inference import registry
from fediwarden.inference.sessions import OnnxSession
from fediwarden.model import EngineVersion, Finding, Look, ObjectRef, Sha256, Standing, StoreName
from fediwarden.policy import decide, parse

SKIMAGE, SAMPLES = "skimage/data/", "matplotlib/mpl-data/sample_data/"
PEOPLE = (SKIMAGE + "astronaut.png", SAMPLES + "grace_hopper.jpg")
FACES = SKIMAGE + "lfw_subset.npy"  # 100 faces of 25 by 25 grey pixels, and then 100 that are none
PHOTOGRAPHS = (
    *PEOPLE,
    *(
        SKIMAGE + name
        for name in (
            "brick.png",
            "camera.png",
            "chelsea.png",
            "clock_motion.png",
            "coffee.png",
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "moon.png",
            "motorcycle_left.png",
            "retina.jpg",
            "rocket.jpg",
        )
    ),
)
GRAPHICS = (
    *(
        SKIMAGE + name
        for name in ("chessboard_GRAY.png", "chessboard_RGB.png", "color.png", "horse.png", "logo.png", "phantom.png")
    ),
    *(SAMPLES + name for name in ("Minduka_Present_Blue_Pack.png", "logo2.png")),
)
# drawn for games: Kenney (CC0) and Luis Zuno
ARCADE = "arcade/resources/assets/images/"
FIGURES = (
    *(f"animated_characters/{who}" for who in ("female_adventurer", "female_person", "male_adventurer", "male_person")),
    "alien",
)
SCENES = ("cybercity_background", "miami_synth_parallax/layers")
# Ellis Monk, "Monk Skin Tone Scale", 2019, skintone.google, CC BY 4.0
TONES = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DRAWN_SKIN = (214, 168, 138)  # of tests.support.pictures.drawn_face

Pixels = NDArray[np.float64]  # (height, width, 3), 0 to 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What the embedded default makes of one rendering; the face is the clearest one, None where there is none."""

    exposed: float
    explicit: float
    face: Finding | None
    young: bool  # a face that meets the default policy's mark young_face
    usable: bool

    @property
    def age(self) -> float:
        return self.face.measures["age"] if self.face else float("nan")

    @property
    def under_18(self) -> float:
        return self.face.measures["under_18"] if self.face else float("nan")


class Watcher:
    """The embedded default, two marks of the default policy, and a count of what that policy decides."""

    def __init__(self, models: Path) -> None:
        self._bundled = Bundled(models, threads=2)
        self._policy = parse(config.default_policy(), "default")
        marks = {mark.name: mark for mark in self._policy.marks}
        self._young, self._usable = marks["young_face"], marks["usable_face"]
        self.decisions: Counter[str] = Counter()

    def see(self, picture: Image.Image) -> Seen:
        found = self._bundled.analyse([frame_of(picture)])
        ref = ObjectRef(StoreName("fairness"), "picture", 1, "")
        look = Look(ref, Standing.SEEN, NOW, Sha256("0" * 64), EngineVersion("0"), findings=tuple(found))
        decision = decide(look, self._policy)
        self.decisions[decision.step.value if decision else "none"] += 1
        scores = {one.concept: one.score for one in found if one.concept != "face"}
        faces = sorted((one for one in found if one.concept == "face"), key=lambda one: one.score)
        return Seen(
            scores["exposed"],
            scores["explicit"],
            faces[-1] if faces else None,
            any(self._young.meets(one) for one in faces),
            any(self._usable.meets(one) for one in faces),
        )


# -- renderings of a whole picture ----------------------------------------------------------------------------------------


def renderings() -> Mapping[str, Sequence[tuple[str, Callable[[Pixels], Pixels]]]]:
    """By family: named ways to render the same picture, without the untouched one."""
    gammas, gains, warmths = (0.5, 0.6, 0.75, 1.33, 1.67, 2.0), (0.4, 0.55, 0.7, 0.85, 1.15, 1.3), (0.8, 0.9, 1.1, 1.2)
    return {
        "gamma 0.5 to 2": [(f"gamma {g:g}", lambda p, g=g: p**g) for g in gammas],
        "brightness x 0.4 to 1.3": [(f"x {g:g}", lambda p, g=g: p * g) for g in gains],
        "contrast x 0.4 to 1.6": [
            (f"contrast {c:g}", lambda p, c=c: p.mean() + (p - p.mean()) * c) for c in (0.4, 0.7, 1.3, 1.6)
        ],
        "hue -20 to +20 degrees": [(f"hue {d:+d}", lambda p, d=d: turned(p, d)) for d in (-20, -10, 10, 20)],
        "colder to warmer": [(f"red x {w:g}", lambda p, w=w: p * (w, 1, 1 / w)) for w in warmths],
        "saturation 0 to 1.5": [(f"saturation {s:g}", lambda p, s=s: saturated(p, s)) for s in (0.0, 0.5, 1.5)],
    }


def turned(pixels: Pixels, degrees: float) -> Pixels:
    """The hue of every pixel turned around the grey axis, its luminance kept nearly."""
    c, s, third = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 1 / 3
    side, other = third * (1 - c) - np.sqrt(third) * s, third * (1 - c) + np.sqrt(third) * s
    middle = c + third * (1 - c)
    found: Pixels = pixels @ np.array([[middle, side, other], [other, middle, side], [side, other, middle]]).T
    return found


def saturated(pixels: Pixels, share: float) -> Pixels:
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    found: Pixels = grey[..., np.newaxis] * (1 - share) + pixels * share
    return found


def rendered(picture: Image.Image, how: Callable[[Pixels], Pixels]) -> Image.Image:
    pixels = np.asarray(picture.convert("RGB"), np.float64) / 255
    return Image.fromarray((how(pixels).clip(0, 1) * 255).round().astype(np.uint8))


# -- skin alone -----------------------------------------------------------------------------------------------------------


def tones() -> Iterator[tuple[int, tuple[int, int, int]]]:
    for number, tone in enumerate(TONES, 1):
        yield number, (int(tone[:2], 16), int(tone[2:4], 16), int(tone[4:], 16))


def recoloured_face(picture: Image.Image, box: tuple[float, float, float, float], tone: tuple[int, int, int]) -> Image.Image:
    """The face's oval with the light on it scaled, channel by channel, so that its middle becomes `tone`.

    Features and shading stay, and so do hair, hands and everything else: this is a recoloured picture of one person.
    """
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    left, top, right, bottom = box
    inner = pixels[
        int(top * 0.6 + bottom * 0.4) : int(top * 0.3 + bottom * 0.7),
        int(left * 0.7 + right * 0.3) : int(left * 0.3 + right * 0.7),
    ]
    middle = np.median(inner.reshape(-1, 3), axis=0)
    gain = linear(np.array(tone)) / linear(middle)
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    weight = np.asarray(mask.filter(ImageFilter.GaussianBlur((right - left) / 20)), np.float64)[..., np.newaxis] / 255
    changed = 255 * (linear(pixels) * gain).clip(0, 1) ** (1 / 2.2)
    return Image.fromarray((pixels * (1 - weight) + changed * weight).round().astype(np.uint8))


def linear(colours: Pixels) -> Pixels:
    """Light out of sRGB values, nearly."""
    light: Pixels = (np.asarray(colours, np.float64) / 255) ** 2.2
    return light


def recoloured_drawing(picture: Image.Image, tone: tuple[int, int, int]) -> Image.Image:
    """A drawn face whose skin is of another colour, the nose's darker one moved along."""
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    skin = np.array(DRAWN_SKIN, np.float64)
    weight = (2 - np.linalg.norm(pixels - skin, axis=2) / 40).clip(0, 1)[..., np.newaxis]
    return Image.fromarray((pixels + weight * (np.array(tone) - skin)).clip(0, 255).round().astype(np.uint8))


def drawings() -> list[Image.Image]:
    return [drawn_face(size, turned=turn) for size in (240, 400) for turn in (-12, 0, 12)]


# -- what is neither ------------------------------------------------------------------------------------------------------


def opened(path: Path) -> Image.Image:
    """The picture on white where it is transparent."""
    with Image.open(path) as image:
        clear = image.convert("RGBA")
    ground = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(ground, clear).convert("RGB")


def pages() -> list[Image.Image]:
    """What looks like screenshots: bars, boxes and lines of words."""
    made = []
    for number, (paper, ink) in enumerate((("white", "black"), ("#1e1e1e", "#d4d4d4"), ("#f4f0e8", "#333333"))):
        picture = Image.new("RGB", (1280, 800), paper)
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0, 1280, 56), fill="#3a5f8a")
        draw.rectangle((0, 56, 220, 800), fill="#cccccc" if number != 1 else "#2d2d2d")
        for line in range(34):
            draw.text((250, 80 + 20 * line), "words of a page, such as are sent about a day " * (2 + line % 3), fill=ink)
        made.append(picture)
    return made


# -- tables ---------------------------------------------------------------------------------------------------------------


def signed(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean, smallest and largest; NaN where nothing is known."""
    known = [value for value in values if value == value]
    return (mean(known), min(known), max(known)) if known else (float("nan"),) * 3


def row(*cells: object) -> None:
    print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True)


def heading(*cells: str) -> None:
    print()
    row(*cells)
    row(*("---" for _ in cells))


def span(values: Iterable[float], digits: int) -> str:
    """ "mean (smallest to largest)" of movements."""
    middle, low, high = signed(values)
    return "none known" if middle != middle else f"{middle:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def whole_pictures(watcher: Watcher, people: Sequence[tuple[str, Image.Image]]) -> None:
    heading("picture", "rendering", "exposed", "explicit", "age", "under_18", "young", "no face")
    for name, picture in people:
        base = watcher.see(picture)
        row(name, "untouched", base.exposed, base.explicit, f"{base.age:.1f}", base.under_18, "yes" if base.young else "no", "")
        for family, ways in renderings().items():
            seen = [watcher.see(rendered(picture, how)) for _, how in ways]
            row(
                name,
                f"{family} ({len(ways)})",
                span((one.exposed - base.exposed for one in seen), 3),
                span((one.explicit - base.explicit for one in seen), 3),
                span((one.age - base.age for one in seen), 1),
                span((one.under_18 - base.under_18 for one in seen), 3),
                sum(one.young for one in seen),
                sum(one.face is None for one in seen),
            )


def skin_alone(watcher: Watcher, boxes: Exposed, people: Sequence[tuple[str, Image.Image]]) -> None:
    heading("tone", *(f"{name}: {what}" for name, _ in people for what in ("exposed", "explicit", "age", "under_18")))
    found = [(picture, max(boxes.look(picture)[1], key=lambda face: face.score)) for _, picture in people]
    for number, tone in tones():
        cells: list[object] = []
        for picture, face in found:
            seen = watcher.see(recoloured_face(picture, (face.left, face.top, face.right, face.bottom), tone))
            cells += [seen.exposed, seen.explicit, f"{seen.age:.1f}", seen.under_18]
        row(f"{number} #{TONES[number - 1]}", *cells)


def drawn(watcher: Watcher) -> None:
    made = drawings()
    heading(
        "tone", "taken for a face", "exposed, largest", "explicit, largest", "age", "under_18, mean", f"young, of {len(made)}"
    )
    for number, tone in tones():
        seen = [watcher.see(recoloured_drawing(picture, tone)) for picture in made]
        middle, low, high = signed(one.age for one in seen)
        row(
            f"{number} #{TONES[number - 1]}",
            sum(one.face is not None for one in seen),
            max(one.exposed for one in seen),
            max(one.explicit for one in seen),
            f"{middle:.1f} ({low:.1f} to {high:.1f})" if middle == middle else "none known",
            signed(one.under_18 for one in seen)[0] if middle == middle else "none known",
            sum(one.young for one in seen),
        )


def small_faces(watcher: Watcher, path: Path) -> None:
    faces = np.load(path, allow_pickle=False)[:100]
    pictures = [
        Image.fromarray((255 * face).round().astype(np.uint8)).resize((200, 200), Image.Resampling.BICUBIC) for face in faces
    ]
    heading("rendering", "a face, of 100", "usable", "young", "age: median", "exposed: largest", "from 0.3", "explicit: largest")
    for gamma in (0.5, 0.75, 1.0, 1.33, 2.0):
        seen = [watcher.see(rendered(picture, lambda p, g=gamma: p**g)) for picture in pictures]  # type: ignore[misc]
        ages = sorted(one.age for one in seen if one.usable)
        row(
            f"gamma {gamma:g}",
            sum(one.face is not None for one in seen),
            sum(one.usable for one in seen),
            sum(one.young for one in seen),
            f"{ages[len(ages) // 2]:.1f}" if ages else "none",
            max(one.exposed for one in seen),
            sum(one.exposed >= 0.3 for one in seen),
            max(one.explicit for one in seen),
        )


def even(pictures: Path) -> None:
    def drawn_for_games(folders: Iterable[str]) -> list[tuple[str, Image.Image]]:
        return [(path.stem, opened(path)) for folder in folders for path in sorted((pictures / ARCADE / folder).glob("*.png"))]

    kinds: Mapping[str, Sequence[tuple[str, Image.Image]]] = {
        "photographs": [(Path(name).stem, opened(pictures / name)) for name in PHOTOGRAPHS],
        "graphics and logos": [(Path(name).stem, opened(pictures / name)) for name in GRAPHICS],
        "cartoon figures, small": drawn_for_games(FIGURES),
        "drawn scenes": drawn_for_games(SCENES),
        "made here: pages of words": [(str(n), page) for n, page in enumerate(pages())],
        "made here: plain shapes": [(str(n), shapes(640, 480, seed=n)) for n in range(6)],
        "made here: soft drawn faces": [(str(n), picture) for n, picture in enumerate(drawings())],
    }
    marks = (0.3, 0.4, 0.5, 0.6)
    heading("kind", "pictures", "flat: smallest", "median", "largest", *(f"from {mark:g}" for mark in marks), "median as JPEG 75")
    for kind, members in kinds.items():
        known = sorted(evenness(frame_of(picture)) for _, picture in members)
        lossy = sorted(evenness(frame_of(as_jpeg(picture))) for _, picture in members)
        over = [sum(value >= mark for value in known) for mark in marks]
        row(kind, len(known), known[0], known[len(known) // 2], known[-1], *over, lossy[len(lossy) // 2])


def as_jpeg(picture: Image.Image) -> Image.Image:
    with io.BytesIO() as out:
        picture.save(out, "JPEG", quality=75)
        with Image.open(out) as image:
            return image.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--people", type=Path, help="a folder of further photographs, of adults who agreed")
    arguments = parser.parse_args()
    own = sorted(path for path in arguments.people.iterdir() if path.is_file()) if arguments.people else []
    people = [(path.stem, opened(path)) for path in (*(arguments.pictures / name for name in PEOPLE), *own)]
    watcher = Watcher(arguments.models)
    whole_pictures(watcher, people)
    boxes = Exposed(OnnxSession(registry.load(arguments.models, EXPOSED).only, name=EXPOSED))
    skin_alone(watcher, boxes, people)
    drawn(watcher)
    small_faces(watcher, arguments.pictures / FACES)
    even(arguments.pictures)
    print("\ndecided by the default policy:", ", ".join(f"{count} {step}" for step, count in sorted(watcher.decisions.items())))


if __name__ == "__main__":
    main()
