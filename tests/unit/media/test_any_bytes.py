"""Property tests: whatever the bytes, the parts of a look never raise, stay in bounds, and agree with one another."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import media_makers as make
from tests.support.looking import look

from fediwarden.media import Cage, Limits
from fediwarden.media.archives import Member, UnpackingBudget, entries
from fediwarden.media.identify import identify
from fediwarden.media.structure import walk
from fediwarden.media.views import sample, tiles

SEEDS = list(make.gallery().values())
FORMATS = ["jpeg", "png", "gif", "webp", "avif", "bmp", "tiff", "mp4", "mov", "webm", "heic", "unknown"]
ARCHIVES = ["zip", "tar", "gzip", "bzip2", "xz", "7z", "age"]
HEADS = [seed[:24] for seed in SEEDS]

anything = st.one_of(st.binary(max_size=600), st.builds(bytes.__add__, st.sampled_from(HEADS), st.binary(max_size=600)))


def mutate(data: bytes, seed: int) -> bytes:
    """`data` with a few bytes changed, cut, doubled or moved, the same for the same seed."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out) or 1)
        match rng.randrange(12):
            case 0 | 6 | 7:
                out[at : at + 1] = bytes((rng.randrange(256),))
            case 1 | 8 | 9:
                out[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff"))
            case 2 | 10:
                del out[at : at + rng.randrange(64)]
            case 3 | 11:
                out[at:at] = out[at : at + rng.randrange(200)]
            case 4:
                out[at:at] = rng.randbytes(rng.randrange(64))
            case _:
                del out[max(1, at) :]
    return bytes(out)


mutated = st.builds(mutate, st.sampled_from(SEEDS), st.integers(0, 1 << 30))


@pytest.fixture(scope="module")
def cage() -> Iterator[Cage]:
    with Cage(Limits(cpu_seconds=5, wall_seconds=20, archive_mb=4)) as cage:
        yield cage


@given(st.one_of(anything, mutated), st.sampled_from(FORMATS))
@settings(max_examples=300, deadline=None)
def test_walking_any_bytes_as_any_format_ends_within_them(data: bytes, format: str) -> None:
    identify(data)
    found = walk(data, format)

    assert found.end is None or 0 <= found.end <= len(data)
    assert found.width >= 0
    assert found.height >= 0


@given(mutated)
@settings(max_examples=200, deadline=None)
def test_identifying_any_bytes_gives_a_family(data: bytes) -> None:
    assert identify(data).format


@given(
    st.one_of(anything, mutated, st.builds(mutate, st.just(make.zip_of({"a": b"x" * 99}, stored=False)), st.integers())),
    st.sampled_from(ARCHIVES),
)
@settings(max_examples=200, deadline=None)
def test_opening_any_bytes_as_any_archive_stays_within_the_budget(data: bytes, format: str) -> None:
    budget = UnpackingBudget(1000)
    opened = [item for item in entries(data, format, budget) if isinstance(item, Member)]

    assert sum(len(entry.data) for entry in opened) <= 1000
    assert budget.left >= 0


@given(st.integers(1, 5000), st.lists(st.floats(0, 100), max_size=5000), st.integers(2, 300))
@settings(max_examples=100, deadline=None)
def test_a_sample_holds_the_first_and_last_frame_and_is_bounded(count: int, delays: list[float], bound: int) -> None:
    starts = [sum(delays[:n]) for n in range(count)] if len(delays) >= count else None
    chosen = sample(count, starts, Limits(frame_bound=bound, all_frames=min(bound, 64)))

    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert len(chosen) <= max(bound, 2) + 2


@given(st.integers(1, 70_000), st.integers(1, 70_000))
def test_tiles_cover_every_pixel_and_overlap(width: int, height: int) -> None:
    boxes = tiles(width, height)

    reached = 0
    for left, top, right, bottom in boxes:
        start, end = (left, right) if width >= height else (top, bottom)
        assert 0 <= start <= reached
        assert end > reached
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        reached = end
    assert not boxes or reached == max(width, height)


@given(mutated)
@settings(max_examples=250, deadline=None)
def test_looking_at_damaged_files_always_gives_a_report(cage: Cage, data: bytes) -> None:
    report = look(cage, data).report

    assert report.reason is not None or report.kind is not None
    assert (report.reason is None) == (report.problem == "")
    assert "an error of ours" not in report.problem


@given(anything)
@settings(max_examples=150, deadline=None)
def test_looking_at_any_bytes_always_gives_a_report(cage: Cage, data: bytes) -> None:
    report = look(cage, data).report

    assert report.reason is not None or report.kind is not None
    assert "an error of ours" not in report.problem
