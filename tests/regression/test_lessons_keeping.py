"""Row of the lessons about the earlier container: root, models fetched at every run, pages that name what is not there."""

import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
LAST = CONTAINERFILE[CONTAINERFILE.rindex("\nFROM ") :]  # the stage that is shipped


def test_f24_the_container_is_no_root_and_says_whether_it_is_well() -> None:
    (user,) = re.findall(r"^USER (.+)$", LAST, re.MULTILINE)
    (asked,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD \[(.*)\]$", LAST, re.MULTILINE)
    name = Path(asked.split(",")[-1].strip(' "')).name

    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", user)
    assert LAST.index("\nUSER ") < LAST.index("\nENTRYPOINT ")
    assert not re.search(r"^RUN", LAST[LAST.index("\nUSER ") :], re.MULTILINE)
    assert (ROOT / "deploy/container" / name).is_file()


def test_f24_models_are_fetched_once_into_a_volume_that_outlives_every_run() -> None:
    (home,) = re.findall(r"FEDIWARDEN_HOME=(\S+)", LAST)

    assert not re.search(r"fediwarden models|models install", CONTAINERFILE)
    for file in sorted((ROOT / "deploy/compose").glob("*.yaml")):
        composed = yaml.safe_load(file.read_text(encoding="utf-8"))
        for service in composed["services"].values():
            assert f"models:{home}/models" in service["volumes"]
        assert "models" in composed["volumes"]


def test_f24_every_file_that_pages_units_and_the_container_name_exists() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    makers = [ROOT / "Containerfile", ROOT / "Makefile", *(ROOT / "scripts").iterdir(), *(ROOT / "deploy").rglob("*.*")]
    named = {
        (path.name, name.rstrip(".,:;/"))
        for path in (*pages, *makers)
        if path.is_file()
        for name in re.findall(r"(?<![\w/.-])(?:deploy|scripts|requirements)/[\w./-]+", path.read_text(encoding="utf-8"))
    }

    assert ("container.md", "deploy/compose/same-host.yaml") in named
    assert {(page, name) for page, name in named if not (ROOT / name).exists()} == set()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINERFILE, re.MULTILINE):
        assert [name for name in source.split() if not (ROOT / name).exists()] == []
