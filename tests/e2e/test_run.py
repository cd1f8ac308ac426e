"""The two ways of `./run`, as a person starts them, in the environment that the tests run in."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.command import Home, files_below, write
from tests.support.media_makers import animation, still

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """`./run` with nothing on standard input, from another folder than its own."""
    return subprocess.run(
        [ROOT / "run", *arguments],
        env={**environment, "FEDIWARDEN_VENV": sys.prefix},
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def command_lines() -> Iterator[str]:
    """Of every process that runs."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield file.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_without_arguments_it_shows_the_whole_road_and_leaves_no_server_behind(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = run(environment={**os.environ, "HOME": str(tmp_path), "FEDIWARDEN_DEMO": str(folder)})
    told = done.stdout

    assert done.returncode == 0, (told, done.stderr)
    assert re.search(r"^ +4  suspected: quarantine is decided", told, re.MULTILINE), told
    assert re.search(r"broken/text\.jpg +\(broken: \w+\)", told)
    assert "broken/empty.jpg" not in told  # nothing is in it
    assert re.search(r"review .*hiding/zip with a password\.jpg", told)
    assert "because  this installation's own drill picture" in told
    assert "\x1b" not in told
    assert "4 hidden, 0 failed and still owed" in told
    assert "it is back, byte for byte" in told
    assert [line for line in command_lines() if str(folder) in line] == []


def test_with_a_store_it_looks_changes_nothing_and_calls_a_suspicion_no_failure(
    new_home: Callable[..., Home], tmp_path: Path
) -> None:
    home = new_home()
    store = tmp_path / "store"
    write(
        store,
        {"a.png": still("png", 96, 64), "b.gif": animation("gif", 3), "c.jpg": still("jpeg", 96, 64)[:400], "nothing.jpg": b""},
    )
    before = files_below(store)
    done = run("store", environment={**home.environment, "HOME": str(tmp_path)})

    assert done.returncode == 0, (done.stdout, done.stderr)
    assert re.search(r"^ +1  suspected", done.stdout, re.MULTILINE)
    assert re.search(r"^ +1  NOT SCANNED", done.stdout, re.MULTILINE)
    assert re.search(r"^ +1  of them empty", done.stdout, re.MULTILINE)
    assert files_below(store) == before


def test_with_a_store_that_is_not_there_it_fails_as_the_scan_does(home: Home, tmp_path: Path) -> None:
    done = run("nowhere", environment={**home.environment, "HOME": str(tmp_path)})

    assert done.returncode == 4
    assert "nowhere" in done.stderr
