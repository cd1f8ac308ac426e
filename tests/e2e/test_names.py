"""Names that attack terminals, paths and parsers go the whole road as what they are: data."""

import os
from pathlib import Path

from tests.support.bare_s3 import bare_s3
from tests.support.command import Home, Ran, by_key, files_below, write
from tests.support.media_makers import animation, colours

NAMES = [
    b"new\nline.gif",
    b"carriage\rreturn.gif",
    b"esc\x1b[2J\x1b]0;title\x07\x1b[31m.gif",
    b"c1\xc2\x9b31m.gif",
    b"turned \xe2\x80\xae\xe2\x80\xa6fig.gif",
    b"not utf-8 \xff\xfe\x80.gif",
    b"[red]markup[/red] :smile: [link=x]y[/].gif",
    b"--yes",
    b"..gif",
    b"...",
    b" ",
    b"'; DROP TABLE objects; --.gif",
    b"%s%n{0}.gif",
    b"/".join([b"d" * 247] * 4) + b"/" + b"n" * 4 + b".gif",
    "\N{PILE OF POO}\N{ZERO WIDTH JOINER}.gif".encode(),
]


def harmless(ran: Ran) -> None:
    """No character that a terminal would obey, on either stream."""
    for stream in (ran.out, ran.err):
        bad = {char for char in stream if not (char.isprintable() or char == "\n")}
        assert not bad, (bad, stream)


def test_hostile_names_in_a_folder_are_found_shown_hidden_and_restored(home: Home, tmp_path: Path) -> None:
    root = tmp_path / "store\x1b[31m\n"
    store = str(root)
    names = [os.fsdecode(name) for name in NAMES]
    contents = {name: animation("gif", colours(2, 30 + number, 20)) for number, name in enumerate(names)}
    write(root, contents)

    scanned = home.run("scan", store, expect=1)
    harmless(scanned)
    lines = home.run("list", "--json").lines
    assert {line["key"] for line in lines} == set(names)
    assert max(len(line["key"]) for line in lines) == 1000
    for command in (["list"], ["list", "--step", "quarantine"], ["status"], ["scan", store, "--estimate"]):
        harmless(home.run(*command))
    for name in names[:7]:
        told = home.run("explain", "--", name)
        harmless(told)
        assert "animations stand in" in told.out
    harmless(home.run("check", *(root / name for name in names[:7]), expect=1))
    asked = home.run("apply", "--yes", "--limit", "3")
    harmless(asked)
    harmless(home.run("apply", "--yes"))
    assert files_below(root) == {}
    harmless(home.run("vault", "list"))
    harmless(home.run("list", "--hidden"))
    harmless(home.run("restore", "no\x1b[31m\nsuch.gif", expect=4))
    harmless(home.run("explain", "no\x1b[31m\nsuch.gif", expect=4))
    harmless(home.run("scan", str(tmp_path / "no\x1b[31m\nsuch"), expect=5))

    harmless(home.run("restore", "--", *names))
    assert files_below(root) == contents


S3_KEYS = [
    "..",
    "../../etc/passwd",
    "a/../b.gif",
    "./x.gif",
    "/leading.gif",
    "a//b.gif",
    "new\nline.gif",
    "esc\x1b[2J.gif",
    "k" * 1000,
    "sp ace+plus%2Fpercent?query#hash&amp;.gif",
    "\N{PILE OF POO}.gif",
]


def test_keys_that_no_file_system_would_take_are_only_keys(home: Home, tmp_path: Path) -> None:
    with bare_s3() as server:
        contents = {key: animation("gif", colours(2, 30 + number, 22)) for number, key in enumerate(S3_KEYS)}
        server.objects.update({key: (data, "image/gif") for key, data in contents.items()})
        reader, keeper = server.credentials(tmp_path)
        home.add_store(
            "media", url="s3://media", endpoint=server.endpoint, credentials=reader, keeper_credentials=keeper, tries=2
        )

        harmless(home.run("scan", expect=1))
        assert by_key(home.run("list", "--json", "--step", "quarantine").lines).keys() == contents.keys()
        harmless(home.run("list"))
        harmless(home.run("apply", "--yes"))
        assert not contents.keys() & server.objects.keys()
        harmless(home.run("restore", "--", *contents))
        assert {key: server.objects[key] for key in contents} == {key: (data, "image/gif") for key, data in contents.items()}
        assert server.objects.keys() == contents.keys()
    assert not list(tmp_path.glob("**/passwd"))
