"""Each page that sets something is followed to the letter on the file that `init` writes, and the configuration is what it says."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fediwarden import config
from fediwarden.errors import Misconfigured

DOCS = Path(__file__).parents[2] / "docs"
TABLE = re.compile(r"^\[([^\]]+)\]", re.MULTILINE)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The paragraph before each block of the configuration, and the block."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        try:
            tables = set(tomllib.loads(match[1]))
        except tomllib.TOMLDecodeError:
            tables = set()  # parts of a policy
        if tables and tables <= set(config.Settings.model_fields) and not tables & {"policy"}:
            yield text[: match.start()].rstrip().rpartition("\n\n")[2], match[1]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if list(blocks(page))]


def changed(text: str, block: str) -> str:
    """The file with the lines of a block in the place of those that it has already."""
    section = ""
    for line in block.splitlines():
        if match := TABLE.match(line):
            section = match[1]
            continue
        key = line.partition("=")[0].strip()
        if not key or key.startswith("#"):
            continue
        begin = text.index(f"\n[{section}]\n") if section else 0
        end = text.find("\n[", begin + 1)
        head, part, tail = text[:begin], text[begin:end], text[end:]
        part, count = re.subn(rf"^{re.escape(key)} = .*$", lambda _, line=line: line, part, flags=re.MULTILINE)  # type: ignore[misc]
        assert count == 1, f"`init` writes no line {key} in [{section}]"
        text = head + part + tail
    return text


def followed(page: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The file after each block, and what that block says; a store that is shown again is another way to do it, on a fresh file."""
    fresh = text = config.template("other")
    for before, block in blocks(page):
        said = tomllib.loads(block)
        if "stores" in said:
            assert set(said) == {"stores"}, f"{page.name}: what `init` has written is changed, a store is added: in two blocks"
            assert re.search(r"\b[Aa]dd\b|[Aa]t the end", before), f"{page.name}: nothing says where this goes: {block}"
            if any(f"\n[stores.{name}]\n" in text for name in said["stores"]):
                text = fresh
            text += "\n" + block
        else:
            assert re.search(r"\b[Cc]hange\b", before), f"{page.name}: nothing says to change these lines: {block}"
            text = changed(text, block)
        yield text, said


def inside(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    return all(inside(value, whole[key]) if isinstance(value, dict) else whole[key] == value for key, value in part.items())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_that_is_followed_to_the_letter_after_init_gives_the_configuration_it_shows(page: Path, tmp_path: Path) -> None:
    for text, said in followed(page):
        (tmp_path / config.CONFIG_NAME).write_text(text, encoding="utf-8")
        settings = config.load({"FEDIWARDEN_HOME": str(tmp_path)}).settings

        assert inside(said, settings.model_dump())


def test_the_pages_of_the_gate_are_among_them() -> None:
    assert {"gate-same-host.md", "gate-gpu-at-home.md", "container.md", "first-hour.md", "trace.md"} <= {
        page.name for page in PAGES
    }


def test_a_block_that_is_there_twice_is_told_with_the_lines_to_change(tmp_path: Path) -> None:
    text = config.template("other")
    first = text.splitlines().index("[gate]") + 1
    added = len(text.splitlines()) + 2
    (tmp_path / config.CONFIG_NAME).write_text(text + '\n[gate]\nstore = "pictrs"\n', encoding="utf-8")

    with pytest.raises(Misconfigured, match="Cannot declare") as told:
        config.load({"FEDIWARDEN_HOME": str(tmp_path)})

    assert told.value.hint == (
        f"[gate] stands in line {first} already: change its lines there, and take the block of line {added} away"
    )
    assert "\n" not in str(told.value)


def test_a_key_that_is_there_twice_is_told_with_the_line_to_change(tmp_path: Path) -> None:
    (tmp_path / config.CONFIG_NAME).write_text('[gate]\nqueue = 5\nstore = ""\n\nqueue = 6\n', encoding="utf-8")

    with pytest.raises(Misconfigured, match="overwrite") as told:
        config.load({"FEDIWARDEN_HOME": str(tmp_path)})

    assert told.value.hint == "queue stands in line 2 already: change that line, and take line 5 away"
