"""Small harmless files, one of each format that a pict-rs may take, new bytes each time: waves of colour under noise; judges nothing."""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

STILL = (160, 120)  # pixels
MOVING = (96, 72)
FRAMES = 5
RATE = 10  # frames a second
LARGEST = 1 << 20  # bytes: no sample comes near it

# A JPEG XL codestream of 32 by 24 pixels of one colour, as libjxl wrote it: nothing that this program depends on can write one.
JXL = bytes.fromhex(
    "ff0ac5060014880600dc00e1671500800a9551c60d5ecef57cf9a1c362dac67586b6dab6b084b1d95e1824241c30b64935dc3c1c001b0a600c006438eb0000952400"
)


@dataclass(frozen=True, slots=True)
class SampleFile:
    """One file. `data` is None where nothing here can write that format, and `why` says what is missing."""

    format: str
    content_type: str
    data: bytes | None
    why: str = ""

    @property
    def ending(self) -> str:
        """The ending of a file's name."""
        return self.format.partition(" ")[0]


def samples(seed: int) -> Iterator[SampleFile]:
    """One of each format, the usual ones first; the same seed gives the same pictures."""
    import numpy as np

    random = np.random.default_rng(seed)
    stills: dict[str, dict[str, object]] = {
        "png": {},
        "jpeg": {"quality": 90},
        "webp": {"quality": 90},
        "avif": {"quality": 80},
        "gif": {},
    }
    for name, options in stills.items():
        yield _made(name, f"image/{name}", partial(_still, _picture(random, STILL), name, options))
    moving: dict[str, dict[str, object]] = {
        "gif": {"disposal": 1},
        "webp": {"lossless": True},
        "apng": {},
        "avif": {"quality": 80},
    }
    for name, how in moving.items():
        kind = f"image/{name}"
        format = name if name == "apng" else f"{name} animation"
        yield _made(format, kind, partial(_animation, _pictures(random), "png" if name == "apng" else name, how))
    for name in ("mp4", "webm"):
        yield _made(name, f"video/{name}", partial(_video, _pictures(random), name))
    yield _made("heic", "image/heic", partial(_heic, _picture(random, STILL)))
    yield SampleFile("jxl", "image/jxl", _jxl(random.bytes(16)))


def _made(format: str, content_type: str, make: "partial[bytes]") -> SampleFile:
    try:
        return SampleFile(format, content_type, make())
    except ImportError:
        return SampleFile(format, content_type, None, "PyAV is not installed; it comes with the extra `video`")
    except (OSError, KeyError, ValueError) as error:  # a Pillow or FFmpeg that was built without this encoder
        return SampleFile(format, content_type, None, f"nothing here writes it: {error}")


def _picture(random: "np.random.Generator", size: tuple[int, int]) -> "Image.Image":
    import numpy as np
    from PIL import Image

    coarse = Image.fromarray(random.integers(40, 216, (3, 4, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = random.normal(0, 4, (size[1], size[0], 1))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def _pictures(random: "np.random.Generator") -> "list[Image.Image]":
    """Frames in which the waves wander."""
    from PIL import ImageChops

    first = _picture(random, MOVING)
    return [ImageChops.offset(first, step * 6, step * 3) for step in range(FRAMES)]


def _still(picture: "Image.Image", format: str, options: Mapping[str, object]) -> bytes:
    with io.BytesIO() as out:
        picture.save(out, format.upper(), **options)
        return out.getvalue()


def _animation(pictures: "Sequence[Image.Image]", format: str, options: Mapping[str, object]) -> bytes:
    with io.BytesIO() as out:
        pictures[0].save(
            out, format.upper(), save_all=True, append_images=list(pictures[1:]), duration=1000 // RATE, loop=0, **options
        )
        return out.getvalue()


def _video(pictures: "Sequence[Image.Image]", format: str) -> bytes:
    import av
    import numpy as np

    with io.BytesIO() as out:
        with av.open(out, "w", format=format) as container:
            stream = container.add_stream("libvpx-vp9" if format == "webm" else "libx264", rate=RATE)
            stream.width, stream.height = pictures[0].size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
            container.mux(stream.encode(None))
        return out.getvalue()


def _heic(picture: "Image.Image") -> bytes:
    """One HEVC frame as a phone stores it: the boxes of ISO 23008-12, written by hand since nothing here writes them."""
    import av
    import numpy as np

    codec = av.VideoCodecContext.create("libx265", "w")
    codec.width, codec.height = picture.size
    codec.pix_fmt, codec.time_base = "yuv420p", Fraction(1, RATE)
    codec.options = {"x265-params": "log-level=none:info=0:pools=none:frame-threads=1:keyint=1"}
    frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
    stream = b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
    units = [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1") if unit.strip(b"\0")]
    heads = {kind: [unit for unit in units if unit[0] >> 1 & 63 == kind] for kind in (32, 33, 34)}  # VPS, SPS, PPS
    coded = b"".join(struct.pack(">I", len(unit)) + unit for unit in units if unit[0] >> 1 & 63 < 32)
    profile = heads[33][0][3:15].replace(b"\0\0\3", b"\0\0")  # general_profile_tier_level, without emulation prevention
    config = b"\1" + profile[:12].ljust(12, b"\0") + b"\xf0\0\xfc\xfd\xf8\xf8\0\0\x0f" + bytes([len(heads)])
    for kind, found in heads.items():
        config += struct.pack(">BH", 0x80 | kind, len(found)) + b"".join(struct.pack(">H", len(one)) + one for one in found)
    size = b"\0\0\0\0" + struct.pack(">II", *picture.size)
    before = _box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def meta(offset: int) -> bytes:
        return _box(
            b"meta",
            b"\0\0\0\0"
            + _box(b"hdlr", b"\0\0\0\0\0\0\0\0pict" + bytes(13))
            + _box(b"pitm", b"\0\0\0\0\0\1")
            + _box(b"iloc", b"\0\0\0\0\x44\0\0\1" + struct.pack(">HHHII", 1, 0, 1, offset, len(coded)))
            + _box(b"iinf", b"\0\0\0\0\0\1" + _box(b"infe", b"\2\0\0\0\0\1\0\0hvc1\0"))
            + _box(
                b"iprp",
                _box(b"ipco", _box(b"hvcC", config) + _box(b"ispe", size)) + _box(b"ipma", b"\0\0\0\0\0\0\0\1\0\1\2\x81\x02"),
            ),
        )

    return before + meta(len(before) + len(meta(0)) + 8) + _box(b"mdat", coded)


def _jxl(chance: bytes) -> bytes:
    """The codestream in its container, with chance bytes behind it that decoders pass over."""
    return _box(b"JXL ", b"\r\n\x87\n") + _box(b"ftyp", b"jxl \0\0\0\0jxl ") + _box(b"jxlc", JXL + chance)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body
