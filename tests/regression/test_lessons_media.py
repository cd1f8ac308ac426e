"""Rows of the lessons learned from earlier tools that concern opening media, each proved in a real cage."""

import io
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support import media_makers as make
from tests.support.looking import look, pixels

from fediwarden.media import Cage, Limits
from fediwarden.model import Ground, Reason


@pytest.fixture(scope="module")
def cage() -> Iterator[Cage]:
    with Cage(Limits()) as cage:
        yield cage


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY),
        (make.truncated(make.still("jpeg")), Reason.TRUNCATED),
        (make.truncated(make.still("png")), Reason.TRUNCATED),
        (b"just some words, no picture", Reason.UNSUPPORTED),
        (make.svg(), Reason.UNSUPPORTED),
        (make.still("png")[:40] + bytes(5000), Reason.TRUNCATED),
        (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100), Reason.UNSUPPORTED),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), Reason.UNSUPPORTED),
    ],
    ids=["empty", "half a jpeg", "half a png", "text", "svg", "zeros in a png", "heic", "jpeg xl"],
)
def test_f5_what_cannot_be_decoded_is_broken_with_a_reason_and_never_guilty(cage: Cage, data: bytes, reason: Reason) -> None:
    report = look(cage, data).report

    assert report.reason is reason
    assert report.problem


def test_f5_a_video_under_a_picture_s_name_is_looked_at_and_not_called_unreadable(cage: Cage) -> None:
    seen = look(cage, make.movie("mp4", 5), "upload.jpg", "image/jpeg")

    assert seen.report.reason is None
    assert len(seen.frames) == 5
    assert ("claim", "object") in seen.notes


def test_f6_a_400_megapixel_header_is_a_bomb_and_the_next_object_is_looked_at(cage: Cage) -> None:
    bomb = make.pixel_bomb()
    assert len(bomb) < 60_000

    assert look(cage, bomb).report.reason is Reason.BOMB
    assert look(cage, make.giant_gif()).report.reason is Reason.BOMB
    assert look(cage, make.still("png", 20, 20)).report.reason is None


def test_f6_a_picture_with_a_text_bomb_is_seen_and_the_text_counts_as_not_opened(cage: Cage) -> None:
    seen = look(cage, make.text_bomb())

    assert seen.report.reason is None
    assert len(seen.frames) == 1
    assert "too large" in seen.whys


@pytest.mark.parametrize("format", make.ANIMATED_FORMATS)
def test_f10_every_frame_of_an_animation_is_looked_at(cage: Cage, format: str) -> None:
    seen = look(cage, make.animation(format, [make.flat("white"), make.flat("red"), make.flat("blue")]))

    middles = [tuple(int(v) for v in pixels(frame)[24, 32]) for frame in seen.frames]
    assert [frame.index for frame in seen.frames] == [0, 1, 2]
    for middle, colour in zip(middles, ((255, 255, 255), (255, 0, 0), (0, 0, 255)), strict=True):
        assert np.abs(np.subtract(middle, colour)).max() < 12
    assert seen.report.kind is not None
    assert (seen.report.kind.frames, seen.report.kind.sampled) == (3, 3)


@pytest.mark.parametrize("format", make.VIDEO_FORMATS)
def test_f10_a_video_is_looked_at_from_the_first_to_the_last_frame(cage: Cage, format: str) -> None:
    pictures = [make.flat("white", 128, 96)] * 12 + [make.flat("blue", 128, 96)] * 3
    seen = look(cage, make.movie(format, pictures))

    first, last = pixels(seen.frames[0])[48, 64], pixels(seen.frames[-1])[48, 64]
    assert first.min() > 200
    assert last[2] > 200
    assert last[0] < 80


def test_f10_the_last_pages_of_a_tiff_are_looked_at(cage: Cage) -> None:
    assert [frame.index for frame in look(cage, make.pages(5)).frames] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ink", [0, 255], ids=["black ink", "white ink"])
@pytest.mark.parametrize("format", ["png", "webp"])
def test_f11_a_picture_carried_by_the_alpha_channel_is_seen_on_one_of_two_grounds(cage: Cage, ink: int, format: str) -> None:
    seen = look(cage, make.alpha_carried(ink=ink, format=format))

    assert {frame.ground for frame in seen.frames} == {Ground.BLACK, Ground.WHITE}
    assert max(float(pixels(frame).std()) for frame in seen.frames) > 60


@pytest.mark.parametrize("size", [(1600, 900), (450, 1000), (2000, 500), (300, 4000), (60, 6000)])
@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_f12_no_part_of_any_shape_lies_outside_every_view(cage: Cage, size: tuple[int, int], format: str) -> None:
    width, height = size
    seen = look(cage, make.still(format, width, height))

    whole = next(frame for frame in seen.frames if frame.view == "whole")
    assert abs(whole.width / whole.height - width / height) < 0.05 * width / height
    tiles = [frame for frame in seen.frames if frame.view != "whole"]
    assert bool(tiles) == (max(size) > 2.4 * min(size))
    for tile in tiles:
        assert max(tile.width, tile.height) <= 3.1 * min(tile.width, tile.height) or min(size) < 100


