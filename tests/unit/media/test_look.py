"""What one look finds in honest and dishonest files: formats, modes, hidden payloads, archives, claims, drill codes."""

import io
import random
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from tests.support import media_makers as make
from tests.support.looking import look, pixels

from fediwarden.media import Cage, Limits
from fediwarden.model import Ground, Reason

INNER = make.encode(make.flat("red", 50, 40), "png")
JPEG = make.still("jpeg", 160, 120)
NOISE = random.Random(1).randbytes(20_000)


@pytest.fixture(scope="module")
def cage() -> Iterator[Cage]:
    with Cage(Limits(archive_mb=8)) as cage:
        yield cage


@pytest.mark.parametrize(("name", "data"), list(make.gallery().items()), ids=list(make.gallery()))
def test_every_format_is_seen(cage: Cage, name: str, data: bytes) -> None:
    seen = look(cage, data, name)

    assert seen.frames
    assert seen.report.reason is (Reason.UNSUPPORTED if name in ("plain.zip", "page.pdf") else None)
    assert not seen.report.unopened
    assert ("claim", "object") not in seen.notes


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F", "PA"])
def test_every_mode_of_pixels_keeps_its_shapes(cage: Cage, mode: str) -> None:
    grey = np.asarray(make.scene(100, 80).convert("L"))
    match mode:
        case "I;16":
            picture = Image.fromarray(grey.astype(np.uint16) * 257)
        case "I":
            picture = Image.fromarray(grey.astype(np.int32) * 100_000)
        case "F":
            picture = Image.fromarray(grey.astype(np.float32) / 255)
        case "LAB":
            picture = Image.merge("LAB", [Image.fromarray(grey)] * 3)
        case "PA":
            picture = make.scene(100, 80).convert("RGBA")
        case _:
            picture = make.scene(100, 80).convert(mode)
    seen = look(cage, make.encode(picture, "tiff"))

    assert seen.report.reason is None
    assert float(pixels(seen.frames[0]).std()) > 20


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_shows_both_grounds(cage: Cage, mode: str) -> None:
    picture = make.flat("red", 40, 40)
    picture.paste((0, 0, 255), (10, 10, 30, 30))
    picture = picture.convert(mode)
    clear = picture.getpixel((0, 0))
    seen = look(cage, make.encode(picture, "png", transparency=clear))

    corners = {frame.ground: int(pixels(frame)[0, 0].max()) for frame in seen.frames}
    assert corners == {Ground.BLACK: 0, Ground.WHITE: 255}


def test_a_large_jpeg_is_drafted_and_its_kind_tells_the_true_size(cage: Cage) -> None:
    seen = look(cage, make.still("jpeg", 1920, 1080))

    assert (seen.frames[0].width, seen.frames[0].height) == (960, 540)
    assert seen.report.kind is not None
    assert (seen.report.kind.width, seen.report.kind.height) == (1920, 1080)


def test_a_long_animation_is_sampled_and_says_so(cage: Cage) -> None:
    seen = look(cage, make.animation("gif", 300, 50))

    indexes = [frame.index for frame in seen.frames]
    assert len(indexes) == 64
    assert (indexes[0], indexes[-1]) == (0, 299)
    assert seen.report.kind is not None
    assert (seen.report.kind.frames, seen.report.kind.sampled) == (300, 64)
    assert ("coverage", "frames") in seen.notes


def test_a_long_video_is_looked_at_twice_a_second(cage: Cage) -> None:
    seen = look(cage, make.movie("mp4", make.colours(600, 64, 48), 10))

    times = [frame.at for frame in seen.frames]
    assert max(b - a for a, b in pairwise(times)) <= 0.51
    assert times[-1] == pytest.approx(59.9)


@pytest.mark.parametrize(("codec", "format"), [("mpeg4", "mp4"), ("libx264", "mov"), ("libvpx", "webm")])
def test_jumping_between_keyframes_shows_the_frames_that_were_meant(codec: str, format: str) -> None:
    levels = [make.flat((n * 7 % 200 + 20,) * 3, 64, 48) for n in range(500)]
    data = make.movie(format, levels, codec=codec)
    with Cage(Limits(all_frames=4, frame_bound=8)) as cage:
        seen = look(cage, data)

    assert [frame.index for frame in seen.frames] == pytest.approx([n * 499 / 7 for n in range(8)], abs=1)
    for frame in seen.frames:
        assert abs(int(pixels(frame)[24, 32, 0]) - (frame.index * 7 % 200 + 20)) <= 6


def test_identical_neighbours_leave_the_cage_once(cage: Cage) -> None:
    seen = look(cage, make.movie("mp4", [make.flat("red", 64, 48)] * 20))

    assert len(seen.frames) == 1
    assert seen.report.kind is not None
    assert seen.report.kind.sampled == 20


