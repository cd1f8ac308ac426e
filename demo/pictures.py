"""What lies in the demonstration's store: benign, computed media, some of it broken or hostile; nothing is read from a file or a network."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image
from tests.support import media_makers as make

TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "svg": "image/svg+xml", "pdf": "application/pdf", "mp4": "video/mp4"}


@dataclass(frozen=True, slots=True)
class Upload:
    """One object to put into the store."""

    key: str
    data: bytes

    @property
    def content_type(self) -> str:
        """What a fediverse server would claim, judging by the name alone."""
        ending = self.key.rpartition(".")[2].lower()
        return TYPES.get(ending, f"image/{ending}" if ending in make.STILL_FORMATS else "application/octet-stream")


def ordinary(count: int = 30) -> Iterator[Upload]:
    """Pictures as an instance has them by the thousand, and one of every format that can be looked at."""
    for number in range(count):
        format = ("jpeg", "png", "webp")[number % 3]
        yield Upload(f"pictures/{number:03}.{format}", make.still(format, 640 + number % 5 * 160, 480, number))
    yield Upload("pictures/reposted under another name.jpeg", make.still("jpeg", 640, 480, 0))
    for name, data in make.gallery().items():
        yield Upload(f"formats/{name}", data)


def hostile() -> Iterator[Upload]:
    """Files that bring a careless program down, or that hide something."""
    picture = make.still("jpeg", 320, 240, 1)
    yield Upload("broken/empty.jpg", b"")
    yield Upload("broken/upload that broke off.jpg", make.truncated(picture))
    yield Upload("broken/text.jpg", b"this is no picture\n")
    yield Upload("broken/drawing.svg", make.svg())
    yield Upload("broken/50 kB that unpack to 400 megapixels.png", make.pixel_bomb())
    yield Upload("broken/chunk that unpacks to 200 MB.png", make.text_bomb())
    yield Upload("hiding/zip with a picture in it.jpg", picture + make.zip_of({"inside.png": make.still("png", 200, 150, 2)}))
    yield Upload("hiding/zip with a password.jpg", picture + make.zip_of({"secret.png": b"nobody can see this"}, encrypted=True))
    yield Upload("hiding/zips nine deep.jpg", picture + make.nested_zip(9, picture))
    yield Upload("names/line\nbreak.png", make.still("png", 160, 120, 3))
    yield Upload("names/\x1b[31mcolours the terminal\x1b[0m.png", make.still("png", 160, 120, 4))
    yield Upload("names/" + "long " * 40 + ".png", make.still("png", 160, 120, 5))
    yield Upload("names/--delete-all", make.still("png", 160, 120, 6))
    yield Upload("names/ünï/日本 +%2F&?.webp", make.still("webp", 160, 120, 7))


def drills(pictures: Sequence[bytes]) -> Iterator[Upload]:
    """Four drill pictures in the disguises that earlier tools did not see through."""
    plain, small, last, inside = pictures
    yield Upload("drill/as it was made.png", plain)

    scene = make.scene(1280, 720, 11)
    scene.paste(_open(small).resize((360, 360)), (90, 200))
    yield Upload("drill/small in a larger picture, grey, as a poor JPEG.jpg", make.encode(scene.convert("L"), "jpeg", quality=50))

    frames = [make.scene(512, 512, seed) for seed in range(6)]
    yield Upload("drill/last frame of an animation.webp", make.animation("webp", [*frames, _open(last).resize((512, 512))]))

    yield Upload(
        "drill/inside a zip behind a picture.jpg", make.still("jpeg", 320, 240, 12) + make.zip_of({"a.png": inside}, stored=False)
    )


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")
