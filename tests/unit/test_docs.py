"""The pages against the program: a command, option, setting, exit code, policy key or page that is not documented fails here."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from tests.regression.test_rows import ROWS

from fediwarden import config
from fediwarden.cli.main import app
from fediwarden.errors import Exit
from fediwarden.inference import catalogue
from fediwarden.model import Reason
from fediwarden.policy import Mark, MeasureBounds, Rule, parse

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
CONSOLE = re.compile(r"^(?:\$ |ExecStart=/usr/local/bin/)?(fediwarden .+)$", re.MULTILINE)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def commands() -> dict[str, list[str]]:
    """Every command with its options, `fediwarden` itself included."""
    found: dict[str, list[str]] = {}

    def walk(name: str, command: object) -> None:
        parameters = getattr(command, "params", [])
        found[name] = [option for one in parameters if one.param_type_name == "option" for option in one.opts]
        for inner, deeper in getattr(command, "commands", {}).items():
            walk(f"{name} {inner}", deeper)

    walk("fediwarden", typer.main.get_command(app))
    return found


def sections(text: str) -> dict[str, str]:
    """A page's text by its second-level headings."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


COMMANDS = commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_has_its_place_in_the_docs(name: str) -> None:
    described = sections(page("commands.md"))

    assert name in described, f"docs/commands.md lacks the heading: ## {name}"
    for option in COMMANDS[name]:
        if option not in ("--help", "-h"):
            assert f"`{option}" in described[name], f"docs/commands.md, {name}: {option} is missing"


