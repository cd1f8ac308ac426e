"""Drill markers and pictures: who made them, how long they hold, and what they survive."""

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import zxingcpp
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.support.pictures import noise, shapes

from fediwarden.analysers.drill import LONGEST, DrillAnalyser, DrillKey, is_valid, make_marker, make_picture
from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.model import Frame

NOW = datetime(2026, 5, 1, 12, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = DrillKey(bytes(range(32)))
OTHER = DrillKey(bytes(32))


def found(image: Image.Image, key: DrillKey = KEY, now: datetime = NOW) -> bool:
    codes = tuple(code.text for code in zxingcpp.read_barcodes(image))
    return bool(DrillAnalyser(key, lambda: now).analyse([Frame(image.tobytes(), image.width, image.height, codes=codes)]))


def picture() -> Image.Image:
    return Image.open(io.BytesIO(make_picture(KEY, NOW, HOUR)))


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def inside(image: Image.Image, surroundings: Image.Image, at: tuple[int, int]) -> Image.Image:
    surroundings.paste(image, at)
    return surroundings


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: image, id="as it is"),
        pytest.param(lambda image: image.resize((200, 200)), id="200 pixels a side"),
        pytest.param(lambda image: image.convert("L").convert("RGB"), id="greyscale"),
        pytest.param(lambda image: image.point(lambda value: value // 2), id="half as bright"),
        pytest.param(lambda image: as_jpeg(image, 30), id="jpeg at 30"),
        pytest.param(lambda image: as_jpeg(image.resize((200, 200)), 30), id="small and jpeg at 30"),
        pytest.param(lambda image: as_jpeg(image.resize((200, 200)).point(lambda v: v // 2), 30), id="small, dark, jpeg at 30"),
        pytest.param(lambda image: inside(image.resize((200, 200)), noise(900, 700), (410, 77)), id="inside fine noise"),
        pytest.param(
            lambda image: inside(image.resize((200, 200)), noise(900, 700, grain=9), (3, 480)), id="inside coarse noise"
        ),
        pytest.param(lambda image: inside(image.resize((240, 240)), shapes(900, 700), (600, 60)), id="inside shapes"),
        pytest.param(lambda image: image.resize((512, 600)), id="squeezed"),
    ],
)
def test_a_drill_picture_is_recognised_after_what_servers_do_to_pictures(change: Callable[[Image.Image], Image.Image]) -> None:
    assert found(change(picture()))


def test_a_drill_picture_is_at_least_512_pixels_a_side_and_never_the_same_twice() -> None:
    pictures = {sha256(make_picture(KEY, NOW, HOUR, size=512)).hexdigest() for _ in range(3)}

    assert len(pictures) == 3
    assert picture().size == (768, 768)
    with pytest.raises(ValueError, match="512"):
        make_picture(KEY, NOW, HOUR, size=511)


@pytest.mark.parametrize("size", [512, 513, 700, 1024])
def test_the_code_can_be_read_at_every_size(size: int) -> None:
    assert found(Image.open(io.BytesIO(make_picture(KEY, NOW, HOUR, size=size))))


def test_another_installation_recognises_nothing() -> None:
    assert not found(picture(), key=OTHER)


def test_an_expired_picture_is_nothing() -> None:
    assert found(picture(), now=NOW + HOUR)
    assert not found(picture(), now=NOW + 2 * HOUR)


@pytest.mark.parametrize("valid_for", [timedelta(0), -HOUR, LONGEST + HOUR])
def test_a_marker_must_expire_within_a_year(valid_for: timedelta) -> None:
    with pytest.raises(ValueError, match="year"):
        make_marker(KEY, NOW, valid_for)


def test_a_marker_holds_at_least_as_long_as_asked_and_an_hour_more_at_most() -> None:
    for minutes in (1, 59, 60, 61, 24 * 60 * 365):
        valid_for = timedelta(minutes=minutes)
        marker = make_marker(KEY, NOW, valid_for)
        assert is_valid(KEY, marker, NOW + valid_for)
        assert not is_valid(KEY, marker, NOW + valid_for + HOUR)


@pytest.mark.parametrize("place", range(29))
def test_a_marker_with_any_character_changed_is_nothing(place: int) -> None:
    marker = make_marker(KEY, NOW, HOUR)
    changed = marker[:place] + ("B" if marker[place] == "A" else "A") + marker[place + 1 :]

    assert is_valid(KEY, marker, NOW)
    assert not is_valid(KEY, changed, NOW)


@given(st.text(max_size=40) | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=22, max_size=22).map("FWDRILL".__add__))
def test_no_text_is_a_marker_by_chance_and_none_raises(text: str) -> None:
    assert not is_valid(KEY, text, NOW)


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "drill.key"

    made = DrillKey.load_or_make(path)

    assert DrillKey.load_or_make(path) == made
    assert len(made.secret) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["drill.key"]
    assert "secret" not in repr(made)


def test_a_key_that_others_can_read_or_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "drill.key"
    DrillKey.load_or_make(path)
    for mode in (0o604, 0o620, 0o660, 0o602):
        path.chmod(mode)
        with pytest.raises(Misconfigured, match="others may"):
            DrillKey.load_or_make(path)


def test_a_file_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "drill.key"
    for content in (b"", b"short", b"k" * 33):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(Misconfigured, match="no drill key"):
            DrillKey.load(path)


def test_a_key_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CannotWrite):
        DrillKey.load_or_make(tmp_path / "file" / "drill.key")