# --- hidden payloads ----------------------------------------------------------------------------------------------------

HIDING_PLACES = {
    "behind a jpeg": JPEG + INNER,
    "behind a png": make.still("png", 60, 60) + INNER,
    "behind a gif": make.still("gif", 60, 60) + INNER,
    "behind a webp": make.still("webp", 60, 60) + INNER,
    "behind an avif": make.still("avif", 60, 60) + INNER,
    "behind a bmp": make.still("bmp", 60, 60) + INNER,
    "behind a tiff": make.still("tiff", 60, 60) + INNER,
    "behind an mp4": make.movie("mp4", 3) + INNER,
    "behind a webm": make.movie("webm", 3) + INNER,
    "behind rubbish behind a jpeg": JPEG + b"rubbish " * 30 + INNER,
    "in a private segment": make.with_segment(JPEG, b"PRIVATE\0" + INNER),
    "in a comment": make.with_comment(JPEG, INNER),
    "in a private chunk": make.with_chunk(make.still("png", 60, 60), b"prVt", INNER),
    "in a private webp chunk": make.with_riff_chunk(make.still("webp", 60, 60), b"HIDE", INNER),
    "in a zip": JPEG + make.zip_of({"a.png": INNER}, stored=False),
    "in a zip in a zip in a zip": JPEG + make.nested_zip(3, INNER),
    "in a tar": JPEG + make.tar_of({"a.png": INNER}),
    "in a tar.gz": JPEG + make.tar_of({"a.png": INNER}, "gz"),
    "in a tar.bz2": JPEG + make.tar_of({"a.png": INNER}, "bz2"),
    "in a tar.xz": JPEG + make.tar_of({"a.png": INNER}, "xz"),
    "in a picture behind a picture": JPEG + make.still("png", 60, 60) + INNER,
    "in a picture in a zip": JPEG + make.zip_of({"b.jpg": JPEG + INNER}),
    "in a zip that is no picture": make.zip_of({"a.png": INNER}),
    "in text": b"some words first\n" * 20 + INNER,
    "in mp4 free space": (lambda m: m + (len(INNER) + 8).to_bytes(4, "big") + b"free" + INNER)(make.movie("mp4", 3)),
    "in a broken zip": JPEG + make.zip_of({"a.png": INNER})[:-30],
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_a_picture_is_found_and_looked_at(cage: Cage, place: str) -> None:
    seen = look(cage, HIDING_PLACES[place])

    hidden = [frame for frame in seen.frames if frame.source and (frame.width, frame.height) == (50, 40)]
    assert hidden, seen.report
    assert tuple(pixels(hidden[0])[20, 25]) == (255, 0, 0)
    assert any(note.what == "picture" for note in seen.report.notes)


def test_a_video_behind_a_picture_is_looked_at(cage: Cage) -> None:
    seen = look(cage, make.motion_photo(JPEG, make.movie("mp4", 6)))

    assert len([frame for frame in seen.frames if frame.source == "trailing"]) == 6
    assert not seen.report.unopened


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (make.zip_of({"a.png": INNER}, encrypted=True), "encrypted"),
        (b"7z\xbc\xaf\x27\x1c\0\x04" + NOISE, "unsupported"),
        (b"Rar!\x1a\x07\x01\0" + NOISE, "unsupported"),
        (b"age-encryption.org/v1\n" + NOISE, "encrypted"),
        (make.nested_zip(4, INNER), "too deep"),
        (make.zip_bomb(20), "too large"),
        (NOISE, "unsupported"),
        (b"%PDF-1.4\n" + NOISE, "unsupported"),
        (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + NOISE, "unsupported"),
        (make.zip_of({"a.jpg": b"\xff\xd8\xff" + NOISE}), "broken"),
    ],
    ids=["encrypted zip", "7z", "rar", "age", "four zips deep", "zip bomb", "unknown", "pdf", "heic", "broken jpeg in a zip"],
)
def test_what_was_not_opened_is_named(cage: Cage, payload: bytes, why: str) -> None:
    seen = look(cage, JPEG + payload)

    assert why in seen.whys
    assert seen.report.reason is None  # the picture itself was seen


