"""Every row of the lessons that this release answers for has a test that is named after it."""

import re
from pathlib import Path

import pytest

ROWS = [
    "F1",
    "F2",
    "F3",
    "F4",
    "F5",
    "F6",
    "F7",
    "F8",
    "F9",
    "F10",
    "F11",
    "F12",
    "F13",
    "F14",
    "F15",
    "F16",
    "F17",
    "F18",
    "F19",
    "F20",
    "F21",
    "F22",
    "F23",
    "F24",
    "F25",
    "F26",
    "F27",
    "P1",
    "P2",
    "P3",
    "P4",
    "P5",
    "P6",
    "P7",
    "P8",
    "P10",
    "P11",
    "P12",
    "P15",
    "P16",
    "P17",
    "H1",
    "H2",
    "H3",
    "H4",
    "H5",
    "H6",
    "H7",
]
HERE = Path(__file__).parent
NAMES = [
    name for file in sorted(HERE.glob("test_*.py")) for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test_of_its_name(row: str) -> None:
    assert [name for name in NAMES if name.startswith(f"test_{row.lower()}_")]


def test_no_two_tests_share_a_name() -> None:
    assert len(NAMES) == len(set(NAMES))


def test_every_test_of_the_lessons_is_named_after_a_row() -> None:
    others = [name for name in NAMES if not re.match(r"test_[fph]\d+_", name)]

    assert set(others) == set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.MULTILINE))
