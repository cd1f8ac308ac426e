"""How many requests a Lemmy lets through, reckoned from what it says of its limits."""

import pytest

from fediwarden.platforms.lemmy.pace import RequestPace


def test_0_19_gives_requests_back_bit_by_bit() -> None:
    pace = RequestPace(60, 600.0, bit_by_bit=True)
    for _ in range(60):
        assert pace.due(1000.0) == 0
        pace.took(1000.0)

    assert pace.due(1000.0) == pytest.approx(10)
    assert pace.due(1009.0) == pytest.approx(1)
    assert pace.due(1010.5) == 0


def test_1_0_gives_requests_back_when_its_window_is_over() -> None:
    pace = RequestPace(2, 600.0, bit_by_bit=False)
    pace.took(100.0)
    pace.took(300.0)

    assert pace.due(300.0) == 400
    assert pace.due(700.0) == 0


def test_what_the_server_says_is_left_counts_more_than_what_was_reckoned() -> None:
    pace = RequestPace(180, 60.0, bit_by_bit=False)
    pace.took(0.0)
    pace.emptied(1.0, 20.0)

    assert pace.due(1.0) == 20
    assert pace.due(21.5) == 0


def test_where_the_server_says_only_that_none_is_left_a_whole_window_is_the_longest() -> None:
    pace = RequestPace(180, 60.0, bit_by_bit=False)
    pace.emptied(5.0, None)

    assert pace.due(5.0) == 60
    assert pace.due(65.0) == 0
