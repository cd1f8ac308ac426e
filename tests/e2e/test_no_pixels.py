"""No pixels leave: after looking, sealing, hiding, killing and failing, no plain byte of the media lies anywhere but in its place."""

import io
import zlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from tests.support.command import Home, write
from tests.support.crashes import Forks
from tests.support.media_makers import animation, movie, still, zip_of


def traces(data: bytes, pixels: bytes) -> list[bytes]:
    """Stretches of the file and of its decoded pixels by which a copy of either would be known."""
    return [whole[at : at + 40] for whole in (data, pixels) for at in range(60, len(whole) - 40, max(40, len(whole) // 40))]


def pixels_of(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.convert("RGB").tobytes()


def leaks(folders: Iterable[Path], known: dict[str, list[bytes]]) -> list[str]:
    """Which of the media can be found in which file."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and "models" not in path.relative_to(folder).parts:
                content = path.read_bytes()
                found += [f"{name} in {path}" for name, marks in known.items() if any(mark in content for mark in marks)]
    return found


def test_nothing_of_the_media_is_left_in_home_or_temporary_folders(home: Home, tmp_path: Path, forked: Forks) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    home.settings |= {"TMPDIR": str(temporary), "TMP": str(temporary), "TEMP": str(temporary)}
    noise = Image.effect_noise((160, 120), 90).convert("RGB")
    out = io.BytesIO()
    noise.save(out, "PNG", compress_level=0)
    inner = still("jpeg", 120, 90, seed=3)
    media = {
        "noise.png": out.getvalue(),
        "photo.jpg": still("jpeg", 300, 200, seed=1),
        "bitmap.bmp": still("bmp", 80, 60, seed=2),
        "moving.gif": animation("gif", 5),
        "film.mp4": movie("mp4", 20),
        "carrier.png": still("png", 90, 70, seed=4) + zip_of({"inner.jpg": inner}),
        "cut.jpg": still("jpeg", 300, 200, seed=5)[:3000],
    }
    marks = {name: traces(data, b"" if name in ("film.mp4", "cut.jpg") else pixels_of(data)) for name, data in media.items()}
    marks["inner.jpg"] = traces(inner, pixels_of(inner))
    marks = {
        name: [mark for mark in found if len(set(mark)) > 8 and len(zlib.compress(mark)) > 24] for name, found in marks.items()
    }
    assert all(marks.values())
    store = tmp_path / "store"
    write(store, media)
    places = [home.folder, temporary]
    assert leaks([store], marks), "the marks would find a copy"

    for moment in (0.4, 0.8, 1.2):
        forked.run(home, "scan", store, after=moment)
        assert leaks(places, marks) == []
    home.forked = None  # from here on as a shell starts it, imports included
    home.run("scan", store, "--again", expect=1)
    home.run("check", *sorted(store.iterdir()), expect=1)
    assert leaks(places, marks) == []
    home.run("apply", "--yes")
    assert leaks(places, marks) == []
    home.run("restore", "moving.gif", "--identity", home.identities[0])
    home.run("explain", "photo.jpg")
    assert leaks(places, marks) == []
    assert list(temporary.iterdir()) == []  # not even the marker of a library that would report home
    assert home.unsealed(media["bitmap.bmp"])
