"""A password in the address of a database reaches no error, whatever is wrong with the address."""

import traceback
from collections.abc import Callable

import pytest

from fediwarden.errors import FediwardenError, Misconfigured
from fediwarden.platforms.lemmy.database import Database
from fediwarden.platforms.pictrs.repository import Repository

ASK: list[Callable[[str], object]] = [
    lambda url: Database(url, 2).trace(["a.png"], [], private_messages=False),
    lambda url: Repository(url, seconds=2).page(),
]


@pytest.mark.parametrize("ask", ASK, ids=["lemmy", "pict-rs"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://fediwarden:first@hunter2@127.0.0.1:9/x",
        "postgresql://fediwarden:hunter2%ZZ@127.0.0.1:9/x",
        "postgresql://fediwarden:first:hunter2@[::1/x",
        "postgresql://fediwarden:x@127.0.0.1:hunter2/x",
        "host=127.0.0.1 port=9 password='hunter2",
        "hunter2",
    ],
)
def test_a_wrong_address_is_told_without_a_word_of_it(ask: Callable[[str], object], url: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        ask(url)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value)) + raised.value.hint
    assert {"%40", "%20"} <= set(raised.value.hint.split())


@pytest.mark.parametrize("ask", ASK, ids=["lemmy", "pict-rs"])
def test_a_right_address_that_does_not_answer_keeps_its_password_too(ask: Callable[[str], object]) -> None:
    url = "postgresql://fediwarden:hunter2%40@127.0.0.1:9/x"  # in a variable: a traceback quotes lines of source
    with pytest.raises(FediwardenError) as raised:
        ask(url)
    assert not isinstance(raised.value, Misconfigured)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))
