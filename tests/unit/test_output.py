"""Nothing that a user, a file or a server named reaches a terminal as anything but plain text, and JSON brings it back whole."""

import json
import os
import subprocess
import sys
import unicodedata
from datetime import UTC, datetime

import pytest

from fediwarden.cli import main, output
from fediwarden.cli.output import Progress, duration, emit, plain, result, row, show, size, table, tell
from fediwarden.errors import Misconfigured
from fediwarden.pipeline import Tally

HOSTILE = [
    "\x1b[2J\x1b[1;31mred",
    "\x1b]0;title\x07",
    "\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m",  # the one-byte form of the same
    "line\nbreak\rreturn\ttab\x0b\x0c\x85\u2028\u2029",
    "\u202egpj.exe\u202c",  # read from right to left
    "\u2066x\u2069\u200e\u200f\u061c",
    "zero\u200bwidth\ufeff\u00ad",
    "\x00null\x7f\x08",
    "\udcff\udc80 not UTF-8",
    "\ud800 half a pair",
    "\U000e0041 a tag",
    "[bold red]markup[/bold red] :smile: https://x",
    "private \ue000 and unassigned \U000e01f0",
]


def obeyed(text: str) -> list[str]:
    """Characters that a terminal would act upon, or that hide or turn the text around them."""
    return [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_name_is_obeyed_by_a_terminal(text: str) -> None:
    assert obeyed(plain(text)) == []
    assert plain(text).isascii() or plain(text).isprintable()


def test_names_of_every_script_stay_readable() -> None:
    for name in ("été.jpg", "猫の写真.png", "صورة.jpg", "кот.gif", "a b.png", "👍.webp"):
        assert plain(name) == name


def test_a_long_name_is_cut_in_the_middle_and_keeps_both_ends() -> None:
    shown = plain("a" * 500 + "end.jpg", 60)

    assert len(shown) == 60
    assert shown.startswith("aaa")
    assert shown.endswith("end.jpg")
    assert plain("short", 60) == "short"
    assert plain("x" * 60, 60) == "x" * 60


@pytest.mark.parametrize("text", HOSTILE)
def test_json_brings_every_name_back_whole_in_ascii(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    emit({"key": text, "at": datetime(2026, 1, 2, tzinfo=UTC)})
    printed = capsys.readouterr().out

    assert printed.isascii()
    assert printed.count("\n") == 1
    assert json.loads(printed) == {"key": text, "at": "2026-01-02T00:00:00+00:00"}


@pytest.mark.parametrize("text", HOSTILE)
def test_tables_and_errors_take_text_as_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = table("key", ">size")
    row(made, text, "1")
    show(made)
    tell(Misconfigured(text, hint=text))
    printed = capsys.readouterr()

    assert obeyed(printed.out.replace("\n", "")) == []
    assert obeyed(printed.err.replace("\n", "")) == []
    assert printed.err.count("\n") == 2
    if text.startswith("[bold"):
        assert "[bold red]markup[/bold red] :smile:" in printed.out


def test_results_go_to_standard_output_and_talk_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    result("a result")
    output.say("talk")
    printed = capsys.readouterr()

    assert (printed.out, printed.err) == ("a result\n", "talk\n")


def test_a_name_that_a_narrow_terminal_cannot_show_does_not_end_a_command_half_way() -> None:
    program = """
from fediwarden.cli import main, output
main.app = lambda **_: output.result("\\u043a\\u043e\\u0442") or 0
main.run([])
"""
    latin = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", program], env=latin, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"\\u043a\\u043e\\u0442\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (48 * 3600, "2.0 days")]
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2 * 10**9, "2.0 GB"), (10**13, "10.00 TB")],
)
def test_sizes_are_said_in_powers_of_ten(count: int, words: str) -> None:
    assert size(count) == words


def test_progress_tells_the_rate_the_time_left_and_what_is_not_scanned(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress._said -= 60
        progress._started -= 10
        progress(Tally(listed=50, seen=20, unreached=2, flagged=1, expected=100))
        progress(Tally(listed=50, seen=21, expected=100))
    line = capsys.readouterr().err

    assert line.count("\n") == 1
    for words in ("22 of 100", "/s", "left", "2 not scanned", "1 suspected"):
        assert words in line


def test_before_anybody_has_counted_progress_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress._said -= 60
        progress(Tally(listed=5, skipped=5))
    assert "so far" in (line := capsys.readouterr().err)
    assert "counting" in line


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (SystemExit(1), 0), (Misconfigured("x", hint="y"), 4), (RuntimeError("x"), 70)],
)
def test_every_way_a_command_can_end_has_its_promised_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(**_: object) -> None:
        raise error

    monkeypatch.setattr(main, "app", ends)
    assert main.code_of(["status"]) == code
    assert "Traceback" not in capsys.readouterr().err or code == 70