@pytest.mark.parametrize(
    "data",
    [
        JPEG + bytes(5000),
        JPEG + b"\r\n",
        JPEG + b"posted with love from my telephone\n" * 100,
        make.with_comment(JPEG, b"CREATOR: some program, quality = 90"),
        make.with_segment(JPEG, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>" + b" " * 3000, 0xE1),
        make.with_segment(JPEG, b"ICC_PROFILE\0\x01\x01" + NOISE, 0xE2),
        make.with_segment(JPEG, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + NOISE, 0xE1),
        make.with_thumbnail(JPEG, make.encode(make.flat(), "jpeg")),
        make.with_second_picture(JPEG, make.still("jpeg", 50, 50)),
        make.png_texts(make.still("png", 40, 40), Comment="hello", Software="some program"),
        make.with_chunk(make.still("png", 40, 40), b"vpAg", bytes(range(9))),
        JPEG + NOISE[:40],
    ],
    ids=[
        "zeros",
        "newline",
        "words",
        "comment",
        "xmp",
        "profile",
        "maker notes",
        "thumbnail",
        "mpf",
        "png text",
        "small chunk",
        "few bytes",
    ],
)
def test_what_cameras_and_programs_leave_behind_is_no_alarm(cage: Cage, data: bytes) -> None:
    seen = look(cage, data)

    assert seen.report.reason is None
    assert not seen.report.unopened


def test_a_script_behind_a_gif_is_a_note(cage: Cage) -> None:
    seen = look(cage, make.still("gif", 20, 20) + b"<script>alert(1)</script>")

    assert ("script", "trailing") in seen.notes


@pytest.mark.parametrize(
    ("key", "claimed", "notes"),
    [
        ("a/b.jpg", "image/jpeg", 0),
        ("a/b.png", "image/png", 2),
        ("b.jpg", "video/mp4", 1),
        ("b", "", 0),
        ("x.y/b", "application/octet-stream", 0),
    ],
)
def test_false_claims_are_notes(cage: Cage, key: str, claimed: str, notes: int) -> None:
    seen = look(cage, JPEG, key, claimed)

    assert sum(note.what == "claim" for note in seen.report.notes) == notes


def test_too_many_hidden_pictures_are_counted_as_not_opened() -> None:
    with Cage(Limits(embedded=5)) as cage:
        seen = look(cage, JPEG + make.zip_of({f"{n}.png": INNER for n in range(9)}))

    assert len([frame for frame in seen.frames if frame.source]) == 5
    assert "too many" in seen.whys


@pytest.mark.parametrize(
    "mark",
    [b"\x1f\x8b\x08", b"PK\x03\x04", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x18ftypisom", b"BZh91AY&SY", b"%PDF-"],
    ids=["gzip", "zip", "jpeg", "png", "box", "bzip2", "pdf"],
)
def test_thousands_of_false_beginnings_cost_little_and_are_not_called_opened(cage: Cage, mark: bytes) -> None:
    began = time.monotonic()
    seen = look(cage, JPEG + b"x" + mark * 100_000)

    assert seen.report.reason is None
    assert seen.report.unopened
    assert time.monotonic() - began < 20


# --- codes --------------------------------------------------------------------------------------------------------------


def test_a_drill_code_of_200_pixels_survives_what_servers_do_to_pictures(cage: Cage) -> None:
    text = "FWDRILL1:abcdefgh01234567"
    picture = make.with_code(make.scene(1600, 1200), text, 200, (700, 500))
    changed = [picture, picture.convert("L"), ImageEnhance.Brightness(picture).enhance(0.5), picture.resize((1200, 900))]

    for variant in changed:
        for quality in (90, 30):
            assert look(cage, make.encode(variant, "jpeg", quality=quality)).frames[0].codes == (text,)
    assert look(cage, make.encode(picture, "png")).frames[0].codes == (text,)


def test_no_other_code_leaves_the_cage(cage: Cage) -> None:
    picture = make.with_code(make.scene(800, 600), "https://example.org/secret", 300)

    assert look(cage, make.encode(picture, "png")).frames[0].codes == ()


def test_a_code_inside_a_video_is_read(cage: Cage) -> None:
    picture = make.with_code(make.scene(640, 480), "FWDRILL1:abcdefgh01234567", 240)

    assert look(cage, make.movie("mp4", [picture] * 3)).frames[0].codes


def test_frames_are_not_larger_than_promised(cage: Cage) -> None:
    limits = Limits()
    still = look(cage, make.still("png", 3000, 2000)).frames[0]
    moving = look(cage, make.animation("webp", [make.scene(1000, 700, n) for n in range(2)])).frames[0]

    assert max(still.width, still.height) == limits.frame_edge
    assert max(moving.width, moving.height) == limits.animated_edge
    assert len(still.rgb) == still.width * still.height * 3


def test_a_png_saved_by_pillow_equals_what_leaves_the_cage(cage: Cage) -> None:
    picture = make.scene(300, 200)
    out = io.BytesIO()
    picture.save(out, "PNG")

    assert np.array_equal(pixels(look(cage, out.getvalue()).frames[0]), np.asarray(picture))