def test_the_docs_describe_no_command_that_does_not_exist() -> None:
    assert set(sections(page("commands.md"))) == set(COMMANDS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_line_in_the_pages_can_be_typed(path: Path) -> None:
    blocks = re.findall(r"```(?:sh|console|ini)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    for line in chain.from_iterable(CONSOLE.findall(block) for block in blocks):
        words = re.split(r"[|;#]", line)[0].split()
        name = words[0]
        for word in words[1:]:
            if f"{name} {word}" not in COMMANDS:
                break
            name += f" {word}"
        if name == "fediwarden":
            assert words[1].startswith("-"), f"{path.name}: no such command: {line}"
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= {*COMMANDS[name], "--help"}, f"{path.name}: no such option: {line}"


def said() -> Iterator[tuple[str, str]]:
    """What a person gets to read, with the file it stands in: every text of the program, and every page as it is written."""
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield file.name, node.value
            elif isinstance(node, ast.JoinedStr):  # its parts by themselves would lose what comes after a name
                parts = (str(one.value) if isinstance(one, ast.Constant) else "NAME" for one in node.values)
                yield file.name, "".join(parts)
    for file in PAGES:
        if file.name != "CHANGELOG.md":  # tells of what was
            yield file.name, file.read_text(encoding="utf-8")


def test_every_command_that_a_message_or_a_page_names_in_backticks_exists() -> None:
    groups = {name.rpartition(" ")[0] for name in COMMANDS if name.count(" ") > 1}
    missing: set[str] = set()
    named: set[str] = set()
    for file, text in said():
        for words in re.findall(r"`fediwarden((?: [a-z][a-z-]*)+)", text):
            name = "fediwarden"
            for word in words.split():
                if name != "fediwarden" and name not in groups:
                    break
                name += f" {word}"
            named.add(name)
            if name not in COMMANDS:
                missing.add(f"{file}: {name}")

    assert {"fediwarden apply", "fediwarden lemmy act", "fediwarden vault open"} <= named  # the search finds what it should
    assert missing == set()


@pytest.mark.parametrize("name", [name for name in COMMANDS if "--json" in COMMANDS[name]])
def test_what_json_prints_is_described_for_every_command(name: str) -> None:
    assert name.removeprefix("fediwarden ") in sections(page("json.md"))


def printed_keys() -> set[str]:
    """Every key that the command line's code writes into JSON: in what it emits, and in the functions that make parts of it."""
    found: set[str] = set()
    for file in (ROOT / "src/fediwarden/cli").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            emits = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "emit"
            makes = isinstance(node, ast.FunctionDef) and (node.name.endswith("_json") or node.name == "_numbers")
            if emits or makes:
                inner = (keys for one in ast.walk(node) if isinstance(one, ast.Dict) for keys in one.keys)
                found |= {key.value for key in inner if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return found


def test_every_key_that_json_holds_is_described() -> None:
    keys = printed_keys()

    assert {"listed", "sha256", "because", "owed"} <= keys  # the search finds what it should
    assert {key for key in keys if f"`{key}`" not in page("json.md")} == set()


def settings() -> Iterator[tuple[str, str, str]]:
    """Name, default as TOML and meaning of every setting."""
    sectioned = {"stores.NAME": config.StoreEntry} | {
        name: info.annotation
        for name, info in config.Settings.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    }
    for name, meaning in config.every_setting():
        where, _, key = name.rpartition(".")
        fields = (sectioned[where] if where else config.Settings).model_fields
        default = fields[key].default
        shown = "none: must be set" if default is PydanticUndefined else f"`{_as_toml(default)}`"
        yield name, shown, meaning


def _as_toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return f'"{value}"'


@pytest.mark.parametrize(("name", "default", "meaning"), list(settings()), ids=lambda value: value[:40])
def test_every_setting_is_documented_with_its_default_and_its_meaning(name: str, default: str, meaning: str) -> None:
    line = f"| `{name}` | {default} | {meaning} |"

    assert line in page("settings.md"), f"docs/settings.md should have the line: {line}"


def test_the_docs_describe_no_setting_that_does_not_exist() -> None:
    described = set(re.findall(r"^\| `([a-z]+(?:\.[a-zA-Z_]+)*)` \| [`n]", page("settings.md"), re.MULTILINE))

    assert described == {name for name, _ in config.every_setting()}


@pytest.mark.parametrize("code", list(Exit), ids=lambda code: code.name)
def test_every_exit_code_is_documented(code: Exit) -> None:
    assert f"| {code.value} | {code.name} |" in page("exit-codes.md")


def test_every_key_of_a_policy_is_documented() -> None:
    text = page("policy.md")
    keys = {
        "version",
        "concepts",
        "prompts",
        "controls",
        "further",
        "mark",
        "rule",
        *(field.name for kind in (Mark, Rule, MeasureBounds) for field in dataclasses.fields(kind)),
    } - {"bounds", "points"}  # a mark's bounds are written as at_least and below, its points in no policy

    assert {key for key in keys if f"| `{key}` |" not in text} == set()


def test_every_preset_is_documented_and_so_is_every_rule_of_the_default_one_in_its_order() -> None:
    text = page("policy.md")
    described = re.findall(r"^\| ([^|`]+) \| (quarantine|review|pass) \| (\d*)", text, re.MULTILINE)
    rules = parse(config.default_policy(), "default").rules

    for preset in get_args(config.PolicySettings.model_fields["preset"].annotation):
        assert f"| `{preset}` |" in text
        assert parse(config.default_policy(preset), preset).name == preset
    assert described == [*((rule.name, rule.step.value, str(rule.rank or "")) for rule in rules), ("(no rule)", "pass", "")]


@pytest.mark.parametrize("entry", catalogue.shipped(), ids=lambda entry: entry.name)
def test_every_known_model_is_on_the_card_with_its_licence_and_what_may_not_be_done_with_it(
    entry: catalogue.CatalogueEntry,
) -> None:
    chosen, card = (
        [line for line in page(name).splitlines() if f"| `{entry.name}` |" in line]
        for name in ("choosing-a-model.md", "models.md")
    )

    assert chosen
    assert card
    assert any(f"{entry.accuracy:g} %" in line for line in chosen)
    for lines in (chosen, card):
        assert any("research only" in line for line in lines) == entry.research_only
        assert any(entry.licence.split(" ")[0] in line or "the same" in line for line in lines)


def test_every_key_of_a_catalogue_is_documented() -> None:
    text = page("adding-a-model.md")
    rows = tomllib.loads((ROOT / "src/fediwarden/inference/catalogue.toml").read_text(encoding="utf-8"))["model"]
    keys = {key for row in rows for key in (*row, *row["image"], *(name for one in row["files"] for name in one))}

    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_the_hints_for_the_dear_model_are_documented_with_their_numbers() -> None:
    text = sections(page("blind-spots.md"))["The cascade"]

    for mark in parse(config.default_policy(), "default").further:
        numbers = [value for bounds in (*mark.either, mark.bounds) for _, value in (*bounds.at_least, *bounds.below)]
        assert f"`{mark.finding}`" in text
        assert all(f"{number:g}" in text for number in numbers or [mark.score]), mark.name


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_every_reason_for_being_broken_is_documented(reason: Reason) -> None:
    assert f"| {reason.value} |" in page("media.md")


@pytest.mark.parametrize("name", config.profile_names())
def test_every_profile_is_documented(name: str) -> None:
    assert f"| `{name}` |" in page("profiles.md")


def test_every_key_of_a_profile_is_documented() -> None:
    text = page("profiles.md")
    keys = {field.name for field in dataclasses.fields(config.Profile)} - {"name"}  # the file's name

    assert {key for key in keys if f"| `{key}` |" not in text} == set()


def test_the_help_in_the_readme_is_what_the_program_prints() -> None:
    block = re.search(
        r"<!-- help -->\n```\n(.*?)```\n<!-- /help -->", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TERMINAL_WIDTH")}
    printed = subprocess.run(
        [sys.executable, "-m", "fediwarden.cli.main", "--help"],
        env=environment | {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert block is not None
    assert block[1].strip().splitlines() == [line.rstrip() for line in printed.strip().splitlines()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_to_a_page_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path

        assert other.is_file(), f"{path.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{path.name}: {target}"


def test_every_page_is_listed_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([a-z-]+\.md)\)", page("index.md")))

    assert linked == {path.name for path in DOCS.glob("*.md")} - {"index.md"}


def test_every_lesson_names_the_tests_that_hold_it_and_they_exist() -> None:
    rows = dict(re.findall(r"^\| ([FPH]\d+) \| .* \| ([^|]+) \|$", page("lessons.md"), re.MULTILINE))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))

    assert list(rows) == ROWS
    for row, named in rows.items():
        names = re.findall(r"`(test_\w+)`", named)
        assert names, f"docs/lessons.md: {row} names no test"
        for name in names:
            assert name.startswith(f"test_{row.lower()}_")
            assert f"def {name}(" in tests, f"docs/lessons.md: {row} names a test that does not exist: {name}"


def test_the_layers_on_the_architecture_page_are_those_that_are_enforced() -> None:
    enforced = re.search(
        r"^layers = \[\n(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    rooms = re.findall(r"^\| ((?:`\w+`(?: \\\| )?)+) \|", page("architecture.md"), re.MULTILINE)

    assert enforced is not None
    assert [room.replace("`", "").replace("\\", "") for room in rooms] == re.findall(r'"([^"]+)"', enforced[1])


def test_every_page_that_the_program_names_exists() -> None:
    named = {
        name
        for file in chain((ROOT / "src").rglob("*.py"), (ROOT / "src").rglob("*.toml"), [ROOT / "pyproject.toml"])
        for name in re.findall(r"\bdocs/([a-z-]+\.md)", file.read_text(encoding="utf-8"))
    }

    assert named
    assert {name for name in named if not (DOCS / name).is_file()} == set()


def test_no_line_of_the_help_s_lists_of_commands_is_cut_off() -> None:
    for name in ("", "vault", "models", "drill"):
        printed = subprocess.run(
            [sys.executable, "-m", "fediwarden.cli.main", *name.split(), "--help"],
            env=dict(os.environ) | {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

        assert not [line for line in printed.partition("Commands:")[2].splitlines() if line.endswith("...")]
