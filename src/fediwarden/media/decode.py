"""Decodes pictures with Pillow, only inside the cage, and hands every chosen frame to the views; opens no video.

What breaks off half-way is decoded as far as a browser would show it: cutting a byte must not hide a picture.
"""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import AvifImagePlugin, Image, ImageFile, JpegImagePlugin

from fediwarden.media.limits import Limits
from fediwarden.media.structure import Anatomy
from fediwarden.media.views import ASPECT, TILE_ASPECT, FramePlace, Views, sample, tile_every
from fediwarden.model import Kind, Note, Reason

_PILLOW = {"png": "PNG", "gif": "GIF", "webp": "WEBP", "avif": "AVIF", "bmp": "BMP", "tiff": "TIFF"}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PAD_BOUND = 64 << 20
_PROGRESSIVE_FACTOR = 4  # a drafted JPEG never holds all its pixels, so it may have this many times more


@dataclass(slots=True)
class Decoded:
    """What came of decoding one picture or video; `reason` is given when not all of it could be seen."""

    kind: Kind | None = None
    reason: Reason | None = None
    problem: str = ""
    notes: list[Note] = field(default_factory=list)


def prepare(limits: Limits) -> None:
    """Settings of Pillow that hold for the process; called once before the walls go up."""
    Image.init()
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def decode(data: bytes, format: str, anatomy: Anatomy, source: str, limits: Limits, views: Views) -> Decoded:
    """Show every chosen frame of one picture; never raises for any bytes but MemoryError."""
    outcome = Decoded()
    allowed = limits.max_pixels * (_PROGRESSIVE_FACTOR if format == "jpeg" else 1)
    if anatomy.width * anatomy.height > allowed:
        outcome.kind = Kind(format, anatomy.width, anatomy.height, anatomy.frames)
        outcome.reason, outcome.problem = Reason.BOMB, f"{anatomy.width} x {anatomy.height} pixels"
        return outcome
    if format == "png" and anatomy.essential is not None:
        data = anatomy.essential
    if format == "webp" and anatomy.truncated:
        data = _padded(data)

    shown, problem = 0, ""
    for tolerant in (False, True):
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
        try:
            for _ in _frames(data, format, anatomy, source, limits, views, outcome, shown):
                shown += 1
            break
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            outcome.reason, outcome.problem = Reason.BOMB, _line(error)
            return outcome
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on hostile bytes
            problem = problem or _line(error)
    if outcome.kind is not None:
        kind = outcome.kind
        outcome.kind = Kind(kind.format, kind.width, kind.height, kind.frames, shown, kind.seconds)
    if problem:
        cut = anatomy.truncated or "truncated" in problem or "EOF" in problem
        outcome.reason = Reason.TRUNCATED if cut else Reason.MALFORMED
        outcome.problem = problem
    elif anatomy.truncated:
        outcome.reason, outcome.problem = Reason.TRUNCATED, "the file ends before the picture does"
    return outcome


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]


def _padded(data: bytes) -> bytes:
    """A WebP filled up to the length it claims: the decoder then gives what came, as browsers do."""
    claimed = int.from_bytes(data[4:8], "little") + 8
    return data.ljust(claimed, b"\0") if claimed <= _PAD_BOUND else data


def _frames(
    data: bytes, format: str, anatomy: Anatomy, source: str, limits: Limits, views: Views, outcome: Decoded, skip: int
) -> Iterator[None]:
    """Decode and show the chosen frames, all but the first `skip` of them, telling each."""
    with _opened(data, format, limits) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise Image.DecompressionBombError(f"{width} x {height} pixels")
        orientation = _orientation(image)
        turned = orientation >= 5
        full = (anatomy.width, anatomy.height) if anatomy.width and format == "jpeg" else image.size
        count = _count(image, format, anatomy)
        starts = _starts(anatomy.delays, count)
        wanted = sample(count, starts, limits)
        seconds = sum(anatomy.delays) if count > 1 else 0.0
        name = "apng" if format == "png" and count > 1 else format
        outcome.kind = Kind(name, *(full[::-1] if turned else full), frames=count, seconds=round(seconds, 3))
        if len(wanted) < count:
            outcome.notes = [Note("coverage", source or "frames", 0, f"{len(wanted)} of {count} frames looked at")]
        every = tile_every(len(wanted), width, height)
        if every > 1:
            outcome.notes.append(Note("coverage", source or "tiles", 0, f"every {every}th frame looked at in tiles"))
        for number, index in enumerate(wanted):
            if number < skip:
                continue
            if index:
                image.seek(index)
            image.load()
            upright = _turned(image, orientation if format != "tiff" else _orientation(image))
            tiled = number % every == 0 or number == len(wanted) - 1
            edge = limits.frame_edge if count == 1 or format == "tiff" else limits.animated_edge
            views.show(upright, FramePlace(index, starts[index] if starts else 0.0, source, edge, tiled))
            yield


def _opened(data: bytes, format: str, limits: Limits) -> ImageFile.ImageFile:
    stream = io.BytesIO(data)
    if format != "jpeg":
        return Image.open(stream, formats=[_PILLOW[format]])
    image = JpegImagePlugin.JpegImageFile(stream)  # not Image.open, which would read further pictures into this one
    width, height = image.size
    scale = limits.draft_edge / max(width, height)
    if max(width, height) > ASPECT * min(width, height):  # tiles need their short side
        scale = max(scale, limits.draft_edge / TILE_ASPECT / min(width, height))
    if scale < 1:
        image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
    return image


def _count(image: ImageFile.ImageFile, format: str, anatomy: Anatomy) -> int:
    match format:
        case "gif":
            return max(1, anatomy.frames)  # counting by Pillow would read the whole file once more
        case "png" | "webp" | "avif" | "tiff":
            return max(1, int(getattr(image, "n_frames", 1)))
        case _:
            return 1


def _starts(delays: list[float], count: int) -> list[float] | None:
    """When each frame appears. A delay of 0 is shown for a tenth of a second by browsers, and so it counts here."""
    if count < 2 or not delays:
        return None
    delays = [0.1] * (count - len(delays)) + [delay or 0.1 for delay in delays]
    starts, now = [], 0.0
    for delay in delays[:count]:
        starts.append(now)
        now += delay
    return starts


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - an unreadable EXIF turns nothing
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