def test_f12_a_mark_anywhere_along_a_strip_shows_in_a_tile_at_full_size(cage: Cage) -> None:
    for x in (0, 333, 777, 1234, 1980):
        strip = make.flat("white", 2000, 200)
        strip.paste((255, 0, 0), (x, 90, x + 20, 110))
        seen = look(cage, make.encode(strip, "png"))

        red = [
            int(((p := pixels(tile).astype(int))[..., 0] - p[..., 1] > 200).sum()) for tile in seen.frames if tile.view != "whole"
        ]
        assert max(red) >= 390


@pytest.mark.parametrize("orientation", range(1, 9))
def test_f13_orientation_is_applied_before_anything_is_looked_at(cage: Cage, orientation: int) -> None:
    data = make.rotated(orientation)
    stored = Image.open(io.BytesIO(data))
    stored.load()
    upright = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    expected = stored if upright is None else stored.transpose(Image.Transpose(upright))

    frame = look(cage, data).frames[0]

    assert (frame.width, frame.height) == expected.size
    assert np.abs(pixels(frame).astype(int) - np.asarray(expected.convert("RGB")).astype(int)).max() <= 8


def test_f13_the_rotation_of_a_video_is_applied(cage: Cage) -> None:
    plain, turned = (look(cage, make.movie("mp4", [make.quarters(128, 96)] * 3, rotation=degrees)) for degrees in (0, 90))

    before, after = pixels(plain.frames[0]).astype(int), pixels(turned.frames[0]).astype(int)
    assert after.shape == (128, 96, 3)
    assert np.abs(np.rot90(before, -1) - after).mean() < 4  # 90 degrees clockwise


def test_f23_the_decoder_is_current_and_caged(cage: Cage) -> None:
    assert int(version("pillow").split(".", 1)[0]) >= 13
    assert all(cage.layers.values())
    locked = (Path(__file__).parents[2] / "requirements" / "run.lock").read_text()
    assert "pillow==" in locked
    assert "--hash=sha256:" in locked


def test_f27_looking_writes_no_file_anywhere(tmp_path: Path) -> None:
    """Traces the whole program with its cage: no file is opened for writing but the null device."""
    for name in ("a.jpg", "b.png", "c.mp4"):
        data = {"a": make.still("jpeg"), "b": make.still("png"), "c": make.movie("mp4", 4)}[name[0]]
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys, os, pathlib\n"
        "from fediwarden.media import Cage, Limits\n"
        "from fediwarden.model import Blob, ObjectRef\n"
        "written = []\n"
        "def hook(event, args):\n"
        "    if event == 'open' and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):\n"
        "        written.append(args[0])\n"
        "sys.addaudithook(hook)\n"
        "with Cage(Limits()) as cage:\n"
        "    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "        with cage.look(Blob.of(ObjectRef('s', path.name, 1, ''), path.read_bytes())) as peek:\n"
        "            assert list(peek.frames()), peek.report\n"
        "print([w for w in written if w != '/dev/null'])\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "media").mkdir()
    for name in ("a.jpg", "b.png", "c.mp4"):
        (tmp_path / name).rename(tmp_path / "media" / name)
    ran = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path / "media")],
        capture_output=True,
        text=True,
        cwd=home,
        env={"HOME": str(home), "TMPDIR": str(home)},
        check=True,
    )

    assert ran.stdout.strip() == "[]"
    assert list(home.iterdir()) == []


def test_p3_hostile_names_inside_an_archive_stay_labels(cage: Cage, tmp_path: Path) -> None:
    inner = make.still("png", 30, 30)
    seen = look(
        cage,
        make.zip_of(
            {"../escaped/poc.png": inner, "/etc/x.png": make.still("png", 31, 30), "a\n\x1b[31m.png": make.still("png", 32, 30)}
        ),
    )

    assert len(seen.frames) == 3
    assert any("../escaped/poc.png" in source for source in seen.sources)
    assert not (tmp_path.parent / "escaped").exists()


def test_f5_a_file_cut_off_still_shows_what_a_browser_would_show(cage: Cage) -> None:
    for format in ("jpeg", "png", "gif", "bmp", "webp", "tiff"):
        seen = look(cage, make.truncated(make.still(format), 0.7))

        assert seen.report.reason is Reason.TRUNCATED, format
        assert len(seen.frames) == 1, format
        assert float(pixels(seen.frames[0]).std()) > 10, format


def test_f6_no_length_in_a_header_makes_the_cage_ask_for_more_than_it_may(cage: Cage) -> None:
    png = bytearray(make.still("png", 20, 20))
    png[16:24] = struct.pack(">II", 60_000, 60_000)

    assert look(cage, bytes(png)).report.reason is Reason.BOMB
